"""A segmenter as a part: a checkpoint of ours, or any ONNX file whose outputs an adapter knows.

Only a checkpoint needs torch.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError, MissingDependency, NonFiniteOutput, ShapeError, ValidationFailed
from graftsdk.plan import Part, PartInfo, Provenance, SegmenterInfo
from graftsdk.plan.manifest import DEFAULT_PERSONS
from graftsdk.plan.onnx_part import Shapes, interface, model_from_part, read_segmenter_part, write_onnx
from graftsdk.plan.strict_json import MAX_TEXT_BYTES
from graftsdk.scores import check_fraction
from graftsdk.segment import MAX_PERSONS, open_adapter, recognise
from graftsdk.segment.demo import named_segmenter
from graftsdk.segmenter import Segmenter

if TYPE_CHECKING:
    from graftsdk.models import Yolact

__all__ = ["SegmenterSource", "check_segmenter", "read_segmenter", "write_segmenter"]

MAX_CLASS = 65535  # what a manifest takes


@dataclass(frozen=True)
class SegmenterSource:
    """A segmenter that was read.

    Attributes:
        classes: names, in the order of its outputs; empty where it does not tell.
        module: the network in torch that the part was made of; None where it arrived exported.
    """

    where: str
    part: Part
    info: SegmenterInfo
    provenance: Provenance
    classes: tuple[str, ...] = ()
    module: Yolact | None = None

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
    source: str | os.PathLike[str] | Yolact,
    *,
    licence: str | None = None,
    author: str | None = None,
    person_class: int | None = None,
    family: str | None = None,
    input_size: tuple[int, int] | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    nms: str | None = None,
    max_persons: int = DEFAULT_PERSONS,
) -> SegmenterSource:
    """A checkpoint of `graftsdk.models.Yolact`, or any ONNX file that an adapter knows by its outputs.

    Args:
        source: a path, "demo" for the segmenter that graftsdk brings, or a Yolact in memory.
        licence, author: None takes what the file says (of ONNX its metadata: `license` or `licence`, `author`).
        person_class: the index of the class "person"; None finds it among the names of the classes, else 0.
        family, input_size: as `graftsdk.segment.recognise`; None leaves them to the shapes.
        score_threshold, iou_threshold: 0..1, of the decoding; None takes what a checkpoint's validation data say of the
            score, else the family's own.
        nms: "greedy", or for YOLACT also "fast", the original's: how overlapping boxes are suppressed; None takes
            "greedy".
        max_persons: 1..1000, the most in one image.

    Raises:
        InputError: no adapter knows it, its shapes leave something open, its classes have no person, or an argument
            is out of range.
        PlanError: the file cannot be read or trusted. MissingDependency: a checkpoint, and torch is absent.
        UnsupportedOp, ValidationFailed: a checkpoint that cannot be exported.
    """
    part, inputs, outputs, module, stated, classes, where = _open(source)
    if score_threshold is None and module is not None:
        score_threshold = module.document().score_threshold
    try:
        fields = recognise(inputs, outputs, family, _size(input_size))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if person_class is None:
        fields["person_class"] = _person(classes, where, fields["person_class"])
    else:
        fields["person_class"] = whole_number("person_class", person_class, 0, MAX_CLASS)
    if score_threshold is not None:
        fields["score_threshold"] = check_fraction("score_threshold", score_threshold)
    if iou_threshold is not None:
        fields["iou_threshold"] = check_fraction("iou_threshold", iou_threshold)
    if nms is not None:
        fields["nms"] = nms
    limit = whole_number("max_persons", max_persons, 1, MAX_PERSONS)
    provenance = Provenance(
        _plain(stated.licence if licence is None else licence),
        _plain(stated.author if author is None else author),
        stated.data,
    )
    info = SegmenterInfo(part=part.name, max_persons=limit, **fields)
    open_adapter(info)  # refuses a way of suppression that the family does not know
    return SegmenterSource(where, part, info, provenance, tuple(name for _, name in classes), module)


def check_segmenter(source: SegmenterSource) -> None:
    """Run it once, on grey, and read what it gives; compare it with torch where it was a checkpoint.

    Raises:
        EngineBuildError: the runtime refuses it. ValidationFailed: it gives NaN, or differs from torch.
        InputError: its outputs are not what its family gives, or have no such class.
    """
    with source.open(device="cpu", cache=False) as segmenter:
        if source.module is not None:
            from graftsdk.export.yolact import check_outputs

            check_outputs(source.module, segmenter.engine, source.where)


def write_segmenter(path: str | os.PathLike[str], source: SegmenterSource) -> None:
    """Write a segmenter that was read as an ONNX file of its own, whole or not at all; `read_segmenter` reads it.

    Licence, author and classes stand in its metadata.

    Raises:
        PlanPathError: it cannot be written.
    """
    metadata = {"license": source.provenance.licence, "author": source.provenance.author}
    if source.classes:
        metadata["names"] = "{" + ", ".join(f"{index}: {name!r}" for index, name in enumerate(source.classes)) + "}"
    write_onnx(path, source.part, metadata)


def _open(
    source: Any,
) -> tuple[Part, Shapes, Shapes, Yolact | None, Provenance, list[tuple[int, str]], str]:
    """Part, inputs, outputs, module, provenance, classes with their indices, and what to call it."""
    source = named_segmenter(source)
    if not isinstance(source, (str, os.PathLike)) or Path(source).suffix.lower() == ".safetensors":
        try:
            from graftsdk.export.yolact import read_yolact, yolact_part
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in ("torch", "torchvision", "onnxscript"):
                raise
            raise MissingDependency(f"a checkpoint needs {missing}: pip install 'graftsdk[export]'") from error
        module, where = read_yolact(source)
        part = yolact_part(module)
        model = model_from_part(part)
        inputs, outputs = interface(model)
        return part, inputs, outputs, module, module.provenance, list(enumerate(module.classes)), where
    part, inputs, outputs, metadata = read_segmenter_part(source)
    stated = Provenance(metadata.get("license") or metadata.get("licence") or "", metadata.get("author", ""))
    return part, inputs, outputs, None, stated, _names(metadata), str(source)


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InputError(f"segmenter_size: expected (H, W), found {value!r:.80}")
    height, width = (whole_number("segmenter_size", side, 32, 8192) for side in value)
    return height, width


def _names(metadata: Mapping[str, str]) -> list[tuple[int, str]]:
    """Index and name of each class in a metadata text like "{0: 'person', 1: 'bicycle'}"."""
    found = re.findall(r"(\d+)\s*:\s*['\"]([^'\"]*)['\"]", metadata.get("names", ""))
    return [(int(index), name) for index, name in found]


def _person(classes: Sequence[tuple[int, str]], where: str, default: int) -> int:
    """The index of "person"; the family's own where no class has a name."""
    for index, name in classes:
        if name.casefold() == "person":
            return index
    if classes:
        raise InputError(
            f"{where}: expected a class named 'person', found {', '.join(name for _, name in classes[:8])}; "
            f"say which of them is a person: --person-class N"
        )
    return default


def _plain(text: str) -> str:
    """One line of at most 256 bytes, as a manifest takes it: metadata is written by strangers."""
    shown = "".join(letter if letter.isprintable() else " " for letter in unicodedata.normalize("NFC", text))
    return " ".join(shown.split()).encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore").strip()
