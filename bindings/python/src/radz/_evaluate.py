"""Scores of any kind, and evaluation over a manifest.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any, Literal

from . import _abi
from ._bank import Bank
from ._handles import Handle, pointer, using
from ._lowlevel import lib, new_options
from ._session import Session
from ._values import DoubleArray, FloatArray, Matrix, NewArray, Path, choice, fill, from_struct, to_bytes, to_text
from .errors import ArgumentError


@dataclass(kw_only=True)
class ScoreOptions:
    """What a film's vector is compared with; radz.h explains every field under radz_score_options.

    templates, negatives: texts with "{c}" for the class. calibration: a file that `evaluate` has written.
    """

    score: Literal["img_anchor", "img_text", "fused", "pos_neg", "hidden"] = "img_anchor"
    feature: Literal["global", "local", "both"] = "global"
    classes: Literal["auto", "reference", "exclusive", "independent"] = "auto"
    tau: float | None = None
    templates: Sequence[str] | None = None
    negatives: Sequence[str] | None = None
    calibration: Path | None = None

    def _fill(self, options: Any) -> Any:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["score"] = choice("score", _abi.radz_score_kind, "RADZ_SCORE_", self.score)
        values["feature"] = choice("feature", _abi.radz_score_feature, "RADZ_SCORE_", self.feature)
        values["classes"] = choice("classes", _abi.radz_score_classes, "RADZ_CLASSES_", self.classes)
        return fill(options, **values)


class Scorer(Handle):
    """Scores vectors against the classes of a bank in one of several ways. Any number of threads may share it."""

    _kind = _abi.radz_scorer

    def __init__(self, session: Session, bank: Bank | None = None, options: ScoreOptions | None = None) -> None:
        super().__init__()
        chosen = options or ScoreOptions()
        self._owner = session.model  # its log callback lives as long as we do
        filled = chosen._fill(new_options(_abi.radz_score_options))
        vectors = fill(new_options(_abi.radz_embed_options), raw=chosen.score == "hidden")
        with using(session.model):
            self._dim: int = lib.radz_embed_dim(pointer(session.model), vectors)
        session._run(lambda s, e: lib.radz_scorer_open(s, pointer(bank), filled, self._pointer, e), bank)

    def __len__(self) -> int:
        with using(self):
            return int(lib.radz_scorer_count(self._pointer))

    @property
    def labels(self) -> list[str]:
        """Classes in bank order."""
        with using(self):
            return [to_text(lib.radz_scorer_label(self._pointer, i)) for i in range(len(self))]

    @property
    def thresholds(self) -> list[float]:
        """The calibration's threshold of every class, in bank order; NaN: none."""
        with using(self):
            return [lib.radz_scorer_threshold(self._pointer, i) for i in range(len(self))]

    def score(
        self, global_: FloatArray | None = None, local: FloatArray | None = None
    ) -> tuple[DoubleArray, DoubleArray]:
        """Similarities and probabilities of n films, float64 (n, classes) each.

        global_, local: float32 (n, dim) from `Session.embed_images` with features "global" and "local"; that which the
        scorer's feature does not need may be None. "hidden" takes as global_ vectors of feature "local" with raw=True.
        """
        with using(self), ExitStack() as stack:
            given = {
                name: stack.enter_context(Matrix(name, vectors, self._dim))
                for name, vectors in (("global_", global_), ("local", local))
                if vectors is not None
            }
            counts = {m.n for m in given.values()}
            if len(counts) != 1:
                raise ArgumentError(f"global_ and local hold {sorted(counts)} vectors: expected as many of each")
            n = counts.pop()
            similarity, probability = (NewArray(ctypes.c_double, n, len(self)) for _ in range(2))
            g, x = (given[name].pointer if name in given else None for name in ("global_", "local"))
            lib.radz_scorer_score(self._pointer, g, x, n, similarity.pointer, probability.pointer, _abi.radz_error())
            return similarity.array, probability.array


@dataclass(kw_only=True)
class EvalOptions:
    """What is evaluated and how. None is the library's default; radz.h explains every field under radz_eval_options."""

    manifest: Path
    out_dir: Path
    image_root: Path | None = None
    label_map: Path | None = None
    cache_dir: Path | None = None
    split: str | None = None
    sets: str | None = None
    validation: Path | None = None
    validation_split: str | None = None
    methods: str | None = None
    score: ScoreOptions | None = None
    threshold: str | None = None
    fixed_threshold: float | None = None
    strict: bool | None = None
    both_classes: bool | None = None
    macro_reference: bool | None = None
    calibrate: Literal["none", "platt", "isotonic"] | None = None
    uncertain: Literal["ignore", "positive", "negative"] | None = None
    n_bins: int | None = None
    n_rounds: int | None = None
    confidence: float | None = None
    seed: int | None = None
    shard: int | None = None
    n_shards: int | None = None
    merge: bool | None = None
    n_tsne: int | None = None
    n_examples: int | None = None
    write_scores: bool | None = None
    leave_out: bool | None = None
    name: str | None = None
    boxes: Path | None = None
    n_box_steps: int | None = None
    no_heatmaps: bool | None = None


@dataclass(frozen=True)
class EvalProgress:
    """Films done, of how many, of which failed and came from the cache; seconds_left is a guess.

    stage: "films", then "figures", "boxes", "pictures", each with its own count of parts.
    """

    n_done: int
    n_films: int
    n_failed: int
    n_cached: int
    seconds_left: float
    stage: str
    stage_done: int
    stage_n: int


@dataclass(frozen=True)
class OtherModel:
    """A further model of an evaluation: a session of its own, a bank with the same classes in the same order (None: the
    model's own), and what its rows are called (None: the name of its directory)."""

    session: Session
    bank: Bank | None = None
    name: str | None = None


def evaluate(
    session: Session,
    options: EvalOptions,
    bank: Bank | None = None,
    *,
    others: Sequence[OtherModel] = (),
    preset: str | None = None,
    on_progress: Callable[[EvalProgress], object] | None = None,
) -> dict[str, Any] | None:
    """Evaluates a model over a manifest into out_dir, and gives back its report.json (None: a shard was written).

    others: further models for the same films, each with rows of its own and their differences to the first.
    preset: "paper-table1", "paper-table2", "paper-table3", "medklip" or "chexzero", under the options that are given.
    on_progress: told now and then; to answer with something true cancels (CancelledError). bank None: the model's own.
    """
    filled = new_options(_abi.radz_eval_options)
    if preset is not None:
        lib.radz_eval_options_preset(filled, to_bytes("preset", preset), _abi.radz_error())
    values = {f.name: getattr(options, f.name) for f in fields(options) if f.name != "score"}
    fill(filled, **values)
    if options.score is not None:
        options.score._fill(filled.score)
    names = [None if other.name is None else to_bytes("name", other.name) for other in others]
    made = (_abi.radz_eval_model * len(others))()
    for place, other, name in zip(made, others, names, strict=True):
        place.session, place.bank, place.name = other.session._pointer, pointer(other.bank), name
    filled.others, filled.n_others = made, len(others)
    call = session._call()

    def told(progress: Any, _user: object) -> int:
        now = EvalProgress(**from_struct(progress.contents))
        return call.callback(lambda: on_progress is not None and on_progress(now))

    filled.progress_fn = _abi.eval_progress_fn(told)
    also = [handle for other in others for handle in (other.session, other.session.model, other.bank)]
    session._run(lambda s, e: lib.radz_evaluate(s, pointer(bank), filled, e), bank, *also, call=call)
    if options.n_shards and not options.merge:
        return None
    with open(os.path.join(os.fspath(options.out_dir), "report.json"), encoding="utf-8") as file:
        report: dict[str, Any] = json.load(file)
    return report
