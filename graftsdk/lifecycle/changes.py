"""What a change did to a plan, and the proof of what it did not touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftsdk.plan import BranchEntry, Manifest

__all__ = ["LabelChange", "PlanChange", "compare_manifests"]


@dataclass(frozen=True)
class LabelChange:
    """One label before and after: "added", "replaced", "removed", or "described" where only its document differs."""

    label: str
    action: str
    before: BranchEntry | None
    after: BranchEntry | None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "label": self.label,
            "action": self.action,
            "before": None if self.before is None else self.before.part,
            "after": None if self.after is None else self.after.part,
        }


@dataclass(frozen=True)
class PlanChange:
    """What differs between two states of a plan.

    Attributes:
        changes: labels that differ, in the order of the plan after the change, removed ones last.
        kept: labels whose branch is the same part on the same trunk: their scores in float32 cannot have moved.
        otherwise: precision -> those of `kept` that are computed otherwise in it: trunk or branch is lowered now, or
            not any more, or is another INT8 part.
        tensors_kept: tensors that are in both with the same SHA-256.
        tensors_altered: tensors whose bytes differ under one name; a sound change has none.
        tensors_new: tensors that came.
    """

    changes: tuple[LabelChange, ...]
    kept: tuple[str, ...]
    otherwise: Mapping[str, tuple[str, ...]]
    tensors_kept: int
    tensors_altered: int
    tensors_new: int

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "changes": [change.to_dict() for change in self.changes],
            "kept": list(self.kept),
            "otherwise": {precision: list(labels) for precision, labels in self.otherwise.items()},
            "tensors": {"kept": self.tensors_kept, "altered": self.tensors_altered, "new": self.tensors_new},
        }


def compare_manifests(before: Manifest, after: Manifest) -> PlanChange:
    """What changed between two manifests, label by label and tensor by tensor."""
    changes, kept = [], []
    for label in dict.fromkeys((*after.labels, *before.labels)):
        old, new = before.find(label), after.find(label)
        same_part = old is not None and new is not None and (old[0].trunk, old[1].part) == (new[0].trunk, new[1].part)
        if same_part:
            kept.append(label)
        if old is None or new is None or not same_part or old[1] != new[1]:
            action = "added" if old is None else "removed" if new is None else "described" if same_part else "replaced"
            changes.append(LabelChange(label, action, old and old[1], new and new[1]))
    common = before.tensors.keys() & after.tensors.keys()
    altered = sum(before.tensors[name] != after.tensors[name] for name in common)
    fresh = len(after.tensors.keys() - before.tensors.keys())
    otherwise = _otherwise(before, after, kept)
    return PlanChange(tuple(changes), tuple(kept), otherwise, len(common) - altered, altered, fresh)


def _otherwise(before: Manifest, after: Manifest, kept: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for precision in sorted({*before.lowered, *after.lowered}):
        old, new = before.forms(precision), after.forms(precision)
        moved = []
        for label in kept:
            home = after.find(label)
            assert home is not None  # it is in both
            if any(old.get(part) != new.get(part) for part in (home[0].trunk, home[1].part)):
                moved.append(label)
        if moved:
            found[precision] = tuple(moved)
    return found
