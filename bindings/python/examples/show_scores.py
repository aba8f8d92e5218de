"""Draws a film, its scores as bars, and where the best finding is seen.

    python show_scores.py MODEL FILM [--label LABEL] [-o scores.png]

Needs matplotlib and numpy. Research use only, not for diagnosis. SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

import radz

# %% What to draw

parser = argparse.ArgumentParser(description="A film, its scores and a heat map.")
parser.add_argument("model", help="model directory, such as models/radz-tiny")
parser.add_argument("film", help="PNG, JPEG or DICOM file")
parser.add_argument("--label", help="finding of the heat map; else the best that is not the reference class")
parser.add_argument("-o", "--out", help="PNG or PDF to write; else a window opens")
arguments = parser.parse_args()

# %% What the library says

with radz.Model(arguments.model) as model, radz.Session(model) as session, radz.Image(arguments.film) as film:
    result = session.classify(film)
    reference = result.provenance.get("reference")
    label = arguments.label or next((s.label for s in result if s.label != reference), result.best.label)
    heatmap = session.heatmap(film, label)
    pixels = film.pixels

# %% Film, scores, heat map

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5), width_ratios=(4, 4, 5), layout="constrained")
left.imshow(pixels, cmap="gray")
left.set_title("Film")

scores = list(reversed(result.scores))
bar_colours = ["tab:red" if s.label == label else "tab:gray" if s.label == reference else "tab:blue" for s in scores]
bars = middle.barh([s.label for s in scores], [s.probability for s in scores], color=bar_colours)
middle.bar_label(bars, [f"{s.probability:.2f}" for s in scores], padding=3)
middle.set_xlim(0, 1.1)
middle.set_xlabel("probability, not calibrated")
middle.set_title("Scores")

# The colder, the more transparent: what the model did not look at stays a film.
heat = np.nan_to_num(heatmap.map, nan=float(np.nanmin(heatmap.map)))
opacity = 0.7 * (heat - heat.min()) / (np.ptp(heat) or 1)
right.imshow(pixels, cmap="gray")
right.imshow(heat, cmap="inferno", alpha=opacity)
colours = ScalarMappable(Normalize(heat.min(), heat.max()), "inferno")
figure.colorbar(colours, ax=right, label="heat")
right.set_title(f"What raises the score of {label} ({heatmap.method})")

for axes in (left, right):
    axes.set_axis_off()
notes = "; ".join(w for w in result.warnings if not w.startswith("probabilities "))
figure.suptitle(f"{radz.DISCLAIMER} {notes}".strip(), fontsize="medium")

if arguments.out:
    figure.savefig(arguments.out, dpi=100)
else:
    plt.show()
