"""Finds libradz, loads it, and gives every function of radz.h its types and its errors.

Which library: the environment's RADZ_LIBRARY where it is set, and nothing else then; else the one inside this package;
else the system's.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import Structure, c_int
from pathlib import Path
from typing import Any

from . import _abi
from ._version import __version__
from .errors import RadzError, UnsupportedError, error_of

#: The oldest library this binding works with; one of another first number has another ABI.
MINIMUM = (0, 1, 0)
SONAME = f"libradz.so.{MINIMUM[0]}"
BUNDLED = Path(__file__).parent / "_lib" / SONAME


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-")[0].split("."))


def _open(path: str, why: str) -> ctypes.CDLL:
    """A library that is libradz, or ImportError."""
    try:
        library = ctypes.CDLL(path)
        library.radz_version.restype = ctypes.c_char_p
        version = library.radz_version().decode()
    except (OSError, AttributeError) as error:
        raise ImportError(f"radz cannot use {why}: {error}") from error
    if _version(version) < MINIMUM or _version(version)[0] != MINIMUM[0]:
        least = ".".join(map(str, MINIMUM))
        raise ImportError(f"radz {__version__} needs libradz {least} or a later {MINIMUM[0]}.x; {why} is {version}")
    return library


def _find() -> tuple[ctypes.CDLL, str]:
    chosen = os.environ.get("RADZ_LIBRARY")
    if chosen is not None:
        return _open(chosen or "RADZ_LIBRARY", f"the environment's RADZ_LIBRARY, '{chosen}'"), chosen
    if BUNDLED.exists():
        return _open(str(BUNDLED), f"its own library, '{BUNDLED}'"), str(BUNDLED)
    try:
        return _open(SONAME, f"the system's {SONAME}"), SONAME
    except ImportError as error:
        raise ImportError(
            f"{error}. No library came with this package: install libradz (make install, ldconfig), or set "
            f"RADZ_LIBRARY to the path of a {SONAME}"
        ) from error


def read_error(error: _abi.radz_error) -> RadzError:
    """The exception for a radz_error that the library has filled."""
    return error_of(error.code, error.message.decode("utf-8", "replace"))


def _check_status(status: int, _function: Any, arguments: tuple[Any, ...]) -> None:
    """errcheck of every function that answers with a radz_status: the last argument is a radz_error."""
    if status != 0:
        error = arguments[-1]
        raise read_error(error) if isinstance(error, _abi.radz_error) else error_of(status, "no message")


def _missing(name: str) -> Callable[..., Any]:
    def stub(*_arguments: object) -> Any:
        raise UnsupportedError(f"{name}: libradz {version} at {path} does not have it: a newer one is needed")

    return stub


class Library:
    """The functions of radz.h as attributes."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (result, *parameters) in _abi.PROTOTYPES.items():
            setattr(self, name, self._declare(library, name, result, parameters))

    def _declare(self, library: ctypes.CDLL, name: str, result: Any, parameters: list[Any]) -> Any:
        try:
            function = getattr(library, name)
        except AttributeError:
            return _missing(name)
        function.restype = result
        function.argtypes = parameters
        if result is _abi.radz_status:
            function.restype = c_int
            function.errcheck = _check_status
        return function

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"radz.h has no {name}")


_library, path = _find()
lib = Library(_library)
version: str = lib.radz_version().decode()


def new_options(kind: type[Structure]) -> Any:
    """A struct of radz.h that starts with struct_size, filled with the library's defaults."""
    made = kind()
    getattr(lib, f"{kind.__name__}_init_sized")(made, ctypes.sizeof(kind))
    return made
