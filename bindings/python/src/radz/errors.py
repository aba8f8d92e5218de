"""One exception per error code of radz.h.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from ._abi import radz_status

__all__ = [
    "ArgumentError",
    "CancelledError",
    "DeviceError",
    "FormatError",
    "InputOutputError",
    "InternalError",
    "LimitError",
    "MismatchError",
    "OutOfMemoryError",
    "RadzError",
    "StateError",
    "UnsupportedError",
]


class RadzError(Exception):
    """What libradz, or this binding, refused to do: one line saying what, where, and what was expected."""

    #: The number in radz.h; `code.name` is "RADZ_E_FORMAT", `status` the short name "format" that JSON uses.
    code: radz_status = radz_status.RADZ_E_INTERNAL

    @property
    def status(self) -> str:
        """Short stable name of the error code: "format" for RADZ_E_FORMAT."""
        return self.code.name.replace("RADZ_E_", "").lower()


class ArgumentError(RadzError, ValueError):
    """Something was passed that the function does not take."""

    code = radz_status.RADZ_E_ARGUMENT


class OutOfMemoryError(RadzError, MemoryError):
    """An allocation failed."""

    code = radz_status.RADZ_E_MEMORY


class InputOutputError(RadzError, OSError):
    """The operating system refused to open, read or write."""

    code = radz_status.RADZ_E_IO


class FormatError(RadzError, ValueError):
    """A file or buffer is not what it says it is."""

    code = radz_status.RADZ_E_FORMAT


class UnsupportedError(RadzError):
    """Valid, but this build or version cannot do it."""

    code = radz_status.RADZ_E_UNSUPPORTED


class LimitError(RadzError, ValueError):
    """Larger than a stated limit; nothing was allocated."""

    code = radz_status.RADZ_E_LIMIT


class MismatchError(RadzError):
    """Two things do not belong together: bank and model, config and weights."""

    code = radz_status.RADZ_E_MISMATCH


class DeviceError(RadzError):
    """The compute device or its libraries are missing or failed."""

    code = radz_status.RADZ_E_DEVICE


class CancelledError(RadzError):
    """A callback, or `Session.cancel`, asked to stop."""

    code = radz_status.RADZ_E_CANCELLED


class StateError(RadzError):
    """The handle cannot do this now: it is closed, busy in another thread, or was made before a fork."""

    code = radz_status.RADZ_E_STATE


class InternalError(RadzError):
    """A defect of libradz: please report it."""

    code = radz_status.RADZ_E_INTERNAL


_BY_CODE: dict[int, type[RadzError]] = {
    int(kind.code): kind
    for kind in (
        ArgumentError,
        OutOfMemoryError,
        InputOutputError,
        FormatError,
        UnsupportedError,
        LimitError,
        MismatchError,
        DeviceError,
        CancelledError,
        StateError,
        InternalError,
    )
}


def error_of(code: int, message: str) -> RadzError:
    """The exception for a radz_status; a number that this binding does not know is an InternalError."""
    kind = _BY_CODE.get(code)
    return kind(message) if kind else InternalError(f"status {code}: {message}")
