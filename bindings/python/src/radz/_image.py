"""Films: from files, bytes, arrays, PIL images and pydicom datasets.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import copy
import ctypes
import io
import os
import sys
from typing import Any, TypeAlias

from . import _abi
from ._abi import radz_pixel_format
from ._handles import Handle, pointer, using
from ._lowlevel import lib
from ._model import Runtime
from ._values import Buffer, NewArray, has_buffer, to_bytes, to_text
from .errors import ArgumentError, UnsupportedError

#: What functions take as a film: an `Image`, or anything that an `Image` is made from.
Film: TypeAlias = Any


class Image(Handle):
    """A decoded film, gray or RGB, 8 or 16 bits per sample. Immutable: any number of threads may share it.

    `source` is one of

    - a path (str or os.PathLike) of a PNG, JPEG or DICOM file, told apart by content;
    - the bytes of such a file: bytes, bytearray, or any one-dimensional buffer of bytes;
    - pixels: any buffer, such as a NumPy array, of shape (height, width) with uint8 (0 black, 255 white) or uint16
      (0 black, 65535 white), or (height, width, 3) RGB with uint8. Read in place where the pixels of a row lie side by
      side; rows may be any distance apart, so that `array[100:300, 50:200]` works. Read-only arrays are fine;
    - a PIL image, turned as its EXIF orientation says; transparency is dropped, as for a PNG file;
    - a pydicom dataset: window, polarity and the rest are the library's, as for the file.
    """

    _kind = _abi.radz_image

    def __init__(self, source: Film, runtime: Runtime | None = None) -> None:
        super().__init__()
        self._runtime = runtime  # its log callback lives as long as we do
        with using(runtime):
            self._open(source)

    def _open(self, source: Film) -> None:
        if isinstance(source, (str, os.PathLike)):
            path = to_bytes("path", source)
            lib.radz_image_open(pointer(self._runtime), path, self._pointer, _abi.radz_error())
        elif isinstance(source, Image):
            raise TypeError("an Image is a film already")
        elif _is_instance(source, "PIL.Image", "Image"):
            self._from_buffer(_pil_pixels(source))
        elif _is_instance(source, "pydicom.dataset", "Dataset"):
            self._from_dataset(source)
        elif has_buffer(source):
            self._from_buffer(source)
        else:
            raise TypeError(
                f"a film must be a path, bytes, a buffer of pixels, a PIL image or a pydicom dataset, not "
                f"{type(source).__name__}"
            )

    def _from_buffer(self, source: object) -> None:
        with Buffer(source) as b:
            if len(b.shape) == 1:
                self._from_encoded(b)
            else:
                pixels, stride = _layout(b)
                lib.radz_image_from_pixels(
                    pointer(self._runtime),
                    b.address,
                    pixels,
                    b.shape[1],
                    b.shape[0],
                    stride,
                    self._pointer,
                    _abi.radz_error(),
                )

    def _from_encoded(self, b: Buffer) -> None:
        if b.itemsize != 1 or not b.contiguous:
            raise ArgumentError("a one-dimensional buffer must hold the bytes of a file, side by side")
        if b.n_bytes == 0:
            raise ArgumentError("no bytes: expected those of a PNG, JPEG or DICOM file")
        lib.radz_image_open_memory(pointer(self._runtime), b.address, b.n_bytes, self._pointer, _abi.radz_error())

    def _from_dataset(self, dataset: Any) -> None:
        try:
            self._from_buffer(_dicom_bytes(dataset))
        except UnsupportedError:
            meta = getattr(dataset, "file_meta", None)
            if meta is None or not getattr(meta.get("TransferSyntaxUID"), "is_compressed", False):
                raise
            # pydicom may have a decoder that the library was built without; all else stays the library's.
            plain = copy.deepcopy(dataset)
            plain.decompress()
            self._from_buffer(_dicom_bytes(plain))

    @property
    def width(self) -> int:
        """Pixels."""
        return self._ask(lib.radz_image_width)

    @property
    def height(self) -> int:
        """Pixels."""
        return self._ask(lib.radz_image_height)

    @property
    def sha256(self) -> str:
        """Of the file's bytes, or of the pixels given: 64 hex digits."""
        with using(self):
            return to_text(lib.radz_image_sha256(self._pointer))

    @property
    def is_dicom(self) -> bool:
        """True: from a DICOM file or dataset, so that a `Dicom` can be made for it."""
        return self._ask(lib.radz_image_is_dicom) != 0

    @property
    def warnings(self) -> list[str]:
        """What its DICOM file, or what is seen (nothing; almost black), says against it, as every result says too."""
        with using(self):
            n = lib.radz_image_warning_count(self._pointer)
            return [to_text(lib.radz_image_warning(self._pointer, i)) for i in range(n)]

    @property
    def pixels(self) -> Any:
        """A copy of the decoded samples, uint8 or uint16 (0 black): (height, width), or (height, width, 3) for RGB."""
        with using(self):
            channels, bits = lib.radz_image_channels(self._pointer), lib.radz_image_bits(self._pointer)
            shape = (self.height, self.width) + ((channels,) if channels > 1 else ())
            made = NewArray(ctypes.c_uint8 if bits == 8 else ctypes.c_uint16, *shape)
            n_bytes = self.width * self.height * channels * bits // 8
            ctypes.memmove(made.pointer, lib.radz_image_pixels(self._pointer), n_bytes)
            return made.array

    def _ask(self, function: Any) -> int:
        with using(self):
            return int(function(self._pointer))

    def __repr__(self) -> str:
        return "<radz.Image, closed>" if self.closed else f"<radz.Image {self.width} x {self.height}>"


class as_image:  # noqa: N801 (reads as a word: with as_image(film) as image)
    """A film as an open Image: the one given, or one that is closed at the end of `with`."""

    def __init__(self, film: Film, runtime: Runtime | None = None) -> None:
        self._film, self._runtime = film, runtime

    def __enter__(self) -> Image:
        self._image = self._film if isinstance(self._film, Image) else Image(self._film, self._runtime)
        return self._image

    def __exit__(self, *_error: object) -> None:
        if self._image is not self._film:
            self._image.close()


# ---- Pixels --------------------------------------------------------------------------------------


def _layout(b: Buffer) -> tuple[radz_pixel_format, int]:
    """What an array of two or three dimensions is to the library: format, and bytes from row to row."""
    shape, strides = b.shape, b.strides
    if len(shape) == 3 and shape[2] == 1:  # one channel
        shape, strides = shape[:2], strides[:2]
    gray = len(shape) == 2
    if not gray and (len(shape) != 3 or shape[2] != 3):
        raise ArgumentError(
            f"pixels have shape {b.shape}: expected (height, width) or (height, width, 3){_hint(shape)}"
        )
    if 0 in shape:
        raise ArgumentError(f"pixels have shape {b.shape}: nothing to see")
    kind = _format(b, gray)
    beside = b.itemsize * (1 if gray else 3)
    rows = strides[0] if shape[0] > 1 else beside * shape[1]
    columns_ok = shape[1] == 1 or strides[1] == beside
    if not columns_ok or not (gray or strides[2] == b.itemsize) or rows < beside * shape[1]:
        raise ArgumentError(
            f"pixels have strides {b.strides}: those of a row must lie side by side, from left to right, and rows from "
            "the top down; pass numpy.ascontiguousarray(array)"
        )
    return kind, rows


def _format(b: Buffer, gray: bool) -> radz_pixel_format:
    if b.format == "B":
        return radz_pixel_format.RADZ_PIXELS_GRAY8 if gray else radz_pixel_format.RADZ_PIXELS_RGB8
    if b.format == "H" and gray:
        return radz_pixel_format.RADZ_PIXELS_GRAY16
    expected = "expected uint8, or uint16 with 0 black and 65535 white" if gray else "RGB must be uint8"
    if b.format in (">H", "<H"):
        expected = "expected the byte order of this machine: array.astype('=u2')"
    elif b.format in ("e", "f", "d", "?"):
        expected += "; of values 0..1, pass (255 * array).round().astype('uint8')"
    raise TypeError(f"pixels have items of type '{b.format}' ({b.itemsize} bytes): {expected}")


def _hint(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return ""
    if shape[2] == 4:
        return "; drop the alpha channel: numpy.ascontiguousarray(array[..., :3])"
    if shape[0] == 3:
        return "; channels come last: numpy.ascontiguousarray(array.transpose(1, 2, 0))"
    return ""


# ---- Other packages' images ----------------------------------------------------------------------


def _is_instance(value: object, module: str, name: str) -> bool:
    """isinstance without importing: who has such an object has imported its module."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def _pil_pixels(image: Any) -> memoryview:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        return _pil_gray16(image)
    if image.mode == "F":
        raise TypeError("a PIL image of mode F has no black and white: convert it to L or I;16 first")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    shape = (image.height, image.width) + ((3,) if image.mode == "RGB" else ())
    return memoryview(image.tobytes()).cast("B", shape)


def _pil_gray16(image: Any) -> memoryview:
    """Mode I holds 32 bits, of which a film may use 16."""
    if image.mode == "I":
        low, high = image.getextrema()
        if low < 0 or high > 65535:
            raise ArgumentError(f"a PIL image of mode I has values {low} to {high}: expected 0 to 65535")
        wide = memoryview(image.tobytes()).cast("B")
        first = 0 if sys.byteorder == "little" else 2
        data = bytearray(len(wide) // 2)
        data[0::2], data[1::2] = wide[first::4], wide[first + 1 :: 4]
    else:
        data = bytearray(image.tobytes())
        big = image.mode == "I;16B" or (image.mode == "I;16N" and sys.byteorder == "big")
        if big != (sys.byteorder == "big"):
            data[0::2], data[1::2] = data[1::2], data[0::2]
    return memoryview(data).cast("H", (image.height, image.width))


def _dicom_bytes(dataset: Any) -> bytes:
    """The dataset as a part 10 file, as it is now."""
    import pydicom

    out = io.BytesIO()
    if int(pydicom.__version__.split(".")[0]) >= 3:
        pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    else:
        pydicom.dcmwrite(out, dataset, write_like_original=False)
    return out.getvalue()
