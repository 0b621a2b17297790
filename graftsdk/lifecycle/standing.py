"""How labels and trunk of a registry stand: what is trained, on which trunk and data, and what lies in the plan.

Everything follows from the documents of checkpoints and plan and from the digests of the sub-datasets; there is no
other record that could contradict them, and no weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from graftsdk.errors import GraftError, PlanCorrupt
from graftsdk.lifecycle.inspection import checkpoint_document
from graftsdk.lifecycle.registry import LabelEntry, Registry
from graftsdk.plan import BranchDocument, Manifest, TrunkDocument, open_plan
from graftsdk.training.labels import LabelSet, open_label

__all__ = [
    "LabelStanding",
    "Standing",
    "TrunkStanding",
    "branch_document",
    "is_on",
    "keeps",
    "plan_manifest",
    "stand",
    "trunk_document",
    "validation_auc",
]

NEW_LABELS = 5  # "the trunk is trained once after 5-7 new labels are accumulated" (paper 3.5)

State = Literal["broken", "untrained", "stale", "kept", "current"]


@dataclass(frozen=True)
class TrunkStanding:
    """How the trunk stands.

    Attributes:
        fingerprint: of the whole trunk, or None where there is no checkpoint.
        differing: of "arch", "width" and "size", what the registry wants otherwise.
        new: labels whose sub-dataset, as it is now, it has not seen.
    """

    fingerprint: str | None
    differing: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def due(self) -> bool:
        """Whether it should be trained: there is none, another is wanted, or enough labels are new (paper 3.5)."""
        return self.fingerprint is None or bool(self.differing) or len(self.new) >= NEW_LABELS


@dataclass(frozen=True)
class LabelStanding:
    """How a label stands.

    Attributes:
        label: its name.
        state: "broken" (see `problem`); "untrained"; "stale"; "kept": on a former trunk, for the AUC fell too far on
            this one; "current".
        stale: what its branch differs in from what is wanted: "data", "classes", "trunk", "tap", "until", "width",
            "pooling".
        problem: why sub-dataset or checkpoint cannot be used, or "".
        trunk: fingerprint at its tap of the trunk that its branch was trained on, or None.
        auc: of its branch on validation data, of more than two classes their mean; or None.
        tried: the same of a branch that was trained as wanted and has not taken its place, or None.
        plan: "yes"; "older": the plan has another branch of it; "no".
    """

    label: str
    state: State
    stale: tuple[str, ...]
    problem: str
    trunk: str | None
    auc: float | None
    tried: float | None
    plan: Literal["yes", "older", "no"]


@dataclass(frozen=True)
class Standing:
    """How a registry stands. unregistered: labels of the plan that have no sub-dataset beside the file."""

    trunk: TrunkStanding
    labels: tuple[LabelStanding, ...]
    unregistered: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        labels = [{**asdict(one), "stale": list(one.stale)} for one in self.labels]
        trunk = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.trunk).items()}
        return {"trunk": {**trunk, "due": self.trunk.due}, "labels": labels, "unregistered": list(self.unregistered)}


def stand(registry: Registry) -> Standing:
    """How it stands now.

    Raises:
        PlanError: trunk or plan cannot be read. What is wrong with one label stands with that label.
    """
    trunk = trunk_document(registry.trunk) if registry.trunk.exists() else None
    manifest = plan_manifest(registry.plan)
    labels, new = [], []
    for label, entry in registry.labels.items():
        try:
            data = open_label(registry.root, label)
            labels.append(_label(registry, entry, data, trunk, manifest))
            if trunk is None or data.digest not in trunk.provenance.data:
                new.append(label)
        except GraftError as error:
            labels.append(LabelStanding(label, "broken", (), str(error), None, None, None, "no"))
    strangers = () if manifest is None else tuple(one for one in manifest.labels if one not in registry.labels)
    is_now = {} if trunk is None else {"arch": trunk.arch, "width": trunk.width, "size": list(trunk.crop.size)}
    differing = tuple(name for name in is_now if registry.network.get(name, is_now[name]) != is_now[name])
    fingerprint = None if trunk is None else trunk.fingerprints[-1]
    return Standing(TrunkStanding(fingerprint, differing, tuple(new)), tuple(labels), strangers)


def _label(
    registry: Registry, entry: LabelEntry, data: LabelSet, trunk: TrunkDocument | None, manifest: Manifest | None
) -> LabelStanding:
    label = data.label
    branch = branch_document(registry.branch(label), label)
    tried = branch_document(registry.tried(label), label)
    if tried is not None and differences(tried, entry, data, trunk):
        tried = None
    stale = () if branch is None else differences(branch, entry, data, trunk)
    state: State = "untrained" if branch is None else "stale" if stale else "current"
    if branch is not None and tried is not None and trunk is not None and keeps(branch, tried, trunk, entry.tolerance):
        state = "kept"
    found = None if manifest is None else manifest.find(label)
    same = found is not None and replace(found[1].document, exported=None) == branch
    return LabelStanding(
        label,
        state,
        stale,
        "",
        None if branch is None else branch.trunk_fingerprint,
        None if branch is None else validation_auc(branch),
        None if tried is None else validation_auc(tried),
        "yes" if same else "no" if found is None else "older",
    )


def differences(
    branch: BranchDocument, entry: LabelEntry, data: LabelSet, trunk: TrunkDocument | None
) -> tuple[str, ...]:
    """What a branch differs in from what is wanted; of its options those that a checkpoint tells."""
    options = entry.options
    ends = options.until if options.until is not None else None if trunk is None else trunk.blocks
    same = {
        "data": data.digest in branch.provenance.data,
        "classes": data.classes == branch.classes,
        "trunk": trunk is not None and is_on(branch, trunk),
        "tap": options.tap in ("auto", branch.tap),
        "until": ends in (None, branch.until),
        "width": options.width in ("auto", branch.width) or branch.tap == branch.until,  # no own blocks, no width
        "pooling": options.pooling == branch.pooling,
    }
    return tuple(name for name, value in same.items() if not value)


def is_on(branch: BranchDocument, trunk: TrunkDocument) -> bool:
    """Whether a branch was trained on this trunk, or on one with the same blocks before its tap."""
    return branch.tap <= trunk.blocks and branch.trunk_fingerprint == trunk.fingerprints[branch.tap]


def keeps(old: BranchDocument, tried: BranchDocument, trunk: TrunkDocument, tolerance: float) -> bool:
    """Whether a label keeps its branch on a former trunk: on this one, by the same data, its AUC fell too far.

    Of more than two classes, that of one of them. Crops of another specification cannot share a plan, and figures on
    other data cannot be compared: the new branch is taken then.
    """
    alike = (old.crop, old.classes, old.provenance.data) == (tried.crop, tried.classes, tried.provenance.data)
    if is_on(old, trunk) or not alike:
        return False
    before, after = _aucs(old), _aucs(tried)
    return any(before[name] - after[name] > tolerance for name in before.keys() & after.keys())


def validation_auc(branch: BranchDocument) -> float | None:
    """Of more than two classes the mean."""
    found = _aucs(branch)
    return sum(found.values()) / len(found) if found else None


def _aucs(branch: BranchDocument) -> Mapping[str, float]:
    names = ("auc",) if len(branch.classes) == 2 else tuple(f"{name}.auc" for name in branch.classes)
    return {name: branch.metrics[name] for name in names if name in branch.metrics}


def trunk_document(path: Path) -> TrunkDocument:
    """Of a trunk's checkpoint. Raises PlanError: it cannot be read, or is no trunk."""
    document = checkpoint_document(path)
    if not isinstance(document, TrunkDocument):
        raise PlanCorrupt(f"{path}: expected a trunk's checkpoint, found another one; move it away")
    return document


def branch_document(path: Path, label: str) -> BranchDocument | None:
    """Of the label's branch, None where there is no file. Raises PlanError: it cannot be read, or is another's."""
    if not path.exists():
        return None
    document = checkpoint_document(path)
    if not isinstance(document, BranchDocument) or document.label != label:
        raise PlanCorrupt(f"{path}: expected the branch {label!r}, found another checkpoint; move it away")
    return document


def plan_manifest(path: Path) -> Manifest | None:
    """None where there is no file. Raises PlanError: it cannot be read, or is no plan."""
    if not path.exists():
        return None
    with open_plan(path) as plan:
        return plan.manifest
