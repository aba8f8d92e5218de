"""Writes tests/calibration_golden.h: Platt's sigmoid and isotonic regression from scikit-learn, for tests/test_score.c.

Platt: the optimum of the log loss with his smoothed targets, from LogisticRegression with every film once as a positive
and once as a negative, weighted by its target. Isotonic: IsotonicRegression(out_of_bounds="clip").
Usage: python tests/parity/calibration_golden.py > tests/calibration_golden.h
SPDX-License-Identifier: Apache-2.0
"""
import numpy as np
import sklearn
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(3)


def case(n, levels, share, slope):
    t = (rng.random(n) < share).astype(int)
    t[:2] = [0, 1]
    x = slope * (t - 0.4) + rng.normal(size=n)
    return (np.round(x * levels) / levels if levels else x), t


def platt(x, t, at):
    n1, n0 = t.sum(), len(t) - t.sum()
    y = np.where(t == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    lr = LogisticRegression(C=np.inf, tol=1e-14, solver="newton-cholesky", max_iter=1000)
    lr.fit(np.r_[x, x].reshape(-1, 1), np.r_[np.ones(len(x)), np.zeros(len(x))], np.r_[y, 1 - y])
    return lr.predict_proba(at.reshape(-1, 1))[:, 1]


print("/* Written by tests/parity/calibration_golden.py with scikit-learn %s, numpy %s. */" % (sklearn.__version__, np.__version__))
print("static const struct calibration_case {\n    size_t n;\n    double x[60];\n    signed char truth[60];\n"
      "    double at[9], platt[9], isotonic[9];\n} calibration_cases[] = {")
row = lambda v: "{" + ", ".join(repr(float(a)) for a in v) + "}"
for x, t in [case(60, 0, 0.4, 2), case(60, 3, 0.2, 1), case(20, 1, 0.5, -1), case(40, 0, 0.9, 6), case(8, 0, 0.5, 30)]:
    at = np.r_[np.linspace(x.min() - 1, x.max() + 1, 8), x[3]]
    iso = IsotonicRegression(out_of_bounds="clip").fit(x, t).predict(at)
    print("{%d, %s, {%s}, %s, %s, %s}," % (len(x), row(x), ", ".join(map(str, t)), row(at), row(platt(x, t, at)), row(iso)))
print("};")
