"""A segmenter as a part: any ONNX file whose outputs an adapter knows."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graftsdk.errors import InputError, ValidationFailed
from graftsdk.export.validate import open_part
from graftsdk.plan import Part, PartInfo, Provenance, SegmenterInfo
from graftsdk.plan.onnx_part import read_segmenter_part
from graftsdk.plan.strict_json import MAX_TEXT_BYTES
from graftsdk.segment import recognise

__all__ = ["SegmenterSource", "check_segmenter", "read_segmenter"]


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


def read_segmenter(
    path: str | os.PathLike[str],
    *,
    licence: str | None = None,
    author: str | None = None,
    person_class: int | None = None,
) -> SegmenterSource:
    """Any ONNX file that an adapter knows by its outputs.

    Args:
        licence, author: None takes what the file's metadata says (`license` or `licence`, `author`), else "".
        person_class: the index of the class "person"; None finds it in the metadata's `names`, else 0.

    Raises:
        InputError: no adapter knows it, or its classes have no person.
        PlanPathError, PlanCorrupt: the file cannot be read.
    """
    part, inputs, outputs, metadata = read_segmenter_part(path)
    fields = recognise(inputs, outputs)
    fields["person_class"] = _person(metadata, str(path)) if person_class is None else person_class
    stated = metadata.get("license") or metadata.get("licence") or ""
    provenance = Provenance(
        _plain(stated if licence is None else licence), _plain(metadata.get("author", "") if author is None else author)
    )
    return SegmenterSource(str(path), part, SegmenterInfo(part=part.name, **fields), provenance)


def check_segmenter(source: SegmenterSource) -> None:
    """Run it once, on grey.

    Raises:
        EngineBuildError: the runtime refuses it. ValidationFailed: it gives NaN.
    """
    height, width = source.info.input_size
    with open_part(source.part) as engine:
        found = engine.run({source.info.input: np.full((1, 3, height, width), 0.5, np.float32)}, source.info.outputs)
    for name, value in found.items():
        if not np.isfinite(value).all():
            raise ValidationFailed(f"{source.where}: expected finite outputs, found NaN or infinity in {name!r}")


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
