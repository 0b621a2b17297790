"""What a branch's training came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graftsdk.training.branch.search import Tried

__all__ = ["BranchReport"]


@dataclass(frozen=True)
class BranchReport:
    """What came out.

    Attributes:
        path: of the checkpoint.
        label, classes, tap, until, pooling, width: of the branch.
        macs, parameters: of its own blocks, pooling and classifier.
        metrics: as they stand in the checkpoint: "auc", "precision" ... on validation, "test.auc" ... on test data.
        thresholds, temperature: the same. rule: that the thresholds follow.
        tried: all branches that were trained, by cost.
        curve: loss and validation AUC of each epoch of the one that was kept.
        cache: the folder with crops and features.
        seconds: "features" (decoding, trunk, disk) and "training", all candidates.
    """

    path: Path
    label: str
    classes: tuple[str, ...]
    tap: int
    until: int
    pooling: str
    width: float
    macs: int
    parameters: int
    metrics: Mapping[str, float]
    thresholds: Mapping[str, float]
    temperature: float
    rule: str
    tried: tuple[Tried, ...]
    curve: tuple[Mapping[str, float], ...]
    cache: Path
    seconds: Mapping[str, float]
