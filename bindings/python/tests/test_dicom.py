"""Results as DICOM objects, held against pydicom's reading of them. SPDX-License-Identifier: Apache-2.0"""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import FILM, MODEL, PROGRAMS
from test_image import GRAY, dataset

import radz

SR, SC = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7"
GSPS = "1.2.840.10008.5.1.4.1.1.11.1"
WHO = {
    "PatientName": "Planted^Name",
    "PatientID": "P1",
    "StudyInstanceUID": "2.25.1",
    "SeriesInstanceUID": "2.25.2",
    "StudyDate": "20260101",
}


@pytest.fixture
def film() -> radz.Image:
    pixels = radz.Image(FILM).pixels
    return radz.Image(dataset(pixels, **WHO))


def items_of(content: Any) -> Any:
    for item in content:
        yield item
        yield from items_of(getattr(item, "ContentSequence", []))


def name_of(item: Any) -> str | None:
    return item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else None


def test_a_report_has_the_scores(session: radz.Session, film: radz.Image) -> None:
    result = session.classify(film)
    made = radz.Dicom.report(film, result, thresholds={"Nodule": 0.9}, threshold=0.5, date_time="20260102030405")
    d = made.dataset()
    assert (d.SOPClassUID, d.SOPInstanceUID, d.SeriesInstanceUID) == (SR, made.instance_uid, made.series_uid)
    assert {name: getattr(d, name) for name in WHO if name != "SeriesInstanceUID"} == {
        k: v for k, v in WHO.items() if k != "SeriesInstanceUID"
    }
    assert (d.VerificationFlag, d.ContentDate) == ("UNVERIFIED", "20260102")
    groups = [i for i in items_of(d.ContentSequence) if name_of(i) == "Measurement Group"]
    found = {}
    for group in groups:
        inner = {name_of(i): i for i in group.ContentSequence}
        percent = float(inner["Certainty of Finding"].MeasuredValueSequence[0].NumericValue)
        present = inner["Presence"].ConceptCodeSequence[0].CodeMeaning == "Present"
        found[inner["Tracking Identifier"].TextValue] = (percent, present)
    for score in result:
        assert found[score.label][0] == pytest.approx(100 * score.probability, rel=1e-5, abs=5e-5)
        if score.label != "No Finding":
            assert found[score.label][1] == (score.probability >= (0.9 if score.label == "Nodule" else 0.5))
    again = radz.Dicom.report(film, result, thresholds={"Nodule": 0.9}, threshold=0.5, date_time="20260102030405")
    assert again.bytes == made.bytes
    assert radz.Dicom.report(film, result, key="other").instance_uid != made.instance_uid


def test_a_heat_map_and_its_file(session: radz.Session, film: radz.Image, tmp_path: Path) -> None:
    result, heatmap = session.classify(film), session.heatmap(film, "Nodule")
    made = radz.Dicom.heatmap(heatmap, result)
    made.save(tmp_path / "map.dcm")
    assert (tmp_path / "map.dcm").read_bytes() == made.bytes
    d = made.dataset()
    assert (d.SOPClassUID, d.PatientID, made.class_uid) == (SC, "P1", SC)
    assert d.pixel_array.shape[2] == 3
    assert repr(made) == f"<radz.Dicom {made.instance_uid}>"
    outline = radz.Dicom.outline(heatmap, result, level=0.7).dataset()
    assert (outline.SOPClassUID, outline.Modality) == (GSPS, "PR")
    assert outline.StudyInstanceUID == d.StudyInstanceUID
    made.close()
    with pytest.raises(radz.StateError, match="Dicom is closed"):
        _ = made.bytes


def test_the_bytes_of_the_program(session: radz.Session, film: radz.Image, tmp_path: Path) -> None:
    program = PROGRAMS / "radz-classify"
    if not program.exists():
        pytest.skip(f"no {program}: make programs")
    dataset(radz.Image(FILM).pixels, SOPInstanceUID="2.25.3", **WHO).save_as(
        tmp_path / "f.dcm", enforce_file_format=True
    )
    command = [program, "--quiet", "--model", MODEL, "--sr", tmp_path / "theirs.dcm", tmp_path / "f.dcm"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    image = radz.Image(tmp_path / "f.dcm")
    ours = radz.Dicom.report(image, session.classify(image))
    pydicom = pytest.importorskip("pydicom")
    theirs = pydicom.dcmread(tmp_path / "theirs.dcm")
    assert theirs.SOPInstanceUID == ours.instance_uid
    for name in ("ContentSequence", "ContributingEquipmentSequence"):
        assert getattr(theirs, name, None) == getattr(ours.dataset(), name, None)


def test_what_no_object_is_made_of(session: radz.Session, film: radz.Image) -> None:
    result, plain, nobody = session.classify(film), radz.Image(FILM), radz.Image(dataset(GRAY))
    assert film.is_dicom
    assert not plain.is_dicom
    with pytest.raises(radz.ArgumentError, match="DICOM"):
        radz.Dicom.report(plain, session.classify(plain))
    with pytest.raises(radz.MismatchError):
        radz.Dicom.report(film, session.classify(plain))
    with pytest.raises(radz.FormatError):
        radz.Dicom.report(nobody, session.classify(nobody))
    with pytest.raises(TypeError, match="wrong"):
        radz.Dicom.report(film, result, wrong=1)
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result
    with pytest.raises(radz.StateError, match="classify the film here"):
        radz.Dicom.report(film, copy)


def test_strict_sessions(model: radz.Model) -> None:
    lateral = radz.Image(dataset(radz.Image(FILM).pixels, ViewPosition="LL", **WHO))
    assert any("lateral" in w.lower() for w in lateral.warnings)
    with radz.Session(model) as session:
        assert set(lateral.warnings) <= set(session.classify(lateral).warnings)
    with radz.Session(model, strict=True) as session, pytest.raises(radz.MismatchError, match=r"(?i)lateral"):
        session.classify(lateral)
