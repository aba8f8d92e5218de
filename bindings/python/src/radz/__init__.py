"""Zero-shot recognition of findings on chest X-rays, through libradz. Research use only, not for diagnosis.

    import radz

    with radz.Model("models/radz-tiny") as model, radz.Session(model) as session:
        for score in session.classify("film.png"):
            print(f"{score.label:24} {score.probability:.3f}")

SPDX-License-Identifier: Apache-2.0
"""

from ._bank import Bank
from ._dicom import Dicom
from ._evaluate import EvalOptions, EvalProgress, OtherModel, ScoreOptions, Scorer, evaluate
from ._heatmap import HeatMap, HeatMapScore
from ._image import Image
from ._lowlevel import lib as _lib
from ._lowlevel import path as library_path
from ._lowlevel import version as library_version
from ._model import Model, ModelInfo, Runtime, kernels_available
from ._quantize import QuantizeProgress, quantize
from ._result import Result, Score
from ._session import Session, Token
from ._trainer import Trainer, TrainOptions, TrainPlan, TrainProgress
from ._version import __version__
from .errors import (
    ArgumentError,
    CancelledError,
    DeviceError,
    FormatError,
    InputOutputError,
    InternalError,
    LimitError,
    MismatchError,
    OutOfMemoryError,
    RadzError,
    StateError,
    UnsupportedError,
)

#: The sentence every result carries.
DISCLAIMER: str = _lib.radz_disclaimer().decode()

__all__ = [
    "DISCLAIMER",
    "ArgumentError",
    "Bank",
    "CancelledError",
    "DeviceError",
    "Dicom",
    "EvalOptions",
    "EvalProgress",
    "FormatError",
    "HeatMap",
    "HeatMapScore",
    "Image",
    "InputOutputError",
    "InternalError",
    "LimitError",
    "MismatchError",
    "Model",
    "ModelInfo",
    "OtherModel",
    "OutOfMemoryError",
    "QuantizeProgress",
    "RadzError",
    "Result",
    "Runtime",
    "Score",
    "ScoreOptions",
    "Scorer",
    "Session",
    "StateError",
    "Token",
    "TrainOptions",
    "TrainPlan",
    "TrainProgress",
    "Trainer",
    "UnsupportedError",
    "__version__",
    "evaluate",
    "kernels_available",
    "library_path",
    "library_version",
    "quantize",
]
