"""Scores, vectors, banks, heat maps, texts: the same bits as the programs. SPDX-License-Identifier: Apache-2.0"""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FILM, FILMS, MODEL, PROGRAMS

import radz


def program(name: str, *arguments: object) -> str:
    path = PROGRAMS / name
    if not path.exists():
        pytest.skip(f"no {path}: make programs")
    return subprocess.run([path, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


# ---- Scores ----


def test_the_same_bits_as_radz_classify(session: radz.Session) -> None:
    lines = program("radz-classify", "--model", MODEL, "--json", "--quiet", *FILMS).splitlines()
    results = [session.classify(film) for film in FILMS]
    assert [json.loads(line)["input"]["path"] for line in lines] == [str(f) for f in FILMS]
    for line, result in zip(lines, results, strict=True):
        theirs, ours = json.loads(line), json.loads(result.json)
        assert theirs["scores"] == [
            {"label": s.label, "probability": s.probability, "similarity": s.similarity, "threshold": None}
            for s in result
        ]
        theirs["provenance"].pop("device")
        ours["provenance"].pop("device")
        assert theirs == ours


def test_a_result(session: radz.Session) -> None:
    result = session.classify(FILM)
    assert len(result) == 15
    assert result.best == result.scores[0] == result[result.best.label]
    assert [s.probability for s in result] == sorted((s.probability for s in result), reverse=True)
    assert result.input == {
        "path": str(FILM),
        "sha256": radz.Image(FILM).sha256,
        "width_px": 512,
        "height_px": 512,
    }
    assert result.provenance["disclaimer"] == radz.DISCLAIMER
    assert result.warnings == ("probabilities are not calibrated",)
    with pytest.raises(KeyError):
        result["no such class"]


def test_a_calibrated_bank(session: radz.Session, bank: radz.Bank, tmp_path: Path) -> None:
    """A calibration written by hand: what its formula says is what comes out."""
    assert bank.calibration is None
    assert bank.thresholds == [None] * len(bank)
    classes = [
        {"label": c, "kind": "platt", "a": 0.1, "b": -1, "threshold": 0.25, "n_positive": 9, "n_negative": 9}
        for c in bank.labels
    ]
    fitted: dict[str, Any] = {
        "schema": "radz.calibration/1",
        "model": bank.model_hash,
        "bank": bank.hash,
        "score": "img_anchor",
    }
    fitted |= {"feature": "global", "classes": "reference", "tau": 0.05, "templates": [], "negatives": []}
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(fitted | {"films": "nine films", "labels": classes}))
    calibrated = bank.calibrate(path)
    assert json.loads(calibrated.calibration or "")["films"] == "nine films"
    assert calibrated.thresholds == [0.25] * len(bank)
    plain, result = session.classify(FILM, bank), session.classify(FILM, calibrated)
    assert plain[bank.labels[0]].label == bank.reference
    for s in result:
        assert s.threshold == 0.25
        if s.label != bank.reference:
            margin = (s.similarity - plain[bank.labels[0]].similarity) / 0.05
            assert s.probability == pytest.approx(1 / (1 + math.exp(1 - 0.1 * margin)), abs=1e-9)
    assert "hold for films like these: nine films" in result.warnings[0]
    path.write_text(json.dumps(fitted | {"bank": bank.model_hash, "labels": classes}))
    with pytest.raises(radz.MismatchError, match="bank: fitted for"):
        bank.calibrate(path)


def test_batches_have_the_same_bits(session: radz.Session, bank: radz.Bank) -> None:
    films: list[Any] = [*FILMS, FILM.read_bytes(), radz.Image(FILM).pixels]
    batch = session.classify_batch(films, bank)
    assert [b.scores for b in batch] == [session.classify(f, bank).scores for f in films]
    assert session.classify_batch([]) == []
    with pytest.raises(TypeError, match="not one film"):
        session.classify_batch(str(FILM))
    with pytest.raises(radz.FormatError):
        session.classify_batch([FILM, b"no film"])


def test_folders_of_films(session: radz.Session, bank: radz.Bank, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no film")
    paths = [FILMS[0], tmp_path / "broken.png", FILMS[1], tmp_path / "absent.png"]
    seen: list[tuple[int, bool]] = []
    done = session.classify_files(paths, bank, on_film=lambda i, r: seen.append((i, isinstance(r, radz.Result))))
    assert seen == [(0, True), (1, False), (2, True), (3, False)]
    assert [type(d) for d in done] == [radz.Result, radz.FormatError, radz.Result, radz.InputOutputError]
    assert "broken.png" in str(done[1])
    assert done[0] == session.classify(FILMS[0], bank)
    assert session.classify_files([]) == []
    assert len(session.classify_files(FILMS)) == len(FILMS)
    with pytest.raises(radz.CancelledError):
        session.classify_files(FILMS * 5, on_film=lambda i, _: i == 1)
    with pytest.raises(ZeroDivisionError):
        session.classify_files(FILMS * 5, on_film=lambda i, _: 1 // i)
    with pytest.raises(TypeError, match="paths\\[0\\]"):
        session.classify_files([b"bytes"])  # type: ignore[list-item]


def test_warnings_arrive(session: radz.Session) -> None:
    assert any("blank" in w for w in session.classify(np.zeros((100, 100), np.uint8)).warnings)


# ---- Vectors ----


def test_the_same_bits_as_radz_embed(session: radz.Session, tmp_path: Path) -> None:
    program("radz-embed", "--model", MODEL, "--out", tmp_path / "v.npy", *FILMS)
    theirs = np.load(tmp_path / "v.npy")
    ours = session.embed_images(FILMS)
    assert ours.dtype == np.float32
    assert ours.shape == (len(FILMS), session.model.embedding_dim)
    assert (ours == theirs).all()


def test_texts_and_features(session: radz.Session) -> None:
    texts = ["This is a chest X-ray showing edema.", "Ein Text mit Umlauten: Größe."]
    vectors = session.embed_texts(texts)
    assert vectors.shape == (2, session.model.embedding_dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (session.embed_texts(texts[1:]) == vectors[1:]).all()
    local = session.embed_texts(texts, feature="local")
    assert not (local == vectors).all()
    raw = session.embed_images([FILM], raw=True, layer=-1)
    assert raw.shape == (1, session.model.info.text_hidden)
    assert session.embed_texts([]).shape == (0, session.model.embedding_dim)
    with pytest.raises(radz.ArgumentError, match="expected one of global, local, last, all"):
        session.embed_texts(texts, feature="best")  # type: ignore[arg-type]
    for _ in range(20):  # nothing is written where there is no room
        with pytest.raises(radz.ArgumentError, match="hidden states"):
            session.embed_texts(texts, layer=99)
    with pytest.raises(TypeError, match="not one str"):
        session.embed_texts("a text")
    with pytest.raises(TypeError, match="not int"):
        session.embed_texts([1])  # type: ignore[list-item]


# ---- Banks ----


def test_the_own_bank_scores_as_results_do(session: radz.Session, bank: radz.Bank) -> None:
    vectors = session.embed_images(FILMS)
    cosines = bank.score(vectors)
    assert cosines.shape == (len(FILMS), len(bank))
    assert cosines.dtype == np.float64
    for row, film in zip(cosines, FILMS, strict=True):
        result = session.classify(film)
        assert [result[label].similarity for label in bank] == row.tolist()
    assert np.allclose(cosines, vectors.astype(float) @ bank.anchors.astype(float).T, atol=1e-6)
    assert bank.score(vectors[0]).tolist() == cosines[:1].tolist()


def test_vectors_of_another_kind_are_refused(session: radz.Session, bank: radz.Bank) -> None:
    vectors = session.embed_images(FILMS)
    for wrong, kind, words in (
        (vectors.astype(float), TypeError, "expected float32"),
        (vectors[:, ::2], radz.ArgumentError, "expected \\(n, 128\\)"),
        (np.asfortranarray(vectors), radz.ArgumentError, "C-contiguous"),
        ([1.0], TypeError, "not list"),
        (np.full((1, 128), np.nan, np.float32), radz.ArgumentError, "finite"),
    ):
        with pytest.raises(kind, match=words):
            bank.score(wrong)  # type: ignore[arg-type]


def test_banks_are_made_saved_and_changed(session: radz.Session, tmp_path: Path) -> None:
    classes = {"No Finding": "Clear lungs.", "Edema": "Fluid in the lungs.", "Mass": None}
    bank = radz.Bank.build(session, classes)
    assert bank.labels == list(classes)
    assert bank.descriptions[1] == "Fluid in the lungs."
    assert bank.reference == "No Finding"
    assert bank.model_hash == session.model.hash
    assert bank.writer is None
    assert bank.written == [False] * 3
    assert "Mass" in bank
    assert "Hernia" not in bank
    assert bank.hash == radz.Bank.build(session, list(classes.items())).hash
    bank.save(tmp_path / "bank.safetensors")
    assert radz.Bank(session.model, tmp_path / "bank.safetensors").hash == bank.hash
    file = tmp_path / "classes.txt"
    file.write_text("".join(f"{label}: {text or label}\n" for label, text in classes.items()))
    assert radz.Bank.build(session, file).labels == radz.Bank.build(session, str(file)).labels == list(classes)
    more = bank.with_classes(session, ["Hernia"])
    assert more.labels == [*classes, "Hernia"]
    assert more.without(["HERNIA"]).hash == bank.hash
    edited = bank.edit(session, "Mass", "A round opacity.")
    assert edited.descriptions[2] == "A round opacity."
    assert edited.hash != bank.hash
    alone = radz.Bank.build(session, ["Edema", "Mass"])
    assert alone.reference is None
    assert math.isclose(sum(s.probability for s in session.classify(FILM, alone)), 1)
    with pytest.raises(radz.ArgumentError, match="Edema"):
        bank.with_classes(session, ["Edema"])
    with pytest.raises(radz.InputOutputError, match="nowhere"):
        radz.Bank(session.model, "/nowhere/bank.safetensors")


def test_a_bank_of_another_model_is_refused(session: radz.Session, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    radz.Bank(session.model).save(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(session.model.hash.encode(), b"0" * 64))
    with pytest.raises((radz.MismatchError, radz.FormatError)):
        session.classify(FILM, radz.Bank(session.model, path))


# ---- Heat maps ----


@pytest.mark.parametrize("method", ["similarity", "attention", "gradient"])
def test_heat_maps(session: radz.Session, method: Any, tmp_path: Path) -> None:
    heatmap = session.heatmap(FILM, "nodule", method=method)
    side = session.model.heatmap_side
    assert heatmap.map.shape == (512, 512)
    assert heatmap.patches.shape == (side, side)
    assert heatmap.map.dtype == heatmap.patches.dtype == np.float32
    assert np.isfinite(heatmap.map).all()
    heatmap.save(tmp_path / "map.png", title="Größe", opacity=0.3)
    assert radz.Image(tmp_path / "map.png").height >= 512
    y, x = np.unravel_index(heatmap.map.argmax(), heatmap.map.shape)
    assert heatmap.pointing([(float(x), float(y), 1, 1)]) == (True, 1 / 512**2)
    hit, share = heatmap.pointing([((float(x) + 256) % 512, float(y), 1, 1)])
    assert (hit, share) == (False, 1 / 512**2)


def test_the_same_picture_as_the_program(session: radz.Session, tmp_path: Path) -> None:
    program("radz-classify", "--model", MODEL, "--quiet", "--heatmap", tmp_path / "out", FILM)
    (theirs,) = (tmp_path / "out").glob("*.png")
    heatmap = session.heatmap(FILM, session.classify(FILM).best.label)
    heatmap.save(tmp_path / "ours.png")
    assert (radz.Image(tmp_path / "ours.png").pixels == radz.Image(theirs).pixels).all()


def test_heat_maps_are_measured(session: radz.Session) -> None:
    heatmap = session.heatmap(FILM, "Nodule")
    score = session.measure_heatmap(heatmap, n_steps=4)
    assert len(score.deletion_curve) == len(score.insertion_curve) == 5
    assert score.film == score.deletion_curve[0] == session.classify(FILM)["Nodule"].probability
    assert score.painted == score.deletion_curve[-1]
    with pytest.raises(radz.ArgumentError, match="no such class"):
        session.heatmap(FILM, "no such class")
    with pytest.raises(radz.ArgumentError, match="expected one of similarity"):
        session.heatmap(FILM, "Nodule", method="magic")  # type: ignore[arg-type]


# ---- Texts ----


def test_writing(session: radz.Session) -> None:
    tokens: list[radz.Token] = []
    text = session.generate("What is seen?", FILM, max_tokens=6, on_token=tokens.append)
    assert text == session.generate("What is seen?", FILM, max_tokens=6)
    assert "".join(t.text for t in tokens) == text
    assert [t.n_tokens for t in tokens] == list(range(1, len(tokens) + 1))
    assert tokens[-1].finished in ("length", "end")
    drawn = {session.generate("Edema", temperature=3.0, seed=i, max_tokens=6) for i in range(3)}
    assert len(drawn) > 1
    stopped = session.generate("Edema", max_tokens=6, stop=[text[0]]) if text else ""
    assert not text or text[0] not in stopped
    with pytest.raises(radz.ArgumentError, match="vicuna_v1"):
        session.generate("Edema", chat_template="none such")
    with pytest.raises(radz.ArgumentError, match="max_tokens is 4294967297"):
        session.generate("Edema", max_tokens=2**32 + 1)


def test_other_methods(session: radz.Session) -> None:
    scores, text = session.method_scores(FILM, ["Edema", "Mass"], "likelihood")
    assert list(scores) == ["Edema", "Mass"]
    assert all(v < 0 for v in scores.values())
    assert text == ""


def test_a_model_that_cannot_write_describes_nothing(session: radz.Session) -> None:
    with pytest.raises(radz.MismatchError):
        radz.Bank.describe(session, ["Edema"])


# ---- Other scores, evaluation ----


def test_scorers(session: radz.Session, bank: radz.Bank) -> None:
    vectors = session.embed_images(FILMS)
    scorer = radz.Scorer(session)
    similarity, probability = scorer.score(vectors)
    result = session.classify(FILMS[0])
    assert scorer.labels == bank.labels
    assert similarity[0].tolist() == [result[label].similarity for label in bank]
    assert probability[0].tolist() == pytest.approx([result[label].probability for label in bank], rel=1e-12)
    assert all(math.isnan(t) for t in scorer.thresholds)
    texts = radz.Scorer(session, bank, radz.ScoreOptions(score="img_text", templates=["a film of {c}"]))
    assert texts.score(vectors)[0].shape == similarity.shape
    both = radz.Scorer(session, bank, radz.ScoreOptions(feature="both"))
    local = session.embed_images(FILMS, feature="local")
    assert both.score(vectors, local)[0].shape == similarity.shape
    with pytest.raises(radz.ArgumentError, match="as many"):
        both.score(vectors, local[1:])
    hidden = radz.Scorer(session, bank, radz.ScoreOptions(score="hidden"))
    assert hidden.score(session.embed_images(FILMS, feature="local", raw=True))[0].shape == similarity.shape


def test_evaluation(session: radz.Session, tmp_path: Path) -> None:
    rows = "".join(f"{film},{label}\n" for film, label in zip(FILMS, ["Mass", "Edema", "Mass|Edema"], strict=False))
    (tmp_path / "films.csv").write_text(f"path,labels\n{rows}")
    seen: list[radz.EvalProgress] = []
    options = radz.EvalOptions(manifest=tmp_path / "films.csv", out_dir=tmp_path / "out", n_rounds=0, n_tsne=0)
    options.threshold, options.fixed_threshold = "fixed", 0.5
    report = radz.evaluate(session, options, on_progress=seen.append)
    assert report is not None
    assert (tmp_path / "out" / "report.html").exists()
    assert seen[-1].n_done == seen[-1].n_films == 3
    assert {p.stage for p in seen} == {"films", "figures", "pictures"}


def test_evaluation_of_two_models(session: radz.Session, tmp_path: Path) -> None:
    rows = "".join(f"{film},{label}\n" for film, label in zip(FILMS, ["Mass", "Edema", "Mass|Edema"], strict=False))
    (tmp_path / "films.csv").write_text(f"path,labels\n{rows}")
    options = radz.EvalOptions(manifest=tmp_path / "films.csv", out_dir=tmp_path / "out", n_rounds=9, n_examples=0)
    with radz.Session(session.model) as second:
        report = radz.evaluate(session, options, others=[radz.OtherModel(second, name="again")])
        assert report is not None
        assert [m["model"] for m in report["methods"]] == [session.model.name, "again"]
        less = report["methods"][1]["tables"][-1]["less_first"]["macro"]["auc"]
        assert less["value"] in (0, None)
        with pytest.raises(radz.StateError, match="in use"):
            radz.evaluate(session, options, others=[radz.OtherModel(session)])
