"""The golden scores stored in a plan, against what an engine gives: has it the numbers that were exported?

A GPU engine computes by other kernels than ONNX Runtime, and `merged` engines move with every label that is built in.
The crops come from `graftsdk.preprocess.golden_crops`, decisions from `graftsdk.attribute`, which stand above this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.plan import Manifest
from graftsdk.text import listed

__all__ = ["GoldenChange", "check_golden", "log_golden"]

_log = logging.getLogger("graftsdk")

Run = Callable[[npt.NDArray[np.float32], Sequence[str]], Mapping[str, npt.NDArray[Any]]]
Decide = Callable[[Sequence[str], Sequence[float], Mapping[str, float]], Any]


@dataclass(frozen=True)
class GoldenChange:
    """How far one label's scores on the golden crops are from those stored in the plan.

    Attributes:
        label: whose. largest: the greatest difference of a probability; infinite where a score is not finite or the
            shape differs. flips: golden crops on which a decision is another one.
    """

    label: str
    largest: float
    flips: int


def check_golden(
    run: Run, manifest: Manifest, crops: npt.NDArray[np.float32], decide: Decide, labels: Sequence[str] | None = None
) -> tuple[GoldenChange, ...]:
    """Run the golden crops, and compare with the scores that were stored when each branch was exported.

    Args:
        run: crops and labels -> label -> scores, float32[N, C].
        manifest: the plan's.
        crops: `golden_crops(manifest.crop)`.
        decide: classes, scores of one row, thresholds -> what is decided, as `graftsdk.attribute.decisions`.
        labels: those to look at; None for all.

    Raises:
        InputError: a label that the plan has not. EngineError: the engine failed.
    """
    stored = {
        entry.label: entry.document
        for tree in manifest.trees
        for entry in tree.branches
        if entry.document.exported is not None
    }
    chosen = tuple(stored) if labels is None else tuple(labels)
    unknown = [label for label in chosen if label not in stored]
    if unknown:
        raise InputError(f"labels: expected some of {listed(stored)}, found {listed(unknown)}")
    found, changes = run(crops, chosen), []
    for label in chosen:
        document = stored[label]
        assert document.exported is not None  # looked at above
        scores, wanted = found[label], np.asarray(document.exported.scores, np.float64)
        if scores.shape != wanted.shape or not np.isfinite(scores).all():
            changes.append(GoldenChange(label, float("inf"), len(wanted)))
            continue
        flips = sum(
            decide(document.classes, one, document.thresholds) != decide(document.classes, other, document.thresholds)
            for one, other in zip(scores, wanted, strict=True)
        )
        changes.append(GoldenChange(label, float(np.abs(scores - wanted).max(initial=0.0)), flips))
    return tuple(changes)


def log_golden(changes: Sequence[GoldenChange]) -> None:
    """One line in the log: the largest change of all labels, as a warning with the labels whose decisions flip."""
    flipped = [f"{change.label} ({change.flips})" for change in changes if change.flips]
    largest = max((change.largest for change in changes), default=0.0)
    if flipped:
        _log.warning(
            "golden crops: scores differ from the plan's by up to %.1e, decisions flip for %s; look at these labels "
            "with graftsdk evaluate before they serve",
            largest,
            listed(flipped),
        )
    else:
        _log.info("golden crops: scores differ from the plan's by up to %.1e, no decision flips", largest)
