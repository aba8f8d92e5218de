"""A model directory with other weights.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import _abi
from ._handles import Call, CancelFlag, pointer, using
from ._lowlevel import lib, new_options
from ._model import Runtime
from ._values import Path, choice, fill, from_struct, to_bytes


@dataclass(frozen=True)
class QuantizeProgress:
    """Bytes of weights read so far, of how many, of which an earlier run had left some; seconds_left may be NaN."""

    file: str | None
    n_done_bytes: int
    n_bytes: int
    n_reused_bytes: int
    seconds_left: float


def quantize(
    source: Path,
    target: Path,
    type_: str | None = None,
    runtime: Runtime | None = None,
    *,
    keep: str | None = None,
    vision_source: Literal["auto", "checkpoint", "external"] = "auto",
    vision_dir: Path | None = None,
    adapter_dir: Path | None = None,
    films: Sequence[Path] | None = None,
    texts: Sequence[str] | None = None,
    on_progress: Callable[[QuantizeProgress], object] | None = None,
) -> None:
    """Writes the model of `source` with other weights into the folder `target`, in little memory.

    type_: "int8" (default), "int4", "int4/32" ..., "bf16". keep: what stays as it is, see keep_weights in radz.h. The
    tower and the adapter are those of `Model`; the adapter is added in. films, texts: of "int4", files of films and
    texts like those to come, for which matrices are rounded, in more time and memory (see radz.h). on_progress: to
    answer with something true cancels (CancelledError); so does Ctrl-C. The same call goes on with the file that was
    under way.
    """
    options = new_options(_abi.radz_quantize_options)
    fill(options, type=type_, keep=keep, vision_dir=vision_dir, adapter_dir=adapter_dir, films=films, texts=texts)
    options.vision_source = choice("vision_source", _abi.radz_vision_source, "RADZ_VISION_", vision_source)
    here, there = to_bytes("source", source), to_bytes("target", target)
    call = Call(CancelFlag())

    def told(progress: Any, _user: object) -> int:
        now = QuantizeProgress(**from_struct(progress.contents))
        return call.callback(lambda: on_progress is not None and on_progress(now))

    options.progress_fn = _abi.quantize_progress_fn(told)

    def work() -> None:
        with using(runtime):
            lib.radz_model_quantize(pointer(runtime), here, there, options, _abi.radz_error())

    call.run(work, lambda: None)
