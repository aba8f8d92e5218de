"""Training.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from . import _abi
from ._handles import Call, CancelFlag, Handle, pointer, using
from ._lowlevel import lib, new_options
from ._model import Runtime
from ._values import Path, fill, from_struct, to_bytes


@dataclass(kw_only=True)
class TrainOptions:
    """What is trained, on what and how. None is the library's default; radz.h explains every field under
    radz_train_options, and `radz-train --help` in short. `lambda_` is lambda of Eq. 15, the weight of L_CA."""

    model_dir: Path
    manifest: Path
    out_dir: Path
    image_root: Path | None = None
    diseases: Path | None = None
    label_map: Path | None = None
    resume: bool | None = None
    seed: int | None = None
    epochs: float | None = None
    stop_after_steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    warmup_fraction: float | None = None
    clip_norm: float | None = None
    lambda_: float | None = None
    tau: float | None = None
    learn_tau: bool | None = None
    mask_false_negatives: bool | None = None
    balance_sets: bool | None = None
    augment: int | None = None
    checkpoint_every: int | None = None
    validate_every: int | None = None
    monitor: str | None = None
    monitor_set: str | None = None
    dtype: Literal["f32", "bf16"] | None = None
    objective: Literal["radz", "generate", "classify"] | None = None
    settings: Path | None = None
    train: str | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float | None = None
    lora_rslora: bool | None = None
    lora_targets: str | None = None
    merge_lora: bool | None = None
    label_fraction: float | None = None
    features: Literal["cross", "global", "local"] | None = None
    targets: Literal["labels", "batch_index"] | None = None
    micro_batch: int | None = None
    accumulate: int | None = None
    recompute: bool | None = None
    weights: Literal["f32", "bf16"] | None = None
    stop_on_bad_row: bool | None = None
    vectors: Literal["paper", "refcode"] | None = None
    ema: float | None = None
    keep: Literal["best", "last"] | None = None
    set_weights: str | None = None
    drop_path: float | None = None
    film_cache_bytes: int | None = None


@dataclass(frozen=True)
class TrainProgress:
    """Told after every step. val_auc and val_macro_auc hold where has_validation; NaN where undefined."""

    step: int
    n_steps: int
    epoch: float
    loss: float
    loss_ca: float
    loss_cg: float
    grad_norm: float
    lr: float
    tau: float
    items_per_second: float
    seconds_left: float
    n_bad_rows: int
    has_validation: bool
    val_auc: float
    val_macro_auc: float
    checkpoint: str | None


@dataclass(frozen=True)
class TrainPlan:
    """What a run will take: counts, bytes, and seconds per step (NaN where it was not measured)."""

    n_steps: int
    n_train: int
    n_val: int
    n_left_out: int
    n_bad_rows: int
    n_parameters: int
    n_trained: int
    weight_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    film_bytes: int
    seconds_per_step: float
    process_bytes: int


class Trainer(Handle):
    """Trains a LLaVA-RadZ. One thread at a time; everything it writes is written whole or not at all.

    on_progress: told after every step, with the GIL; to answer with something true saves a checkpoint and ends the run
    (CancelledError). Ctrl-C and an exception of the callback do the same and are raised after that step; a run with
    resume=True goes on from there. preset: "paper" or "refcode", under the options that are given.
    """

    _kind = _abi.radz_trainer
    _exclusive = True

    def __init__(
        self,
        options: TrainOptions,
        runtime: Runtime | None = None,
        *,
        preset: Literal["paper", "refcode"] | None = None,
        on_progress: Callable[[TrainProgress], object] | None = None,
    ) -> None:
        super().__init__()
        self.runtime = runtime
        self._on_progress = on_progress
        self._cancel_flag = CancelFlag()
        self._call: Call | None = None
        self._options = new_options(_abi.radz_train_options)  # its texts and its callback live as long as we do
        if preset is not None:
            lib.radz_train_options_preset(self._options, to_bytes("preset", preset), _abi.radz_error())
        fill(self._options, **{f.name: getattr(options, f.name) for f in fields(options)})
        self._progress_fn = _abi.train_progress_fn(self._told)
        self._options.progress_fn = self._progress_fn
        with using(runtime):
            lib.radz_trainer_open(pointer(runtime), self._options, self._pointer, _abi.radz_error())

    def _told(self, progress: Any, _user: object) -> int:
        call = self._call
        if call is None:
            return 0
        function = self._on_progress
        if function is None:
            return call.callback(lambda: None)
        values = from_struct(progress.contents)
        values["has_validation"] = bool(values["has_validation"])
        now = TrainProgress(**values)
        return call.callback(lambda: function(now))

    def _run(self, function: Callable[[], None]) -> None:
        self._acquire()
        self._call = Call(self._cancel_flag)
        self._call.run(function, self._drop)

    def cancel(self) -> None:
        """Asks the run to save a checkpoint and stop after its step, from any thread: it raises CancelledError."""
        self._cancel_flag.set()

    def plan(self, *, measure: bool = False) -> TrainPlan:
        """What the run will take. measure: one step forward and back to time it; nothing is changed or written."""
        made = _abi.radz_train_plan()
        made.struct_size = ctypes.sizeof(made)
        self._run(lambda: lib.radz_trainer_plan(self._pointer, measure, made, _abi.radz_error()))
        return TrainPlan(**from_struct(made))

    def run(self) -> None:
        """Trains to the end, or to stop_after_steps, and writes the model to out_dir."""
        self._run(lambda: lib.radz_trainer_run(self._pointer, _abi.radz_error()))
