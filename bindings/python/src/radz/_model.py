"""Runtime and model.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from . import _abi
from ._handles import Handle, pointer, using
from ._lowlevel import lib, new_options
from ._values import Path, choice, fill, from_struct, to_bytes, to_text

#: Takes a level of the logging module and a line of text: `logging.getLogger("radz").log` is one.
Log: TypeAlias = Callable[[int, str], object]

_LOGGING_LEVELS = (10, 20, 30)  # DEBUG, INFO, WARNING, in the order of radz_log_level


def kernels_available() -> list[str]:
    """The CPU kernel sets that this machine can run, best first."""
    found: list[str] = []
    while (name := lib.radz_kernels_available(len(found))) is not None:
        found.append(to_text(name))
    return found


class Runtime(Handle):
    """Device, threads and log, shared by everything made with it.

    device: "auto" (default), "cpu", "cuda", "cuda:1". kernels: CPU kernel set, "auto" (default) or one of
    `kernels_available`. gemm: CPU matrix product, "auto" (default), "own", "openblas". n_threads: worker threads with
    the caller's; 0 (default) is all cores. log: told what the library has to say, from any thread; what it raises is
    printed, no more.
    """

    _kind = _abi.radz_runtime

    def __init__(
        self,
        *,
        device: str | None = None,
        kernels: str | None = None,
        gemm: str | None = None,
        n_threads: int | None = None,
        log: Log | None = None,
    ) -> None:
        super().__init__()
        options = new_options(_abi.radz_runtime_options)
        fill(options, device=device, kernels=kernels, gemm=gemm, n_threads=n_threads)
        if log is not None:
            options.log_fn = self._log_fn = _log_fn(log)
        lib.radz_runtime_create(options, self._pointer, _abi.radz_error())

    @property
    def device(self) -> str:
        """What runs the network: "cpu (avx2, own gemm, 2 threads)"."""
        with using(self):
            return to_text(lib.radz_runtime_device(self._pointer))

    @property
    def kernels(self) -> str:
        """The CPU kernel set in use."""
        with using(self):
            return to_text(lib.radz_runtime_kernels(self._pointer))

    @property
    def products(self) -> str:
        """Which matrix product each type of weights gets."""
        with using(self):
            return to_text(lib.radz_runtime_products(self._pointer))


def _log_fn(log: Log) -> Any:
    def told(level: int, message: bytes, _user: object) -> None:
        log(_LOGGING_LEVELS[min(level, len(_LOGGING_LEVELS) - 1)], to_text(message))

    return _abi.log_fn(told)


@dataclass(frozen=True)
class ModelInfo:
    """What a model is; radz.h explains every field under radz_model_info. Bytes are bytes, layers count from 0."""

    dtype: str
    tower_source: str | None
    tokenizer: str | None
    tokenizer_hash: str | None
    missing: str | None
    unused_tensor: str | None
    n_unused_tensors: int
    n_parameters: int
    file_bytes: int
    weight_bytes: int
    film_bytes: int
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    vision_heads: int
    image_size_px: int
    patch_px: int
    image_rows: int
    text_hidden: int
    text_intermediate: int
    text_layers: int
    text_heads: int
    text_kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    window: int
    embedding_dim: int
    n_image_tokens: int
    n_text_tokens: int
    layer: int
    feature_layer: int
    tau: float
    adapter: str | None
    adapter_hash: str | None
    adapter_rank: int
    n_head_classes: int
    weights: str | None
    streamed_bytes: int
    peak_bytes: int


class Model(Handle):
    """A model directory, weights mapped. Immutable: any number of threads may share it, each with its own Session.

    use_mmap: True (default) maps the weights; False reads them. vision_source: "auto" (default), "checkpoint",
    "external". vision_dir: directory of a CLIP model. adapter_dir: directory of a PEFT LoRA adapter, merged in.
    weights: None (as the files have them), "f32", "bf16", "int8", "int4", "int4/32" ...; keep_weights: what that leaves
    as stored. memory_bytes: weights are read from the files while others are at work, in about so much memory.
    """

    _kind = _abi.radz_model

    def __init__(
        self,
        directory: Path,
        runtime: Runtime | None = None,
        *,
        use_mmap: bool | None = None,
        vision_source: Literal["auto", "checkpoint", "external"] = "auto",
        vision_dir: Path | None = None,
        adapter_dir: Path | None = None,
        weights: str | None = None,
        keep_weights: str | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self.runtime = runtime
        options = new_options(_abi.radz_model_options)
        source = choice("vision_source", _abi.radz_vision_source, "RADZ_VISION_", vision_source)
        fill(options, use_mmap=use_mmap, vision_source=source, vision_dir=vision_dir, adapter_dir=adapter_dir)
        fill(options, weights=weights, keep_weights=keep_weights, memory_bytes=memory_bytes)
        place = to_bytes("directory", directory)
        with using(runtime):
            lib.radz_model_open(pointer(runtime), place, options, self._pointer, _abi.radz_error())

    @property
    def embedding_dim(self) -> int:
        """K, floats per vector."""
        with using(self):
            return int(lib.radz_model_embedding_dim(self._pointer))

    @property
    def hash(self) -> str:
        """sha256 over all files that change a vector, 64 hex digits."""
        with using(self):
            return to_text(lib.radz_model_hash(self._pointer))

    @property
    def family(self) -> str:
        """The hash of the model that these weights were made from; its own where there is none."""
        with using(self):
            return to_text(lib.radz_model_family(self._pointer))

    @property
    def name(self) -> str:
        """Last component of the directory."""
        with using(self):
            return to_text(lib.radz_model_name(self._pointer))

    @property
    def device(self) -> str:
        """What runs the network: "cpu (avx2, own gemm, 2 threads)"."""
        with using(self):
            return to_text(lib.radz_model_device(self._pointer))

    @property
    def info(self) -> ModelInfo:
        """Sizes, files, memory."""
        filled = new_options(_abi.radz_model_info)
        with using(self):
            lib.radz_model_get_info(self._pointer, filled, _abi.radz_error())
            return ModelInfo(**from_struct(filled))

    @property
    def unused_tensors(self) -> list[str]:
        """Tensors of the files that the network has no place for."""
        with using(self):
            n = self.info.n_unused_tensors
            return [to_text(lib.radz_model_unused_tensor(self._pointer, i)) for i in range(n)]

    @property
    def heatmap_side(self) -> int:
        """Patches along a side of the square that the model sees; 0: it takes no films."""
        with using(self):
            return int(lib.radz_heatmap_side(self._pointer))

    def __repr__(self) -> str:
        return "<radz.Model, closed>" if self.closed else f"<radz.Model {self.name}, {self.device}>"
