"""Results as DICOM objects: for the archive that the film came from.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable, Mapping
from typing import Any

from . import _abi
from ._handles import Handle, using
from ._heatmap import HeatMap
from ._image import Image
from ._lowlevel import lib, new_options
from ._result import Result
from ._values import Matrix, Path, fill, string_array, to_bytes, to_text
from .errors import ArgumentError


class Dicom(Handle):
    """A DICOM object in memory: in the film's own study and under its patient, in a series of its own, unverified.

    Made by `report`, `heatmap` and `outline`, for a film that came from a DICOM file and a result of this film. All
    three take these keywords, explained in radz.h under radz_dicom_options: labels, a file of codes and thresholds;
    threshold, for all classes, and thresholds, by class: from there a finding is called present; institution;
    manufacturer; key, which tells two configurations apart by UIDs; date_time "YYYYMMDDhhmmss", now where not given;
    series_uid and instance_uid, which follow from film, model and options where not given.
    """

    _kind = _abi.radz_dicom

    @classmethod
    def report(cls, film: Image, result: Result, **options: Any) -> Dicom:
        """Comprehensive 3D SR: every class with its code and probability."""
        made, chosen = cls(), _options(**options)
        with using(film, result._open()):
            lib.radz_dicom_build_sr(film._pointer, result._open()._pointer, chosen, made._pointer, _abi.radz_error())
        return made

    @classmethod
    def heatmap(cls, heatmap: HeatMap, result: Result, **options: Any) -> Dicom:
        """Secondary Capture in colour: the map over the film, with a scale and a line that says what it is."""
        return cls()._of_map(lib.radz_dicom_build_sc, heatmap, result, options)

    @classmethod
    def outline(cls, heatmap: HeatMap, result: Result, *, level: float | None = None, **options: Any) -> Dicom:
        """Grayscale Softcopy Presentation State: the film as it is, with the outline of the map's hot area.

        level: the outline runs at this share of the way from the map's least to its greatest number (.5).
        """
        return cls()._of_map(lib.radz_dicom_build_gsps, heatmap, result, {**options, "outline": level})

    def _of_map(self, build: Callable[..., object], heatmap: HeatMap, result: Result, options: dict[str, Any]) -> Dicom:
        chosen, film = _options(map_method=heatmap.method, **options), heatmap.image
        label = to_bytes("label", heatmap.label)
        with using(film, result._open()), Matrix("map", heatmap.map, film.width) as m:
            if m.n != film.height:
                raise ArgumentError(f"map has {m.n} rows: the film has {film.height}")
            build(film._pointer, result._open()._pointer, label, m.pointer, chosen, self._pointer, _abi.radz_error())
        return self

    @property
    def bytes(self) -> bytes:
        """The whole part 10 file."""
        with using(self):
            return ctypes.string_at(lib.radz_dicom_bytes(self._pointer), lib.radz_dicom_size(self._pointer))

    def dataset(self) -> Any:
        """The object as a pydicom dataset; needs pydicom."""
        import pydicom

        return pydicom.dcmread(io.BytesIO(self.bytes))

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        place = to_bytes("path", path)
        with using(self):
            lib.radz_dicom_save(self._pointer, place, _abi.radz_error())

    @property
    def class_uid(self) -> str:
        """SOP Class UID."""
        return self._text(lib.radz_dicom_class_uid)

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return self._text(lib.radz_dicom_series_uid)

    @property
    def instance_uid(self) -> str:
        """SOP Instance UID."""
        return self._text(lib.radz_dicom_instance_uid)

    def _text(self, function: Any) -> str:
        with using(self):
            return to_text(function(self._pointer))

    def __repr__(self) -> str:
        return "<radz.Dicom, closed>" if self.closed else f"<radz.Dicom {self.instance_uid}>"


def _options(
    *,
    labels: Path | None = None,
    threshold: float | None = None,
    thresholds: Mapping[str, float] | None = None,
    institution: str | None = None,
    manufacturer: str | None = None,
    map_method: str | None = None,
    outline: float | None = None,
    date_time: str | None = None,
    key: str | None = None,
    series_uid: str | None = None,
    instance_uid: str | None = None,
) -> Any:
    options = fill(
        new_options(_abi.radz_dicom_options),
        labels=labels,
        threshold=threshold,
        institution=institution,
        manufacturer=manufacturer,
        map_method=map_method,
        outline=outline,
        date_time=date_time,
        key=key,
        series_uid=series_uid,
        instance_uid=instance_uid,
    )
    if thresholds:
        options.threshold_labels = string_array("thresholds", thresholds)
        options.thresholds = (ctypes.c_double * len(thresholds))(*map(float, thresholds.values()))
        options.n_thresholds = len(thresholds)
    return options
