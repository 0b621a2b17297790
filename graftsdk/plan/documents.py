"""The JSON document that travels with a trunk, a branch or a segmenter: in a checkpoint and in an exported part alike.

A checkpoint carries it in the safetensors metadata key `graftsdk`, an ONNX part in the model's `metadata_props`
under the same key. What only an exported part has (cost, golden scores) stands in `exported`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graftsdk.errors import InputError, PlanCorrupt
from graftsdk.plan.cropspec import CropSpec
from graftsdk.plan.document_head import (
    DOCUMENT_KEY,
    DOCUMENT_VERSION,
    HEX64,
    MAX_COUNT,
    NAME,
    Provenance,
    any_number,
    start_document,
)
from graftsdk.plan.segmenter_document import SegmenterDocument
from graftsdk.plan.strict_json import Fields, check_text, dump_json, load_json

__all__ = [
    "DOCUMENT_KEY",
    "DOCUMENT_VERSION",
    "GOLDEN_COUNT",
    "GOLDEN_SEED",
    "HEX64",
    "MAX_BLOCKS",
    "MAX_CLASSES",
    "NAME",
    "BranchDocument",
    "ExportedBranch",
    "ExportedTrunk",
    "Provenance",
    "SegmenterDocument",
    "TrunkDocument",
    "read_document",
]

GOLDEN_SEED = 0  # golden inputs are generated crops (preprocess.golden_crops): nothing but these two numbers is stored
GOLDEN_COUNT = 4
MAX_CLASSES = 64
MAX_BLOCKS = 256
HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class ExportedTrunk:
    """What an exported trunk knows beside its weights: cumulative cost at every tap.

    Attributes:
        macs: multiply-adds of stem and blocks 0..k-1 for one crop, for k = 0..B.
        parameters: learned parameters of the same (BatchNorm's gamma and beta counted, statistics not).
    """

    macs: tuple[int, ...]
    parameters: tuple[int, ...]


@dataclass(frozen=True)
class ExportedBranch:
    """What an exported branch knows beside its weights.

    Attributes:
        macs, parameters: of its own blocks, pooling and classifier, for one crop.
        scores: its calibrated probabilities on the golden crops, [GOLDEN_COUNT][classes].
        torch_difference: greatest absolute difference of a probability from torch, over random and real crops.
        samples: how many real crops were compared.
        flips: decisions that differed on the real crops.
    """

    macs: int
    parameters: int
    scores: tuple[tuple[float, ...], ...]
    torch_difference: float
    samples: int
    flips: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "macs": self.macs,
            "parameters": self.parameters,
            "scores": [list(row) for row in self.scores],
            "torch_difference": self.torch_difference,
            "samples": self.samples,
            "flips": self.flips,
        }

    @classmethod
    def from_dict(cls, value: Any, where: str, classes: int) -> ExportedBranch:
        def row(item: Any, at: str) -> tuple[float, ...]:
            return Fields({"row": item}, at).numbers("row", 0.0, 1.0, count=(classes, classes))

        fields = Fields(value, where)
        found = cls(
            macs=fields.integer("macs", 0, MAX_COUNT),
            parameters=fields.integer("parameters", 0, MAX_COUNT),
            scores=fields.items("scores", row, count=(GOLDEN_COUNT, GOLDEN_COUNT)),
            torch_difference=fields.number("torch_difference", 0.0, 1.0),
            samples=fields.integer("samples", 0, MAX_COUNT),
            flips=fields.integer("flips", 0, MAX_COUNT),
        )
        fields.done()
        return found


@dataclass(frozen=True)
class TrunkDocument:
    """What is known of a trunk.

    Attributes:
        arch: the backbone's registered name, "inception_v3".
        width: of the whole trunk, 0 < width <= 1.
        crop: the crops that it was trained on.
        fingerprints: fingerprint(k) for k = 0..B.
    """

    arch: str
    width: float
    crop: CropSpec
    fingerprints: tuple[str, ...]
    provenance: Provenance = field(default_factory=Provenance)
    exported: ExportedTrunk | None = None

    @property
    def blocks(self) -> int:
        """B, the number of blocks."""
        return len(self.fingerprints) - 1

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON types."""
        exported = self.exported
        return {
            "kind": "trunk",
            "version": DOCUMENT_VERSION,
            "arch": self.arch,
            "width": self.width,
            "crop": self.crop.to_dict(),
            "fingerprints": list(self.fingerprints),
            "provenance": self.provenance.to_dict(),
            "exported": None
            if exported is None
            else {"macs": list(exported.macs), "parameters": list(exported.parameters)},
        }

    def to_json(self) -> str:
        """The document as it stands in a file."""
        return dump_json(self.to_dict())

    @classmethod
    def from_dict(cls, value: Any, where: str) -> TrunkDocument:
        """The document in a file's JSON. Raises PlanCorrupt or PlanVersionError."""
        fields = start_document(value, where, "trunk")
        arch = fields.matching("arch", NAME)
        width = fields.number("width", 1e-3, 1.0)
        crop = CropSpec.from_dict(fields.raw("crop"), f"{where}.crop")
        fingerprints = fields.matchings("fingerprints", HEX64, count=(2, MAX_BLOCKS + 1))
        provenance = Provenance.from_dict(fields.raw("provenance"), f"{where}.provenance")
        exported = None
        if fields.has("exported"):
            inner, taps = Fields(fields.raw("exported"), f"{where}.exported"), len(fingerprints)
            exported = ExportedTrunk(
                inner.integers("macs", 0, MAX_COUNT, count=(taps, taps)),
                inner.integers("parameters", 0, MAX_COUNT, count=(taps, taps)),
            )
            inner.done()
        else:
            fields.null("exported")
        fields.done()
        return cls(arch, width, crop, fingerprints, provenance, exported)


@dataclass(frozen=True)
class BranchDocument:
    """What is known of a branch.

    Attributes:
        label: the question. classes: its answers, in the branch's own order, the positive class last.
        arch, trunk_width, crop: of the trunk that it was trained on.
        trunk_fingerprint: that trunk's fingerprint(tap).
        tap, until: its own blocks are tap..until-1; none when tap == until.
        pooling: registered name, "gap" or "bilinear". width: of its own blocks.
        thresholds: class -> probability from which the class is reported. Empty where none was set.
        temperature: calibration; probabilities are softmax(logits / temperature).
        metrics: name -> value on validation data. histogram: class -> counts of its score in 20 equal bins of [0, 1].
    """

    label: str
    classes: tuple[str, ...]
    arch: str
    trunk_width: float
    crop: CropSpec
    trunk_fingerprint: str
    tap: int
    until: int
    pooling: str
    width: float
    thresholds: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    histogram: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    exported: ExportedBranch | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON types."""
        return {
            "kind": "branch",
            "version": DOCUMENT_VERSION,
            "label": self.label,
            "classes": list(self.classes),
            "arch": self.arch,
            "trunk_width": self.trunk_width,
            "crop": self.crop.to_dict(),
            "trunk_fingerprint": self.trunk_fingerprint,
            "tap": self.tap,
            "until": self.until,
            "pooling": self.pooling,
            "width": self.width,
            "thresholds": dict(self.thresholds),
            "temperature": self.temperature,
            "metrics": dict(self.metrics),
            "histogram": {name: list(counts) for name, counts in self.histogram.items()},
            "provenance": self.provenance.to_dict(),
            "exported": None if self.exported is None else self.exported.to_dict(),
        }

    def to_json(self) -> str:
        """The document as it stands in a file."""
        return dump_json(self.to_dict())

    @classmethod
    def from_dict(cls, value: Any, where: str) -> BranchDocument:
        """The document in a file's JSON. Raises PlanCorrupt or PlanVersionError."""

        def counts(item: Any, at: str) -> tuple[int, ...]:
            return Fields({"counts": item}, at).integers("counts", 0, MAX_COUNT, count=(HISTOGRAM_BINS, HISTOGRAM_BINS))

        fields = start_document(value, where, "branch")
        label = fields.text("label")
        classes = fields.texts("classes", count=(2, MAX_CLASSES))
        until = fields.integer("until", 0, MAX_BLOCKS)
        document = cls(
            label=label,
            classes=classes,
            arch=fields.matching("arch", NAME),
            trunk_width=fields.number("trunk_width", 1e-3, 1.0),
            crop=CropSpec.from_dict(fields.raw("crop"), f"{where}.crop"),
            trunk_fingerprint=fields.matching("trunk_fingerprint", HEX64),
            tap=fields.integer("tap", 0, until),
            until=until,
            pooling=fields.matching("pooling", NAME),
            width=fields.number("width", 1e-3, 1.0),
            thresholds=fields.fractions("thresholds"),
            temperature=fields.number("temperature", 1e-3, 1e3),
            metrics=fields.mapping("metrics", any_number, count=(0, 256)),
            histogram=fields.mapping("histogram", counts, count=(0, MAX_CLASSES)),
            provenance=Provenance.from_dict(fields.raw("provenance"), f"{where}.provenance"),
            exported=ExportedBranch.from_dict(fields.raw("exported"), f"{where}.exported", len(classes))
            if fields.has("exported")
            else fields.null("exported"),
        )
        fields.done()
        check_classes(classes, where)
        for name in (*document.thresholds, *document.histogram):
            if name not in classes:
                raise PlanCorrupt(f"{where}: expected thresholds and histograms of its classes, found {name!r}")
        return document


def check_classes(classes: tuple[str, ...], where: str) -> None:
    """Refuse two classes of one label whose names differ in case only. Raises PlanCorrupt."""
    if len({name.casefold() for name in classes}) != len(classes):
        raise PlanCorrupt(f"{where}: expected classes with different names, found {list(classes)}")


def check_names(label: str, classes: tuple[str, ...]) -> None:
    """Refuse a label or class name that no file may hold. For callers' arguments: raises InputError."""
    try:
        for name in (label, *classes):
            check_text(name, "label and class names")
        check_classes(classes, f"label {label!r}")
    except PlanCorrupt as error:
        raise InputError(str(error)) from error
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise InputError(f"label {label!r}: expected 2 to {MAX_CLASSES} classes, found {len(classes)}")


def read_document(text: str | bytes, where: str) -> TrunkDocument | BranchDocument | SegmenterDocument:
    """The document of a checkpoint or part.

    Raises:
        PlanCorrupt: not strict JSON, or a field is missing, unknown, of another type or out of range.
        PlanVersionError: another schema version.
    """
    value = load_json(text, where)
    kind = value.get("kind")
    if kind == "trunk":
        return TrunkDocument.from_dict(value, where)
    if kind == "branch":
        return BranchDocument.from_dict(value, where)
    if kind == "segmenter":
        return SegmenterDocument.from_dict(value, where)
    raise PlanCorrupt(f"{where}.kind: expected 'trunk', 'branch' or 'segmenter', found {kind!r:.80}")
