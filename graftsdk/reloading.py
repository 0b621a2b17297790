"""What a new plan answers, before it serves: as the old one did, and as was stored when it was exported?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.engines.golden import GoldenChange, check_golden, log_golden
from graftsdk.errors import GraftError
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
            many of them a decision is another one, by each plan's own thresholds. Infinite, and all of them, where
            the classes are other ones, or the old plan gave no probabilities.
        golden: of each label, the same between the new plan's answers and those stored in it when it was exported.
        seconds: from the call to the swap.
    """

    old: str
    new: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changes: tuple[GoldenChange, ...]
    golden: tuple[GoldenChange, ...]
    seconds: float

    @property
    def largest(self) -> float:
        """Of all `changes`; 0 where every label that stays answers bit for bit as before."""
        return max((change.largest for change in self.changes), default=0.0)

    @property
    def flips(self) -> dict[str, int]:
        """Label -> golden crops on which its decision is another one; those without any are left out."""
        return {change.label: change.flips for change in self.changes if change.flips}


def compare(old: Loaded, new: Loaded) -> tuple[tuple[GoldenChange, ...], tuple[GoldenChange, ...]]:
    """Run the golden crops through both: `Reload.changes` and `Reload.golden`; the log tells of the second.

    A plan whose crops are made otherwise gets its own. Of the old plan only what stays is run, and that it fails is
    no reason to keep it.

    Raises:
        NonFiniteOutput, PlanCorrupt: the new plan gives something else than probabilities. EngineError: it failed.
    """
    crops = golden_crops(new.plan.manifest.crop)
    found = new.run(crops)  # all labels: those that are new as well have to work
    golden = new.golden
    if not golden:  # of TensorRT's engines it is known, and told, since they were opened
        golden = check_golden(lambda *_: found, new.plan.manifest, crops, decisions, new.labels)
        log_golden(golden)
    shared = [label for label in new.labels if label in old.labels]
    same = [label for label in shared if new.documents[label].classes == old.documents[label].classes]
    before = _answers(old, golden_crops(old.plan.manifest.crop), same)
    changes = []
    for label in shared:
        scores, classes = found[label], new.documents[label].classes
        if label not in before:  # another question under the same name, or no answer
            changes.append(GoldenChange(label, float("inf"), len(scores)))
            continue
        flips = sum(
            decisions(classes, one, new.thresholds[label]) != decisions(classes, other, old.thresholds[label])
            for one, other in zip(scores, before[label], strict=True)
        )
        changes.append(GoldenChange(label, float(np.abs(scores - before[label]).max(initial=0.0)), flips))
    return tuple(changes), golden


def _answers(
    loaded: Loaded, crops: npt.NDArray[np.float32], labels: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Label -> scores of those labels that work."""
    if not labels:
        return {}
    try:
        return loaded.run(crops, labels)
    except GraftError:
        alone = [] if len(labels) == 1 else labels  # one branch can fail a run of all
        return {label: scores for one in alone for label, scores in _answers(loaded, crops, [one]).items()}
