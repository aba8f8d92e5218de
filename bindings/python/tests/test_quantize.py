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


def test_four_bits_are_rounded_for_films_and_texts(session: radz.Session, tmp_path: Path) -> None:
    text = "An enlarged heart."
    cosines = {}
    for name, films, texts in (("plain", None, None), ("rounded", [FILM], [text])):
        radz.quantize(MODEL, tmp_path / name, "int4", keep="embeddings,heads", films=films, texts=texts)
        with radz.Model(tmp_path / name) as model, radz.Session(model) as other:
            pairs = zip(session.embed_texts([text])[0], other.embed_texts([text])[0], strict=True)
            cosines[name] = sum(a * b for a, b in pairs)
    assert cosines["plain"] < cosines["rounded"] <= 1.0001
    with pytest.raises(radz.InputOutputError, match="nowhere"):
        radz.quantize(MODEL, tmp_path / "none", "int4", films=["/nowhere.png"])
    with pytest.raises(radz.RadzError, match="int4 alone"):
        radz.quantize(MODEL, tmp_path / "none", "int8", films=[FILM])


def test_stopping_and_what_goes_wrong(tmp_path: Path) -> None:
    with pytest.raises(radz.CancelledError):
        radz.quantize(MODEL, tmp_path / "a", on_progress=lambda _: True)
    with pytest.raises(ZeroDivisionError):
        radz.quantize(MODEL, tmp_path / "b", on_progress=lambda _: 1 // 0)
    with pytest.raises(radz.RadzError, match="int9"):
        radz.quantize(MODEL, tmp_path / "c", "int9")
    with pytest.raises(radz.InputOutputError):
        radz.quantize("/nowhere", tmp_path / "d")
