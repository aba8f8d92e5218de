"""Results of a classification.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import _abi
from ._handles import Handle
from ._lowlevel import lib
from ._values import number_or_none, take_text, to_text
from .errors import StateError


@dataclass(frozen=True)
class Score:
    """One class of a result: probability 0..1; similarity -1..1, NaN of a linear head.

    Where the bank was given a calibration, the probability is calibrated and there is a threshold of it.
    """

    label: str
    probability: float
    similarity: float
    threshold: float | None = None


class ResultHandle(Handle):
    """A radz_result."""

    _kind = _abi.radz_result


@dataclass(frozen=True)
class Result:
    """The scores of a film, best first, and where they come from. Research use only, not for diagnosis.

    warnings: what to know before reading the scores. json: the library's line of JSON, schema "radz.result/1".
    """

    scores: tuple[Score, ...]
    warnings: tuple[str, ...]
    json: str
    _handle: ResultHandle | None = field(default=None, repr=False, compare=False)

    def _open(self) -> ResultHandle:
        """The library's own, which DICOM objects are made from."""
        if self._handle is None:
            raise StateError("this result is a copy, or came from another process: classify the film here")
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Score]:
        return iter(self.scores)

    def __getitem__(self, label: str) -> Score:
        """The score of a class by its label; KeyError where there is none."""
        for score in self.scores:
            if score.label == label:
                return score
        raise KeyError(label)

    @property
    def best(self) -> Score:
        """The class with the highest probability."""
        return self.scores[0]

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.json)
        return parsed

    @property
    def input(self) -> dict[str, Any]:
        """path (None: from memory), sha256, width_px, height_px of the film."""
        found: dict[str, Any] = self._parsed["input"]
        return found

    @property
    def provenance(self) -> dict[str, Any]:
        """Library, version, device, model, bank and preprocessing, with their hashes."""
        found: dict[str, Any] = self._parsed["provenance"]
        return found


def read_result(make: Callable[[Any], object]) -> Result:
    """The result that `make` puts into the pointer it is given."""
    handle = ResultHandle()
    make(handle._pointer)
    return _copy(handle)


def take_results(pointers: Iterable[Any]) -> list[Result]:
    """Results that belong to us from now on."""
    handles = [ResultHandle() for _ in pointers]
    for handle, pointer in zip(handles, pointers, strict=True):
        ctypes.pointer(handle._pointer)[0] = pointer
    return [_copy(handle) for handle in handles]


def _copy(handle: ResultHandle) -> Result:
    out = handle._pointer
    scores = tuple(
        Score(
            to_text(lib.radz_result_label(out, i)),
            lib.radz_result_probability(out, i),
            lib.radz_result_similarity(out, i),
            number_or_none(lib.radz_result_threshold(out, i)),
        )
        for i in range(lib.radz_result_count(out))
    )
    warnings = tuple(to_text(lib.radz_result_warning(out, i)) for i in range(lib.radz_result_warning_count(out)))
    text = ctypes.POINTER(ctypes.c_char)()
    lib.radz_result_json(out, None, text, _abi.radz_error())
    return Result(scores, warnings, take_text(text), handle)
