"""A segmenter as a part: any ONNX file whose outputs an adapter knows."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError, NonFiniteOutput, ShapeError, ValidationFailed
from graftsdk.plan import Part, PartInfo, Provenance, SegmenterInfo
from graftsdk.plan.manifest import DEFAULT_PERSONS
from graftsdk.plan.onnx_part import read_segmenter_part
from graftsdk.plan.strict_json import MAX_TEXT_BYTES
from graftsdk.scores import check_fraction
from graftsdk.segment import MAX_PERSONS, recognise
from graftsdk.segmenter import Segmenter

__all__ = ["SegmenterSource", "check_segmenter", "read_segmenter"]

MAX_CLASS = 65535  # what a manifest takes


@dataclass(frozen=True)
class SegmenterSource:
    """A segmenter that was read."""

    where: str
    part: Part
    info: SegmenterInfo
    provenance: Provenance

    def entry(self) -> tuple[Part, SegmenterInfo, PartInfo]:
        """As `graftsdk.plan.edit.create_plan` takes it."""
        return self.part, self.info, PartInfo("segmenter", self.part.digest, provenance=self.provenance)

    def open(self, *, device: str = "auto", threads: int | None = None, cache: bool = True) -> Segmenter:
        """The segmenter, opened as `graftsdk.segmenter.Segmenter` does it, and run once, on grey.

        Raises:
            InputError: its outputs are not what its family gives, or have no such class; or an argument.
            ValidationFailed: it gives NaN. EngineError: the runtime refuses it.
        """
        segmenter = Segmenter(self.info, self.part, device=device, threads=threads, cache=cache)
        with ExitStack() as undo:
            undo.enter_context(segmenter)
            try:
                segmenter.find(np.full((*self.info.input_size, 3), 128, np.uint8))
            except NonFiniteOutput as error:
                raise ValidationFailed(f"{self.where}: expected finite outputs for a grey image; {error}") from error
            except ShapeError as error:
                raise InputError(
                    f"{self.where}: as family {self.info.family!r} with person class {self.info.person_class}: "
                    f"{error}; look at segmenter_family, segmenter_size and person_class"
                ) from error
            undo.pop_all()
        return segmenter


def read_segmenter(
    path: str | os.PathLike[str],
    *,
    licence: str | None = None,
    author: str | None = None,
    person_class: int | None = None,
    family: str | None = None,
    input_size: tuple[int, int] | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    max_persons: int = DEFAULT_PERSONS,
) -> SegmenterSource:
    """Any ONNX file that an adapter knows by its outputs.

    Args:
        licence, author: None takes what the file's metadata says (`license` or `licence`, `author`), else "".
        person_class: the index of the class "person"; None finds it in the metadata's `names`, else 0.
        family, input_size: as `graftsdk.segment.recognise`; None leaves them to the shapes.
        score_threshold, iou_threshold: 0..1, of the decoding; None takes the family's own.
        max_persons: 1..1000, the most in one image.

    Raises:
        InputError: no adapter knows it, its shapes leave something open, its classes have no person, or an argument
            is out of range.
        PlanPathError, PlanCorrupt: the file cannot be read.
    """
    part, inputs, outputs, metadata = read_segmenter_part(path)
    try:
        fields = recognise(inputs, outputs, family, _size(input_size))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if person_class is None:
        fields["person_class"] = _person(metadata, str(path))
    else:
        fields["person_class"] = whole_number("person_class", person_class, 0, MAX_CLASS)
    if score_threshold is not None:
        fields["score_threshold"] = check_fraction("score_threshold", score_threshold)
    if iou_threshold is not None:
        fields["iou_threshold"] = check_fraction("iou_threshold", iou_threshold)
    limit = whole_number("max_persons", max_persons, 1, MAX_PERSONS)
    stated = metadata.get("license") or metadata.get("licence") or ""
    provenance = Provenance(
        _plain(stated if licence is None else licence), _plain(metadata.get("author", "") if author is None else author)
    )
    return SegmenterSource(str(path), part, SegmenterInfo(part=part.name, max_persons=limit, **fields), provenance)


def check_segmenter(source: SegmenterSource) -> None:
    """Run it once, on grey, and read what it gives.

    Raises:
        EngineBuildError: the runtime refuses it. ValidationFailed: it gives NaN.
        InputError: its outputs are not what its family gives, or have no such class.
    """
    source.open(device="cpu", cache=False).close()


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InputError(f"segmenter_size: expected (H, W), found {value!r:.80}")
    height, width = (whole_number("segmenter_size", side, 32, 8192) for side in value)
    return height, width


def _person(metadata: Mapping[str, str], where: str) -> int:
    """The index of "person" in a metadata text like "{0: 'person', 1: 'bicycle'}"."""
    names = re.findall(r"(\d+)\s*:\s*['\"]([^'\"]*)['\"]", metadata.get("names", ""))
    for index, name in names:
        if name.casefold() == "person":
            return int(index)
    if names:
        raise InputError(
            f"{where}: expected a class named 'person', found {', '.join(name for _, name in names[:8])}; "
            f"say which of them is a person: --person-class N"
        )
    return 0


def _plain(text: str) -> str:
    """One line of at most 256 bytes, as a manifest takes it: metadata is written by strangers."""
    shown = "".join(letter if letter.isprintable() else " " for letter in unicodedata.normalize("NFC", text))
    return " ".join(shown.split()).encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore").strip()
