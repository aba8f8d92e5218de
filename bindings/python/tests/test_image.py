"""Films from everything that can be one. SPDX-License-Identifier: Apache-2.0"""

from __future__ import annotations

import io
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FILM, ROOT

import radz

IMAGES = ROOT / "tests" / "data" / "images"
RAMP = np.arange(90 * 120, dtype=np.uint32).reshape(90, 120)
GRAY = (RAMP % 251).astype(np.uint8)
DEEP = (RAMP * 6 % 65536).astype(np.uint16)
RGB = np.stack([GRAY, GRAY[::-1], 255 - GRAY], axis=2)


def test_path_bytes_and_buffers_are_one_film() -> None:
    data = FILM.read_bytes()
    sources: list[Any] = [FILM, str(FILM), data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)]
    with open(FILM, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        images = [radz.Image(s) for s in [*sources, mapped]]
    assert len({i.sha256 for i in images}) == 1
    assert {(i.width, i.height) for i in images} == {(512, 512)}
    assert all((i.pixels == images[0].pixels).all() for i in images)


@pytest.mark.parametrize("array", [GRAY, DEEP, RGB, GRAY[..., None]], ids=["gray", "deep", "rgb", "one channel"])
def test_pixels_come_back(array: np.ndarray[Any, Any]) -> None:
    pixels = radz.Image(array).pixels
    assert pixels.dtype == array.dtype
    assert (pixels == array.reshape(pixels.shape)).all()


def test_slices_are_read_in_place() -> None:
    for array in (GRAY, DEEP, RGB):
        part = array[10:70:2, 5:80]
        assert not part.flags.c_contiguous
        image = radz.Image(part)
        assert (image.width, image.height) == (75, 30)
        assert (image.pixels == part).all()
        assert image.sha256 == radz.Image(np.ascontiguousarray(part)).sha256


def test_read_only_arrays_and_memoryviews() -> None:
    frozen = GRAY.copy()
    frozen.flags.writeable = False
    assert (radz.Image(frozen).pixels == GRAY).all()
    assert (radz.Image(memoryview(GRAY.tobytes()).cast("B", GRAY.shape)).pixels == GRAY).all()
    assert (radz.Image(DEEP.data).pixels == DEEP).all()


def test_later_writes_do_not_reach_the_image() -> None:
    array = GRAY.copy()
    image = radz.Image(array)
    array[:] = 0
    assert (image.pixels == GRAY).all()
    array.resize((1, 1), refcheck=False)  # and the buffer has been given back
    growing = bytearray(FILM.read_bytes())
    radz.Image(growing)
    growing.append(0)


@pytest.mark.parametrize(
    ("array", "kind", "words"),
    [
        (GRAY.astype(np.float32), TypeError, "expected uint8, or uint16 .*astype"),
        (GRAY.astype(np.int16), TypeError, "type 'h'"),
        (GRAY > 5, TypeError, "expected uint8"),
        (DEEP.astype(">u2"), TypeError, "byte order"),
        (DEEP[..., None].repeat(3, 2), TypeError, "RGB must be uint8"),
        (GRAY[::-1], radz.ArgumentError, "ascontiguousarray"),
        (GRAY[:, ::-1], radz.ArgumentError, "ascontiguousarray"),
        (GRAY[:, ::2], radz.ArgumentError, "ascontiguousarray"),
        (GRAY.T, radz.ArgumentError, "ascontiguousarray"),
        (np.broadcast_to(GRAY[:1], GRAY.shape), radz.ArgumentError, "ascontiguousarray"),
        (RGB[..., ::-1], radz.ArgumentError, "ascontiguousarray"),
        (np.dstack([RGB, GRAY]), radz.ArgumentError, "alpha"),
        (RGB.transpose(2, 0, 1), radz.ArgumentError, "channels come last"),
        (np.zeros((0, 5), np.uint8), radz.ArgumentError, "nothing to see"),
        (np.zeros((2, 2, 2, 2), np.uint8), radz.ArgumentError, "expected \\(height, width\\)"),
        (np.zeros(5, np.uint16), radz.ArgumentError, "bytes of a file"),
        (np.float32(1), radz.ArgumentError, "shape"),
        (b"", radz.ArgumentError, "no bytes"),
        (b"not a film", radz.FormatError, "memory"),
        (5, TypeError, "not int"),
        (None, TypeError, "not NoneType"),
        (Path("/nowhere/film.png"), radz.InputOutputError, "/nowhere/film.png"),
        ("a\0b", radz.ArgumentError, "NUL"),
    ],
)
def test_what_is_no_film_is_told_why(array: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        radz.Image(array)


def test_single_rows_and_columns_may_have_any_stride() -> None:
    assert (radz.Image(GRAY[::-1][:1]).pixels == GRAY[-1:]).all()
    assert (radz.Image(np.ascontiguousarray(GRAY[:, :1])).pixels == GRAY[:, :1]).all()


def test_repr_and_length_of_life() -> None:
    image = radz.Image(GRAY)
    assert repr(image) == "<radz.Image 120 x 90>"
    image.close()
    image.close()
    assert image.closed
    assert repr(image) == "<radz.Image, closed>"
    with pytest.raises(radz.StateError, match="Image is closed"):
        _ = image.width


# ---- PIL ----


@pytest.mark.parametrize(
    "name",
    ["gray8.png", "gray16.png", "gray1.png", "rgba8.png", "graya8.png", "palette8.png", "rgb8.png", "gray.jpg"],
)
def test_a_pil_image_is_the_file_it_came_from(name: str) -> None:
    pil = pytest.importorskip("PIL.Image")
    path = IMAGES / name
    if not path.exists():
        pytest.skip(f"no {name}")
    ours, theirs = radz.Image(path).pixels, radz.Image(pil.open(path)).pixels
    assert ours.shape == theirs.shape
    if name.endswith(".jpg"):  # another build of libjpeg
        assert abs(ours.astype(int) - theirs).max() <= 1
    else:
        assert (ours == theirs).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_followed(turn: int) -> None:
    pil = pytest.importorskip("PIL.Image")
    path = IMAGES / f"orientation_{turn}.jpg"
    ours, theirs = radz.Image(path), radz.Image(pil.open(path))
    assert (ours.width, ours.height) == (theirs.width, theirs.height)
    assert abs(ours.pixels.astype(int) - theirs.pixels).max() <= 4


def test_pil_images_of_more_than_8_bits() -> None:
    pil = pytest.importorskip("PIL.Image")
    assert (radz.Image(pil.fromarray(DEEP)).pixels == DEEP).all()
    assert (radz.Image(pil.fromarray(DEEP.astype(np.int32))).pixels == DEEP).all()
    with pytest.raises(radz.ArgumentError, match="0 to 65535"):
        radz.Image(pil.fromarray(DEEP.astype(np.int32) * 2))
    with pytest.raises(TypeError, match="mode F"):
        radz.Image(pil.fromarray(GRAY.astype(np.float32)))


# ---- DICOM ----


def dataset(pixels: np.ndarray[Any, Any], **more: Any) -> Any:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    d = pydicom.Dataset()
    d.file_meta = pydicom.dataset.FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.Modality, d.PhotometricInterpretation = "CR", "MONOCHROME2"
    d.Rows, d.Columns = pixels.shape
    d.SamplesPerPixel, d.PixelRepresentation = 1, 0
    d.BitsAllocated = 8 * pixels.dtype.itemsize
    d.BitsStored = d.BitsAllocated
    d.HighBit = d.BitsStored - 1
    d.PixelData = pixels.tobytes()
    for name, value in more.items():
        setattr(d, name, value)
    return d


def test_a_dataset_is_the_file_it_would_be() -> None:
    d = dataset(GRAY)
    out = io.BytesIO()
    d.save_as(out, enforce_file_format=True)
    try:
        ours = radz.Image(d)
    except radz.UnsupportedError:
        pytest.skip("this libradz reads no DICOM")
    assert ours.sha256 == radz.Image(out.getvalue()).sha256
    assert (ours.pixels == GRAY).all()
    d.PhotometricInterpretation = "MONOCHROME1"
    assert (radz.Image(d).pixels == 255 - GRAY).all()
