"""Models with other weights. SPDX-License-Identifier: Apache-2.0"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import FILM, MODEL

import radz


def test_a_quantised_model_scores_nearly_the_same(session: radz.Session, tmp_path: Path) -> None:
    seen: list[radz.QuantizeProgress] = []
    radz.quantize(MODEL, tmp_path / "int8", "int8", on_progress=seen.append)
    assert seen[-1].n_done_bytes == seen[-1].n_bytes
    with radz.Model(tmp_path / "int8") as model, radz.Session(model) as other:
        assert model.info.dtype == "int8"
        ours, theirs = session.classify(FILM), other.classify(FILM)
    assert {s.label: s.similarity for s in theirs} == pytest.approx({s.label: s.similarity for s in ours}, abs=0.02)


def test_stopping_and_what_goes_wrong(tmp_path: Path) -> None:
    with pytest.raises(radz.CancelledError):
        radz.quantize(MODEL, tmp_path / "a", on_progress=lambda _: True)
    with pytest.raises(ZeroDivisionError):
        radz.quantize(MODEL, tmp_path / "b", on_progress=lambda _: 1 // 0)
    with pytest.raises(radz.RadzError, match="int9"):
        radz.quantize(MODEL, tmp_path / "c", "int9")
    with pytest.raises(radz.InputOutputError):
        radz.quantize("/nowhere", tmp_path / "d")
