"""What a new plan changes in the answers of the labels that it shares with the old one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graftsdk.engines.golden import GoldenChange
from graftsdk.loaded import Loaded
from graftsdk.prediction import decisions
from graftsdk.preprocess import golden_crops

__all__ = ["Reload", "compare"]


@dataclass(frozen=True)
class Reload:
    """One swap of a predictor's plan.

    Attributes:
        old, new: digests of the plans.
        added, removed: labels.
        changes: of each label that both have, the largest difference of a probability on the golden crops, and on how
            many of them a decision is another one, by each plan's own thresholds.
        seconds: from the call to the swap.
    """

    old: str
    new: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changes: tuple[GoldenChange, ...]
    seconds: float

    @property
    def largest(self) -> float:
        """Of all changes; 0 where every label that stays answers bit for bit as before."""
        return max((change.largest for change in self.changes), default=0.0)

    @property
    def flips(self) -> dict[str, int]:
        """Label -> golden crops on which its decision is another one; those without any are left out."""
        return {change.label: change.flips for change in self.changes if change.flips}


def compare(old: Loaded, new: Loaded) -> tuple[GoldenChange, ...]:
    """Run the golden crops through both. A plan whose crops are made otherwise gets its own.

    Raises:
        NonFiniteOutput, PlanCorrupt: one of them gives something else than probabilities. EngineError: it failed.
    """
    found = new.run(golden_crops(new.plan.manifest.crop))  # all labels: those that are new as well have to work
    before = old.run(golden_crops(old.plan.manifest.crop))
    changes = []
    for label, scores in found.items():
        if label not in before:
            continue
        classes, known = new.documents[label].classes, before[label]
        if classes != old.documents[label].classes:  # another question under the same name
            changes.append(GoldenChange(label, float("inf"), len(scores)))
            continue
        flips = sum(
            decisions(classes, one, new.thresholds[label]) != decisions(classes, other, old.thresholds[label])
            for one, other in zip(scores, known, strict=True)
        )
        changes.append(GoldenChange(label, float(np.abs(scores - known).max(initial=0.0)), flips))
    return tuple(changes)
