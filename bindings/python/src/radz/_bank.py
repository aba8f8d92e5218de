"""Anchor banks: one vector per class, made from its description.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from . import _abi
from ._handles import Handle, pointer, using
from ._lowlevel import lib, new_options
from ._model import Model
from ._values import (
    DoubleArray,
    FloatArray,
    Matrix,
    NewArray,
    Path,
    fill,
    number_or_none,
    string_array,
    text_or_none,
    to_bytes,
    to_text,
)

if TYPE_CHECKING:
    from ._session import Session

#: The classes of a bank: labels alone; or label and description, which may be None for "say it in a plain sentence".
Classes: TypeAlias = "Mapping[str, str | None] | Iterable[str | tuple[str, str | None]]"


def _entries(classes: Classes) -> Any:
    if isinstance(classes, (str, os.PathLike)):
        raise TypeError("classes must be a mapping or a sequence, not a path")
    pairs = classes.items() if isinstance(classes, Mapping) else classes
    made = []
    for pair in pairs:
        label, description = (pair, None) if isinstance(pair, str) else pair
        text = None if description is None else to_bytes("description", description)
        made.append(_abi.radz_bank_entry(to_bytes("label", label), text))
    return (_abi.radz_bank_entry * len(made))(*made)


class Bank(Handle):
    """One anchor vector per class. It belongs to the model that made it; another model refuses it.

    `Bank(model)` is the model's own, `Bank(model, path)` a saved one; `Bank.build` and `Bank.describe` make new ones.
    Immutable: any number of threads may share it, and adding or removing classes gives another bank.
    """

    _kind = _abi.radz_bank

    def __init__(self, model: Model, path: Path | None = None) -> None:
        super().__init__()
        self._owner: object = model
        place = None if path is None else to_bytes("path", path)
        with using(model):
            lib.radz_bank_open(pointer(model), place, self._pointer, _abi.radz_error())

    @classmethod
    def _blank(cls, owner: object) -> Bank:
        """For the library to fill. The owner keeps a log callback alive."""
        bank = cls.__new__(cls)
        Handle.__init__(bank)
        bank._owner = owner
        return bank

    @classmethod
    def build(cls, session: Session, classes: Classes | Path) -> Bank:
        """A bank of the classes given, or of a description file: a line "label: description" each, '#' a comment."""
        bank = cls._blank(session.model)
        if isinstance(classes, (str, os.PathLike)):
            place = to_bytes("path", classes)
            session._run(lambda s, e: lib.radz_bank_build_file(s, place, bank._pointer, e))
        else:
            entries = _entries(classes)
            session._run(lambda s, e: lib.radz_bank_build(s, entries, len(entries), bank._pointer, e))
        return bank

    @classmethod
    def describe(
        cls,
        session: Session,
        classes: Classes | Path,
        *,
        prompt: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        chat_template: str | None = None,
        system: str | None = None,
        on_done: Callable[[str, str], object] | None = None,
    ) -> Bank:
        """As `build`, but a class without a description is described by the model itself.

        prompt: the question, with "{disease}" where the name goes. on_done: told label and description of each one
        written; to answer with something true cancels (CancelledError). Defaults are those of radz_describe_options:
        256 tokens, temperature 0.2. A model that cannot write is a MismatchError.
        """
        bank = cls._blank(session.model)
        options = new_options(_abi.radz_describe_options)
        fill(options, prompt=prompt, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        fill(options, chat_template=chat_template, system=system)
        call = session._call()

        def done(label: bytes, description: bytes, _user: object) -> int:
            assert on_done is not None
            texts = to_text(label), to_text(description)
            return call.callback(lambda: on_done(*texts))

        if on_done is not None:
            options.done_fn = _abi.done_fn(done)
        if isinstance(classes, (str, os.PathLike)):
            place = to_bytes("path", classes)
            work = lambda s, e: lib.radz_bank_describe_file(s, place, options, bank._pointer, e)  # noqa: E731
        else:
            entries = _entries(classes)
            n = len(entries)
            work = lambda s, e: lib.radz_bank_describe(s, entries, n, options, bank._pointer, e)  # noqa: E731
        session._run(work, call=call)
        return bank

    def save(self, path: Path) -> None:
        """Writes it as safetensors, whole or not at all."""
        place = to_bytes("path", path)
        with using(self):
            lib.radz_bank_save(self._pointer, place, _abi.radz_error())

    def with_classes(self, session: Session, classes: Classes) -> Bank:
        """A new bank: these classes, then more, of which only the new ones are read by the model."""
        bank, entries = self._blank(session.model), _entries(classes)
        n = len(entries)
        session._run(lambda s, e: lib.radz_bank_with(s, self._pointer, entries, n, bank._pointer, e), self)
        return bank

    def without(self, labels: Iterable[str]) -> Bank:
        """A new bank without the classes named; case does not matter."""
        bank, names = self._blank(self._owner), string_array("labels", labels)
        with using(self):
            lib.radz_bank_without(self._pointer, names, len(names), bank._pointer, _abi.radz_error())
        return bank

    def edit(self, session: Session, label: str, description: str) -> Bank:
        """A new bank with another description for one of the classes."""
        bank, name, text = self._blank(session.model), to_bytes("label", label), to_bytes("description", description)
        session._run(lambda s, e: lib.radz_bank_edit(s, self._pointer, name, text, bank._pointer, e), self)
        return bank

    def calibrate(self, path: Path, films: str | None = None) -> Bank:
        """A new bank with the calibration that `evaluate(calibrate=...)` has written for this one.

        path: its calibration-img_anchor.json. films: which films it was fitted on, in words that every result repeats;
        None: as the file has it. Banks made from a calibrated one by `with_classes`, `without`, `edit` have none.
        """
        bank, place = self._blank(self._owner), to_bytes("path", path)
        words = None if films is None else to_bytes("films", films)
        with using(self):
            lib.radz_bank_calibrate(self._pointer, place, words, bank._pointer, _abi.radz_error())
        return bank

    def score(self, vectors: FloatArray) -> DoubleArray:
        """Cosines, float64 (n, len(bank)), of vectors, float32 (n, K), with every anchor.

        The vectors need no length of 1. They are read in place. K is `Model.embedding_dim`.
        """
        with using(self), Matrix("vectors", vectors, self.dim) as m:
            out = NewArray(ctypes.c_double, m.n, len(self))
            lib.radz_bank_score(self._pointer, m.pointer, m.n, out.pointer, _abi.radz_error())
            cosines: DoubleArray = out.array
            return cosines

    def __len__(self) -> int:
        with using(self):
            return int(lib.radz_bank_count(self._pointer))

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __contains__(self, label: object) -> bool:
        return label in self.labels

    @property
    def dim(self) -> int:
        """K, floats per anchor."""
        with using(self):
            return int(lib.radz_bank_dim(self._pointer))

    @property
    def labels(self) -> list[str]:
        """In bank order."""
        with using(self):
            return [to_text(lib.radz_bank_label(self._pointer, i)) for i in range(len(self))]

    @property
    def descriptions(self) -> list[str]:
        """What the model has read of each class, in bank order."""
        with using(self):
            return [to_text(lib.radz_bank_description(self._pointer, i)) for i in range(len(self))]

    @property
    def written(self) -> list[bool]:
        """Which descriptions the model has written itself, in bank order."""
        with using(self):
            return [lib.radz_bank_is_written(self._pointer, i) == 1 for i in range(len(self))]

    @property
    def writer(self) -> str | None:
        """JSON of how the model was asked for descriptions; None: it was not."""
        with using(self):
            return text_or_none(lib.radz_bank_writer(self._pointer))

    @property
    def calibration(self) -> str | None:
        """JSON, schema "radz.calibration/1"; None: the bank has none."""
        with using(self):
            return text_or_none(lib.radz_bank_calibration(self._pointer))

    @property
    def thresholds(self) -> list[float | None]:
        """The calibration's threshold of every class, in bank order; None: none."""
        with using(self):
            return [number_or_none(lib.radz_bank_threshold(self._pointer, i)) for i in range(len(self))]

    @property
    def anchors(self) -> FloatArray:
        """A copy of the anchors, float32 (len(bank), K), unit length, in bank order."""
        with using(self):
            n, dim = len(self), self.dim
            out = NewArray(ctypes.c_float, n, dim)
            for i in range(n):
                row = ctypes.addressof(out.pointer.contents) + 4 * dim * i
                ctypes.memmove(row, lib.radz_bank_anchor(self._pointer, i), 4 * dim)
            anchors: FloatArray = out.array
            return anchors

    @property
    def reference(self) -> str | None:
        """Label of the class that stands for "none of the others"; None: there is none."""
        with using(self):
            i = lib.radz_bank_reference(self._pointer)
            return text_or_none(lib.radz_bank_label(self._pointer, i))

    @property
    def hash(self) -> str:
        """sha256 of the saved form, 64 hex digits."""
        with using(self):
            return to_text(lib.radz_bank_hash(self._pointer))

    @property
    def model_hash(self) -> str:
        """`Model.hash` of the model that made it."""
        with using(self):
            return to_text(lib.radz_bank_model_hash(self._pointer))

    def __repr__(self) -> str:
        return "<radz.Bank, closed>" if self.closed else f"<radz.Bank, {len(self)} classes>"
