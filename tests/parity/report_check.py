#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Computes every figure of a report again from its scores, with scikit-learn.

Usage: radz-eval ... --scores --out DIR; python tests/parity/report_check.py DIR
Says the largest difference; fails above 1e-12.
"""
import csv
import math
import sys
import warnings
from collections import defaultdict

import numpy as np
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

warnings.simplefilter("ignore")
FIGURES = ["auc", "auprc", "f1", "accuracy", "mcc", "sensitivity", "specificity", "precision", "brier", "ece"]


def ece(t, p, bins=10):
    share, mean = calibration_curve(t, p, n_bins=bins)
    count = np.bincount(np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p), minlength=bins)
    return float(np.sum(count[count > 0] * np.abs(share - mean)) / len(t))


def figures(t, p, threshold):
    y = p >= threshold
    both, at = 0 < t.sum() < len(t), not math.isnan(threshold)
    return {"auc": sk.roc_auc_score(t, p) if both else math.nan,
            "auprc": sk.average_precision_score(t, p) if t.sum() else math.nan,
            "f1": sk.f1_score(t, y, zero_division=0) if at else math.nan,
            "accuracy": sk.accuracy_score(t, y) if at else math.nan,
            "mcc": sk.matthews_corrcoef(t, y) if at else math.nan,
            "sensitivity": sk.recall_score(t, y) if at and t.sum() else math.nan,
            "specificity": sk.recall_score(1 - t, ~y) if at and t.sum() < len(t) else math.nan,
            "precision": sk.precision_score(t, y, zero_division=0) if at else math.nan,
            "brier": sk.brier_score_loss(t, p) if both else float(np.mean((p - t) ** 2)), "ece": ece(t, p)}


def number(text):
    return float(text) if text else math.nan


def main(folder):
    scores = defaultdict(list)
    for row in csv.DictReader(open(folder + "/scores.csv", newline="")):
        if row["part"] == "evaluated" and row["truth"]:
            for name in (row["set"], "(all)"):
                scores[row["model"], row["method"], name, row["class"]].append((int(row["truth"]), float(row["probability"])))
    worst, n, tables = 0.0, 0, defaultdict(list)
    for row in csv.DictReader(open(folder + "/report.csv", newline="")):
        key = row["model"], row["method"], row["set"]
        if row["class"] == "(macro)":
            # the reference class is left out, as is what lacks one outcome
            rows = [f for label, f in tables[key] if label != "No Finding" and not math.isnan(f["auc"])]
            want = {k: float(np.mean([f[k] for f in rows])) if rows else math.nan for k in FIGURES}
        else:
            pairs = scores.get((*key, row["class"]))
            if not pairs:
                continue
            t, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
            want = figures(t, p, number(row["threshold"]))
            tables[key].append((row["class"], want))
        for k in FIGURES:
            got = number(row[k])
            if math.isnan(got) and math.isnan(want[k]):
                continue
            worst, n = max(worst, abs(got - want[k]) if not math.isnan(got - want[k]) else math.inf), n + 1
            if not abs(got - want[k]) <= 1e-12:
                print(*key, row["class"], k, got, want[k])
    print(f"{n} figures, largest difference {worst:.2g}")
    return worst > 1e-12 or not n


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
