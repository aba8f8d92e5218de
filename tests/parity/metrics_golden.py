"""Writes tests/metrics_golden.h: every metric from scikit-learn, for tests/test_metrics.c.

Usage: python tests/parity/metrics_golden.py > tests/metrics_golden.h
SPDX-License-Identifier: Apache-2.0
"""
import warnings

import numpy as np
import sklearn
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

warnings.simplefilter("ignore")
rng = np.random.default_rng(11)
MASK = (1 << 64) - 1
ROUNDS, SEED = 40, 5


def case(n, levels, share, missing):
    truth = (rng.random(n) < share).astype(int)
    if 0 < share < 1:
        truth[:2] = [0, 1]
    p = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.2 * truth - 0.6)))
    if levels:
        p = np.round(p * levels) / levels
    gone = rng.random(n) < missing
    gone[:2] = False
    groups = rng.integers(0, max(1, n // 2), n)
    return p, np.where(gone, -1, truth), groups


cases = [case(2, 0, 0.5, 0), case(12, 4, 0.5, 0), case(60, 0, 0.3, 0), case(60, 10, 0.3, 0.2), case(60, 3, 0.1, 0.3),
         case(60, 20, 0.8, 0.1), case(30, 5, 0.0, 0.2), case(30, 5, 1.0, 0.2), case(50, 1, 0.4, 0)]


def number(v):
    return "NAN" if v is None or np.isnan(v) else "INFINITY" if np.isinf(v) else repr(float(v))


def numbers(v):
    return "{" + ", ".join(number(x) for x in v) + "}"


def both(t):
    return 0 < t.sum() < len(t)


def ece(t, p, bins=10):
    if len(t) == 0:
        return None
    share, mean = calibration_curve(t, p, n_bins=bins)
    edges = np.linspace(0, 1, bins + 1)
    count = np.bincount(np.searchsorted(edges[1:-1], p), minlength=bins)
    return float(np.sum(count[count > 0] * np.abs(share - mean)) / len(t))


def figures(t, p, threshold, strict=False):
    """In the order of struct golden_figures."""
    y = p > threshold if strict else p >= threshold
    n = len(t)
    return [sk.roc_auc_score(t, p) if both(t) else None,
            sk.average_precision_score(t, p) if t.sum() else None,
            sk.f1_score(t, y, zero_division=0), sk.f1_score(t, y, average="macro", labels=[0, 1], zero_division=0),
            sk.accuracy_score(t, y), sk.matthews_corrcoef(t, y) if both(t) and both(y.astype(int)) else 0.0,
            sk.recall_score(t, y) if t.sum() else None,
            sk.recall_score(1 - t, ~y) if t.sum() < n else None,
            sk.precision_score(t, y, zero_division=0),
            np.mean((p - t) ** 2) if not both(t) else sk.brier_score_loss(t, p), ece(t, p)]


def best(t, p, merit):
    """The lowest score at which the metric is best."""
    if not both(t):
        return None
    return max(np.unique(p), key=lambda s: (round(merit(t, p >= s), 12), -s))


class Xoshiro:
    """rz_rng: xoshiro256**, seeded with splitmix64 of seed and stream."""

    def __init__(self, seed, stream):
        self.s = rng_state(seed, stream)

    def u64(self):
        s = self.s
        rol = lambda x, n: ((x << n) | (x >> (64 - n))) & MASK
        result = rol(s[1] * 5 & MASK, 7) * 9 & MASK
        t = s[1] << 17 & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rol(s[3], 45)
        return result

    def below(self, n):
        skip = (1 << 64) % n
        while True:
            x = self.u64()
            if x >= skip:
                return x % n


def splitmix(x):
    x = z = (x + 0x9E3779B97F4A7C15) & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return x, z ^ (z >> 31)


def rng_state(seed, stream):
    a, b, state = seed, stream ^ 0x6A09E667F3BCC909, []
    for _ in range(4):
        b, y = splitmix(b)
        a, x = splitmix(a)
        mixed = x ^ ((y << 1 | y >> 63) & MASK)
        state.append(splitmix(mixed)[1])
    return state


def intervals(p, truth, groups, threshold):
    order = {}
    for g in groups:
        order.setdefault(int(g), len(order))
    g = np.array([order[int(x)] for x in groups])
    rows = []
    for r in range(ROUNDS):
        gen = Xoshiro(SEED, r)
        drawn = np.bincount([gen.below(len(order)) for _ in range(len(order))], minlength=len(order))
        idx = np.repeat(np.arange(len(p)), drawn[g])
        idx = idx[truth[idx] >= 0]
        t, q = truth[idx], p[idx]
        rows.append([np.nan] * 11 if len(t) == 0 else [np.nan if v is None else v for v in figures(t, q, threshold)])
    rows = np.array(rows)
    low = [np.percentile(c[~np.isnan(c)], 2.5) if (~np.isnan(c)).any() else np.nan for c in rows.T]
    high = [np.percentile(c[~np.isnan(c)], 97.5) if (~np.isnan(c)).any() else np.nan for c in rows.T]
    return low, high


def curves(t, p):
    if not both(t):
        return [], [], []
    fpr, tpr, _ = sk.roc_curve(t, p, drop_intermediate=False)
    precision, recall, thresholds = sk.precision_recall_curve(t, p)
    return list(zip(fpr, tpr)), list(zip(recall[:-1], precision[:-1]))[::-1], thresholds[::-1]


print("/* Written by tests/parity/metrics_golden.py with scikit-learn %s, numpy %s. */" % (sklearn.__version__, np.__version__))
print("enum { GOLDEN_ROUNDS = %d, GOLDEN_SEED = %d };" % (ROUNDS, SEED))
print("typedef struct golden_figures {\n    double auc, auprc, f1, f1_both, accuracy, mcc, sensitivity, specificity, precision, brier, ece;\n} golden_figures;")
print("typedef struct golden_point {\n    double x, y;\n} golden_point;")
print("static const struct metrics_case {\n    size_t n;\n    double scores[60];\n    signed char truth[60];\n    size_t groups[60];\n"
      "    golden_figures at_half, above_half, low, high;\n    double max_f1, youden, mcc; /* thresholds */\n"
      "    size_t n_roc, n_pr;\n    golden_point roc[61], pr[60];\n    double thresholds[60];\n} metrics_cases[] = {")
for p, truth, groups in cases:
    known = truth >= 0
    t, q = truth[known], p[known]
    roc, pr, thresholds = curves(t, q)
    low, high = intervals(p, truth, groups, 0.5)
    f1 = best(t, q, lambda t, y: sk.f1_score(t, y))
    youden = best(t, q, lambda t, y: sk.recall_score(t, y) + sk.recall_score(1 - t, ~y))
    mcc = best(t, q, sk.matthews_corrcoef)
    points = lambda c: "{" + (", ".join("{%s, %s}" % (number(a), number(b)) for a, b in c) or "{0, 0}") + "}"
    print("{%d, %s, {%s}, {%s},\n%s,\n%s,\n%s,\n%s,\n%s, %s, %s, %d, %d,\n%s,\n%s,\n%s}," % (
        len(p), numbers(p), ", ".join(map(str, truth)), ", ".join(map(str, groups)), numbers(figures(t, q, 0.5)),
        numbers(figures(t, q, 0.5, True)), numbers(low), numbers(high), number(f1), number(youden), number(mcc),
        len(roc), len(pr), points(roc), points(pr), numbers(thresholds) if len(thresholds) else "{0}"))
print("};")
