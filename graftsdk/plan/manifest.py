"""The manifest of a plan: what it holds, as frozen dataclasses that are read from and written to strict JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graftsdk.errors import FingerprintMismatch, PlanCorrupt, PlanLimitError, PlanVersionError
from graftsdk.plan.cropspec import CropSpec
from graftsdk.plan.documents import (
    GOLDEN_COUNT,
    GOLDEN_SEED,
    HEX64,
    BranchDocument,
    Provenance,
    TrunkDocument,
)
from graftsdk.plan.lowered import Lowered, check_lowered, forms_of, read_lowered
from graftsdk.plan.strict_json import Fields, dump_json, load_json

__all__ = ["MAX_LABELS", "SCHEMA_VERSION", "BranchEntry", "Event", "Manifest", "PartInfo", "SegmenterInfo", "Tree"]

SCHEMA_VERSION = 1
MAX_LABELS = 256
MAX_TREES = 16
MAX_PARTS = 4096
MAX_TENSORS = 65536
MAX_EVENTS = 65536
PART = "[0-9a-f]{16}"
WHEN = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z"
ACTIONS = ("add", "replace", "remove", "revert", "merge")
ROLES = ("trunk", "branch", "segmenter")
FAMILIES = ("yolo", "yolact", "maskrcnn")
NMS = ("fast", "greedy")
FAST_FAMILIES = ("yolact",)  # whose `nms` is "fast" where a plan does not say; all others' is "greedy"
MAX_PERSONS = 1000  # in one image
DEFAULT_PERSONS = 300  # where a plan does not say: what YOLO's own tools keep


@dataclass(frozen=True)
class PartInfo:
    """One part: its role, full digest (64 hex digits), precision, and whose it is."""

    role: str
    digest: str
    precision: str = "float32"
    provenance: Provenance = field(default_factory=Provenance)

    def to_dict(self) -> dict[str, Any]:
        provenance = self.provenance.to_dict()
        return {"role": self.role, "digest": self.digest, "precision": self.precision, "provenance": provenance}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> PartInfo:
        fields = Fields(value, where)
        found = cls(
            fields.choice("role", ROLES),
            fields.matching("digest", HEX64),
            fields.choice("precision", ("float32", "int8")),
            Provenance.from_dict(fields.raw("provenance"), f"{where}.provenance"),
        )
        fields.done()
        return found


@dataclass(frozen=True)
class BranchEntry:
    """A branch in a tree: the name of its part, and its document."""

    part: str
    document: BranchDocument

    @property
    def label(self) -> str:
        """The question that it answers."""
        return self.document.label

    def to_dict(self) -> dict[str, Any]:
        return {"part": self.part, "document": self.document.to_dict()}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> BranchEntry:
        fields = Fields(value, where)
        part = fields.matching("part", PART)
        document = BranchDocument.from_dict(fields.raw("document"), f"{where}.document")
        fields.done()
        if document.exported is None:
            raise PlanCorrupt(f"{where}.document.exported: expected the record of an exported branch, found null")
        return cls(part, document)


@dataclass(frozen=True)
class Tree:
    """A trunk (the name of its part, and its document) with the branches grafted on it."""

    trunk: str
    document: TrunkDocument
    branches: tuple[BranchEntry, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "trunk": self.trunk,
            "document": self.document.to_dict(),
            "branches": [branch.to_dict() for branch in self.branches],
            "golden": {"seed": GOLDEN_SEED, "count": GOLDEN_COUNT},
        }

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Tree:
        fields = Fields(value, where)
        golden = Fields(fields.raw("golden"), f"{where}.golden")
        golden.integer("seed", GOLDEN_SEED, GOLDEN_SEED)
        golden.integer("count", GOLDEN_COUNT, GOLDEN_COUNT)
        golden.done()
        found = cls(
            fields.matching("trunk", PART),
            TrunkDocument.from_dict(fields.raw("document"), f"{where}.document"),
            fields.items(
                "branches", BranchEntry.from_dict, count=(0, MAX_TREES * MAX_LABELS)
            ),  # the labels of all trees are counted below
        )
        fields.done()
        if found.document.exported is None:
            raise PlanCorrupt(f"{where}.document.exported: expected the record of an exported trunk, found null")
        return found


@dataclass(frozen=True)
class SegmenterInfo:
    """The segmenter in front, and how its outputs are read.

    Attributes:
        part: name of its part. family: which adapter of graftsdk.segment reads it.
        input, input_size: the network's input and its (H, W). outputs: names, in the adapter's order.
        person_class: index of the class "person". score_threshold, iou_threshold: of the decoding.
        max_persons: at most so many in one image, those with the highest scores; 300 where an older plan lacks it.
        nms: "fast" or "greedy", how overlapping boxes are suppressed; "" stands for what a plan without it
            means: "fast" for yolact, "greedy" for the others.
        batched: whether the input has a batch axis: [n, 3, H, W], not [3, H, W].
    """

    part: str
    family: str
    input: str
    input_size: tuple[int, int]
    outputs: tuple[str, ...]
    person_class: int = 0
    score_threshold: float = 0.25
    iou_threshold: float = 0.7
    max_persons: int = DEFAULT_PERSONS
    nms: str = ""
    batched: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "nms", self.nms or _family_nms(self.family))

    def to_dict(self) -> dict[str, Any]:
        """As in a manifest; `nms` and `batched` stand there only where they are not what an older plan means."""
        fields: dict[str, Any] = {
            "part": self.part,
            "family": self.family,
            "input": self.input,
            "input_size": list(self.input_size),
            "outputs": list(self.outputs),
            "person_class": self.person_class,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_persons": self.max_persons,
        }
        if self.nms != _family_nms(self.family):
            fields["nms"] = self.nms
        if not self.batched:
            fields["batched"] = False
        return fields

    @classmethod
    def from_dict(cls, value: Any, where: str) -> SegmenterInfo:
        fields = Fields(value, where)
        size = fields.integers("input_size", 32, 8192, count=(2, 2))
        found = cls(
            fields.matching("part", PART),
            fields.choice("family", FAMILIES),
            fields.text("input"),
            (size[0], size[1]),
            fields.texts("outputs", count=(1, 16)),
            fields.integer("person_class", 0, 65535),
            fields.number("score_threshold", 0.0, 1.0),
            fields.number("iou_threshold", 0.0, 1.0),
            fields.integer("max_persons", 1, MAX_PERSONS) if "max_persons" in value else DEFAULT_PERSONS,
            fields.choice("nms", NMS) if "nms" in value else "",
            fields.boolean("batched") if "batched" in value else True,
        )
        fields.done()
        return found


@dataclass(frozen=True)
class Event:
    """One line of a plan's history.

    Attributes:
        action: "add", "replace", "remove", "revert" or "merge". label: the label that it changed.
        when: UTC, "2026-11-25T17:00:00Z".
        source: header digest of the plan that the change was made to, or came from ("merge"); "" for a new plan.
        trunk: part name of the tree concerned.
        before, after: the branch as it stood and as it stands since; None where there was or is none.
    """

    action: str
    label: str
    when: str
    source: str
    trunk: str
    before: BranchEntry | None = None
    after: BranchEntry | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "label": self.label,
            "when": self.when,
            "source": self.source,
            "trunk": self.trunk,
            "before": None if self.before is None else self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
        }

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Event:
        def entry(name: str) -> BranchEntry | None:
            if fields.has(name):
                return BranchEntry.from_dict(fields.raw(name), f"{where}.{name}")
            fields.null(name)
            return None

        fields = Fields(value, where)
        found = cls(
            fields.choice("action", ACTIONS),
            fields.text("label"),
            fields.matching("when", WHEN),
            fields.matching("source", f"({HEX64})?"),
            fields.matching("trunk", PART),
            entry("before"),
            entry("after"),
        )
        fields.done()
        return found


@dataclass(frozen=True)
class Manifest:
    """What a plan holds.

    Attributes:
        crop: the one crop specification of all its trees.
        trees: trunks with their branches; labels are unique over all of them.
        segmenter: the network in front, or None.
        parts: part name -> PartInfo, for every part in the file (those of taken-back labels too).
        tensors: tensor name -> SHA-256 of its bytes, for every tensor in the file.
        history: what was added, replaced or removed; append-only.
        lowered: precision -> part in float32 -> what came of it there; see `graftsdk.plan.lowered`.
    """

    crop: CropSpec
    trees: tuple[Tree, ...]
    segmenter: SegmenterInfo | None
    parts: Mapping[str, PartInfo]
    tensors: Mapping[str, str]
    history: tuple[Event, ...] = ()
    lowered: Mapping[str, Mapping[str, Lowered]] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, in the order of the trees and of their branches."""
        return tuple(branch.label for tree in self.trees for branch in tree.branches)

    def find(self, label: str) -> tuple[Tree, BranchEntry] | None:
        """The tree and the branch that answer `label`, or None."""
        for tree in self.trees:
            for branch in tree.branches:
                if branch.label == label:
                    return tree, branch
        return None

    def forms(self, precision: str) -> dict[str, str]:
        """How the parts are computed that are not in float32 at `precision`; see `graftsdk.plan.lowered.forms_of`."""
        return forms_of(self, precision)

    def to_json(self) -> str:
        """The manifest as it stands in a file; `lowered` stands there only where something was."""
        fields: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "crop": self.crop.to_dict(),
            "trees": [tree.to_dict() for tree in self.trees],
            "segmenter": None if self.segmenter is None else self.segmenter.to_dict(),
            "parts": {name: info.to_dict() for name, info in self.parts.items()},
            "tensors": dict(self.tensors),
            "history": [event.to_dict() for event in self.history],
        }
        if self.lowered:
            fields["lowered"] = {
                precision: {name: record.to_dict() for name, record in records.items()}
                for precision, records in self.lowered.items()
            }
        return dump_json(fields)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "manifest") -> Manifest:
        """The manifest in a file, checked field by field and as a whole.

        Raises:
            PlanCorrupt: not strict JSON, or fields that contradict each other.
            PlanVersionError: another schema version. PlanLimitError: too many labels.
            FingerprintMismatch: a branch on a trunk that it was not trained on.
        """
        value = load_json(text, where)
        version = value.get("schema")
        if isinstance(version, int) and not isinstance(version, bool) and version != SCHEMA_VERSION:
            raise PlanVersionError(
                f"{where}: expected plan schema {SCHEMA_VERSION}, found {version}; "
                f"install the graftsdk that wrote it, or export the plan again"
            )
        fields = Fields(value, where)
        fields.integer("schema", SCHEMA_VERSION, SCHEMA_VERSION)
        crop = CropSpec.from_dict(fields.raw("crop"), f"{where}.crop")
        trees = fields.items("trees", Tree.from_dict, count=(1, MAX_TREES))
        segmenter = None
        if fields.has("segmenter"):
            segmenter = SegmenterInfo.from_dict(fields.raw("segmenter"), f"{where}.segmenter")
        else:
            fields.null("segmenter")
        manifest = cls(
            crop,
            trees,
            segmenter,
            fields.mapping("parts", PartInfo.from_dict, count=(1, MAX_PARTS)),
            fields.mapping("tensors", _digest, count=(1, MAX_TENSORS)),
            fields.items("history", Event.from_dict, count=(0, MAX_EVENTS)),
            read_lowered(fields.raw("lowered"), f"{where}.lowered") if "lowered" in value else {},
        )
        fields.done()
        check_manifest(manifest, where)
        return manifest


def check_manifest(manifest: Manifest, where: str = "manifest") -> None:
    """Prove that the manifest does not contradict itself. Raises as `Manifest.from_json`."""
    labels = manifest.labels
    if len(labels) > MAX_LABELS:
        raise PlanLimitError(f"{where}: expected at most {MAX_LABELS} labels, found {len(labels)}")
    folded: dict[str, str] = {}
    for label in labels:
        other = folded.setdefault(label.casefold(), label)
        if other is not label:
            raise PlanCorrupt(f"{where}: expected labels with different names, found {other!r} and {label!r}")
    for name, info in manifest.parts.items():
        if re.fullmatch(PART, name) is None or not info.digest.startswith(name):
            raise PlanCorrupt(f"{where}.parts: expected the first 16 digits of {info.digest}, found {name!r}")
        if name not in manifest.tensors:
            raise PlanCorrupt(f"{where}.tensors: the graph of part {name} is missing")
    for tensor in manifest.tensors:
        if tensor.split("/", 1)[0] not in manifest.parts:
            raise PlanCorrupt(f"{where}.tensors: {tensor!r} belongs to no part of this plan")
    for tree in manifest.trees:
        _check_tree(manifest, tree, where)
    if manifest.segmenter is not None:
        _check_part(manifest, manifest.segmenter.part, "segmenter", where)
    check_lowered(manifest, where)
    for event in manifest.history:
        for entry in (event.before, event.after):
            if entry is None:
                continue
            _check_part(manifest, entry.part, "branch", f"{where}.history")
            if entry.label != event.label:
                raise PlanCorrupt(f"{where}.history: expected branches of {event.label!r}, found {entry.label!r}")


def check_branch_fits(tree: Tree, document: BranchDocument, where: str) -> None:
    """Prove that a branch was trained on this tree's trunk.

    Raises:
        FingerprintMismatch: it was trained on another trunk, or on other crops.
    """
    trunk, tap = tree.document, document.tap
    if document.until > trunk.blocks:
        raise PlanCorrupt(f"{where}: expected until <= {trunk.blocks}, the trunk's blocks, found {document.until}")
    if trunk.fingerprints[tap] != document.trunk_fingerprint:
        raise FingerprintMismatch(
            f"{where}: label {document.label!r} wants a {document.arch} trunk whose fingerprint({tap}) is "
            f"{document.trunk_fingerprint[:16]}…, found {trunk.fingerprints[tap][:16]}…; graft it on the trunk it was "
            f"trained on (graftsdk-export --trunk THAT_TRUNK --branches … -o other.plan; graftsdk plan merge puts both "
            f"trees into one plan), or train it again on this trunk"
        )
    if (document.arch, document.trunk_width, document.crop) != (trunk.arch, trunk.width, trunk.crop):
        raise PlanCorrupt(f"{where}: label {document.label!r} states another backbone or crop than its own fingerprint")


def _family_nms(family: str) -> str:
    return "fast" if family in FAST_FAMILIES else "greedy"


def _check_tree(manifest: Manifest, tree: Tree, where: str) -> None:
    _check_part(manifest, tree.trunk, "trunk", where)
    if tree.document.crop != manifest.crop:
        raise PlanCorrupt(f"{where}: expected one crop specification for all trees, found another in {tree.trunk}")
    for branch in tree.branches:
        _check_part(manifest, branch.part, "branch", where)
        check_branch_fits(tree, branch.document, where)


def _check_part(manifest: Manifest, name: str, role: str, where: str) -> None:
    info = manifest.parts.get(name)
    if info is None:
        raise PlanCorrupt(f"{where}: part {name} is missing")
    if info.role != role or info.precision != "float32":
        raise PlanCorrupt(
            f"{where}: expected part {name} to be a {role} in float32, found a {info.role} in {info.precision}"
        )


def _digest(value: Any, where: str) -> str:
    return Fields({"sha256": value}, where).matching("sha256", HEX64)
