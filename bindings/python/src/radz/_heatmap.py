"""Heat maps.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from . import _abi
from ._handles import using
from ._image import Image
from ._lowlevel import lib, new_options
from ._values import FloatArray, Matrix, Path, fill, to_bytes
from .errors import ArgumentError

HeatMapMethod: TypeAlias = Literal["similarity", "attention", "gradient"]


@dataclass(frozen=True)
class HeatMapScore:
    """How well a map knows what the model looks at.

    deletion, insertion: areas under the curves of the class's probability as patches are painted over, the hottest
    first, and put back; the smaller the one and the larger the other, the better. film, painted: probability with all
    patches and with none. The curves have n_steps + 1 points.
    """

    deletion: float
    insertion: float
    film: float
    painted: float
    deletion_curve: list[float]
    insertion_curve: list[float]


@dataclass(frozen=True)
class HeatMap:
    """Where on a film a class is seen: a picture of a model's workings, not of a disease.

    map: float32 (height, width) of the film; NaN where preprocessing crops. patches: float32 (side, side), what the
    model computed; `map` is it, spread over the pixels. image: the film.
    """

    label: str
    method: HeatMapMethod
    map: FloatArray = field(repr=False)
    patches: FloatArray = field(repr=False)
    image: Image

    def save(
        self,
        path: Path,
        *,
        low: float | None = None,
        high: float | None = None,
        opacity: float | None = None,
        title: str | None = None,
    ) -> None:
        """Draws the map in colours over the gray film, with a scale beside it, into a PNG file.

        low, high: numbers at the ends of the colours; the map's least and greatest where not given. opacity: of the
        hottest colour, 0..1. title: kept in the file as text.
        """
        picture = new_options(_abi.radz_heatmap_picture)
        fill(picture, low=low, high=high, opacity=opacity, title=title)
        place = to_bytes("path", path)
        with using(self.image), Matrix("map", self.map, self.image.width) as m:
            if m.n != self.image.height:
                raise ArgumentError(f"map has {m.n} rows: the film has {self.image.height}")
            lib.radz_heatmap_save_png(place, self.image._pointer, m.pointer, picture, _abi.radz_error())

    def pointing(self, boxes: Sequence[tuple[float, float, float, float]]) -> tuple[bool, float]:
        """Pointing game: does the hottest pixel lie in one of the boxes (x, y, width, height), in pixels?

        Also the part of the film's area that the boxes cover, which is a random guess's chance.
        """
        array = (_abi.radz_box * max(len(boxes), 1))(*(_abi.radz_box(*box) for box in boxes))
        hit, share = ctypes.c_int(), ctypes.c_double()
        with using(self.image), Matrix("map", self.map, self.image.width) as m:
            lib.radz_heatmap_pointing(
                m.pointer, self.image.width, m.n, array, len(boxes), hit, share, _abi.radz_error()
            )
        return hit.value == 1, share.value
