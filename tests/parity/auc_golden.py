"""Writes tests/auc_golden.h: AUCs from scikit-learn for tests/test_metrics.c.

Usage: python tests/parity/auc_golden.py > tests/auc_golden.h
SPDX-License-Identifier: Apache-2.0
"""
import numpy as np
import sklearn
from sklearn.metrics import roc_auc_score

rng = np.random.default_rng(7)


def case(n, levels, share):
    truth = (rng.random(n) < share).astype(int)
    truth[:2] = [0, 1]
    scores = rng.normal(size=n) + 0.7 * truth
    if levels:
        scores = np.round(scores * levels) / levels
    return scores, truth


cases = [case(2, 0, 0.5), case(9, 1, 0.5), case(40, 0, 0.3), case(40, 2, 0.3), case(60, 1, 0.05)]
cases.append((np.array([0.5] * 8), np.array([0, 1] * 4)))
cases.append((np.array([3.0, 2.0, 1.0, 0.0]), np.array([0, 0, 1, 1])))
cases.append((np.array([-1e300, 1e-300, 0.0, -0.0, 1e300]), np.array([0, 1, 0, 1, 1])))

print("/* Written by tests/parity/auc_golden.py with scikit-learn %s, numpy %s. */" % (sklearn.__version__, np.__version__))
print("static const struct auc_case {\n    size_t n;\n    double scores[60];\n    uint8_t truth[60];\n    double auc;\n} auc_cases[] = {")
for scores, truth in cases:
    print("    {%d,\n     {%s},\n     {%s},\n     %r}," % (len(scores), ", ".join("%r" % float(s) for s in scores), ", ".join(str(t) for t in truth), float(roc_auc_score(truth, scores))))
print("};")
