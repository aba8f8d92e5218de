"""Python values to C and back: texts, options, arrays, and the memory behind buffers.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
import math
import operator
import os
import sys
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from ._lowlevel import lib
from .errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray: TypeAlias = npt.NDArray[np.float32]
    DoubleArray: TypeAlias = npt.NDArray[np.float64]
else:
    FloatArray = DoubleArray = Any

Path: TypeAlias = "str | os.PathLike[str]"

# ---- Texts ---------------------------------------------------------------------------------------


def to_bytes(what: str, text: str | os.PathLike[str]) -> bytes:
    """UTF-8, NUL-terminated by ctypes; paths as the operating system has them."""
    if isinstance(text, os.PathLike):
        data = os.fsencode(text)
    elif isinstance(text, str):
        data = text.encode("utf-8", "surrogateescape")  # what os.fsdecode makes of odd file names
    else:
        raise TypeError(f"{what} must be a str or a path, not {type(text).__name__}")
    if b"\0" in data:
        raise ArgumentError(f"{what} holds a NUL character")
    return data


def to_text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def text_or_none(data: bytes | None) -> str | None:
    return None if data is None else to_text(data)


def number_or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def string_array(what: str, texts: Iterable[str | os.PathLike[str]]) -> Any:
    """const char *const *."""
    if isinstance(texts, str):
        raise TypeError(f"{what} must be a sequence of str, not one str")
    data = [to_bytes(f"{what}[{i}]", text) for i, text in enumerate(texts)]
    return (ctypes.c_char_p * len(data))(*data)


def take_text(pointer: Any) -> str:
    """A text that belongs to us: a copy of it, and the text is freed."""
    try:
        return to_text(ctypes.cast(pointer, ctypes.c_char_p).value)
    finally:
        lib.radz_text_free(pointer)


# ---- Options -------------------------------------------------------------------------------------


def choice(what: str, enum: type[IntEnum], prefix: str, value: str) -> IntEnum:
    """The enumerator of radz.h that ends with value: "gradient" for RADZ_HEATMAP_GRADIENT."""
    names = {name.removeprefix(prefix).lower(): number for name, number in enum.__members__.items()}
    if not isinstance(value, str) or value not in names:
        raise ArgumentError(f"{what} is {value!r}: expected one of {', '.join(names)}")
    return names[value]


_INTEGERS: tuple[Any, ...] = (ctypes.c_int, ctypes.c_int32, ctypes.c_int64, ctypes.c_size_t, ctypes.c_uint64)


def _to_field(what: str, kind: Any, value: Any) -> Any:
    if kind is ctypes.c_char_p:
        return to_bytes(what, value)
    if kind is ctypes.c_double:
        return float(value)
    if kind in _INTEGERS:
        number = operator.index(value)
        if kind(number).value != number:  # ctypes cuts off what does not fit
            raise ArgumentError(f"{what} is {number}: not a number that libradz takes here")
        return number
    if kind is ctypes.POINTER(ctypes.c_char_p):
        return string_array(what, value)
    return value


def fill(options: Any, **values: object) -> Any:
    """Sets the fields of an options struct; None leaves the library's default. Returns the struct."""
    kinds: Mapping[str, Any] = dict(options._fields_)
    for name, value in values.items():
        if value is None:
            continue
        field = name.rstrip("_")  # lambda_
        made = _to_field(name, kinds[field], value)
        setattr(options, field, made)
        if kinds[field] is ctypes.POINTER(ctypes.c_char_p):
            setattr(options, f"n_{field}", len(made))
    return options


def from_struct(struct: Any, *leave_out: str) -> dict[str, Any]:
    """The fields of a struct that the library has filled, without struct_size; texts as str."""
    values = {}
    for name, kind in struct._fields_:
        if name != "struct_size" and name not in leave_out:
            value = getattr(struct, name)
            values[name] = text_or_none(value) if kind is ctypes.c_char_p else value
    return values


# ---- Arrays out ----------------------------------------------------------------------------------


def numpy_or_none() -> Any:
    """The numpy module where it is installed; it is loaded when first needed."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


class NewArray:
    """Memory for the library to fill: `.pointer` while it does, `.array` then.

    `.array` is a NumPy array, or without NumPy a memoryview of the same shape.
    """

    def __init__(self, kind: Any, *shape: int) -> None:
        n = math.prod(shape)
        self._memory = (kind * max(n, 1))()
        self._kind, self._shape = kind, shape
        self.pointer = ctypes.cast(self._memory, ctypes.POINTER(kind))

    @property
    def array(self) -> Any:
        numpy = numpy_or_none()
        n = math.prod(self._shape)
        if numpy is not None:
            return numpy.ctypeslib.as_array(self._memory)[:n].reshape(self._shape)
        size = ctypes.sizeof(self._kind)
        flat = memoryview(self._memory).cast("B")[: n * size]
        code: Any = {ctypes.c_float: "f", ctypes.c_double: "d", ctypes.c_uint8: "B", ctypes.c_uint16: "H"}[self._kind]
        return flat.cast(code, self._shape) if n else flat.cast(code)


# ---- Buffers in ----------------------------------------------------------------------------------


class _PyBuffer(ctypes.Structure):
    """Py_buffer of CPython's stable ABI."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)),
        ("internal", ctypes.c_void_p),
    )


_GET_STRIDED_READ_ONLY = 0x0018 | 0x0004  # PyBUF_STRIDES | PyBUF_FORMAT, writable or not


class Buffer:
    """The memory of an object with the buffer protocol (bytes, memoryview, NumPy arrays), without a copy.

    A context manager: the memory stays where it is inside `with`. Read-only objects are fine, nothing is written.
    """

    def __init__(self, source: object) -> None:
        self._view = _PyBuffer()
        self._source = source

    def __enter__(self) -> Buffer:
        view = self._view
        get = ctypes.pythonapi.PyObject_GetBuffer
        get(ctypes.py_object(self._source), ctypes.byref(view), ctypes.c_int(_GET_STRIDED_READ_ONLY))
        self.address: int = view.buf or 0
        self.n_bytes: int = view.len
        self.itemsize: int = view.itemsize
        self.shape: tuple[int, ...] = tuple(view.shape[: view.ndim])
        self.strides: tuple[int, ...] = tuple(view.strides[: view.ndim])
        self.format = native_format((view.format or b"B").decode("ascii", "replace"))
        return self

    def __exit__(self, *_error: object) -> None:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(self._view))

    @property
    def contiguous(self) -> bool:
        """Row after row without gaps, in C order."""
        expected = self.itemsize
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n > 1 and stride != expected:
                return False
            expected *= n
        return True


def native_format(code: str) -> str:
    """The struct module's letter where the byte order is this machine's, else the code as it is: '<H' is 'H' here."""
    here = "<" if sys.byteorder == "little" else ">"
    return code[1:] if len(code) > 1 and code[0] in ("@", "=", here) else code


def has_buffer(value: object) -> bool:
    """True for objects with the buffer protocol."""
    return bool(ctypes.pythonapi.PyObject_CheckBuffer(ctypes.py_object(value)))


class Matrix:
    """A caller's 2-D float32 array (n, dim) as const float *; read in place. A context manager."""

    def __init__(self, what: str, source: object, dim: int) -> None:
        if not has_buffer(source):
            raise TypeError(f"{what} must be an array of float32, not {type(source).__name__}")
        self._buffer = Buffer(source)
        self._what, self._dim = what, dim

    def __enter__(self) -> Matrix:
        b = self._buffer.__enter__()
        try:
            if b.format != "f":
                raise TypeError(f"{self._what} has items of type '{b.format}': expected float32 ('f')")
            if len(b.shape) not in (1, 2) or b.shape[-1] != self._dim:
                raise ArgumentError(f"{self._what} has shape {b.shape}: expected (n, {self._dim})")
            if not b.contiguous:
                raise ArgumentError(f"{self._what} is not C-contiguous: pass numpy.ascontiguousarray(...)")
        except BaseException:
            b.__exit__()
            raise
        self.n = b.shape[0] if len(b.shape) == 2 else 1
        self.pointer = ctypes.cast(b.address, ctypes.POINTER(ctypes.c_float))
        return self

    def __exit__(self, *_error: object) -> None:
        self._buffer.__exit__()
