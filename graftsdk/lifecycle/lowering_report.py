"""What lowering a plan's parts did to its labels: figures against float32, verdicts, and how they are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.plan.lowered import Lowered
from graftsdk.prediction import decisions

__all__ = ["FLIPS", "MEAN", "Figures", "LabelLowering", "LoweringReport", "TrunkLowering", "figures_of", "worst"]

# Without annotated images there is no AUC, and these, times the tolerance, are what stands for it. Measured on PETA
# (resnet18 of width 0.25, 16 labels, 1984 test crops) over six ways of finding the ranges: wherever decisions flipped
# on less than 4% of the crops and probabilities moved by less than 0.01 on average, a label of more than 20 positives
# kept its AUC within 0.005; ways that flipped 5 to 12% moved it by up to 0.02.
FLIPS = 8.0
MEAN = 2.0

_Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Figures:
    """One label in one way against the same in float32.

    Attributes:
        samples: crops compared. largest, mean: difference of a probability, 0..1. flips: crops with another decision.
        auc, auc_float32: of the class whose AUC changed most; None without annotated images of both kinds.
        finite: whether every score is a number; the others then stand for the worst there is.
    """

    samples: int
    largest: float
    mean: float
    flips: int
    auc: float | None = None
    auc_float32: float | None = None
    finite: bool = True

    @property
    def auc_change(self) -> float | None:
        """AUC minus AUC in float32."""
        return None if self.auc is None or self.auc_float32 is None else self.auc - self.auc_float32

    def passes(self, tolerance: float) -> bool:
        """Whether AUC changed by at most `tolerance`; without an AUC, whether flips and mean say as much."""
        if not self.finite:
            return False
        if (change := self.auc_change) is not None:
            return abs(change) <= tolerance
        return self.flips <= FLIPS * tolerance * self.samples and self.mean <= MEAN * tolerance

    def told(self) -> str:
        """What it is judged by, in words."""
        if not self.finite:
            return "not finite"
        if (change := self.auc_change) is not None:
            return f"AUC {change:+.4f}"
        return f"{self.flips} flips of {self.samples}, mean {self.mean:.4f}"

    def record(self, part: str, passed: bool, tolerance: float) -> Lowered:
        """As a plan keeps it."""
        return Lowered(
            part, passed, self.samples, self.largest, self.mean, self.flips, self.auc_change, min(tolerance, 1.0)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "auc_change": self.auc_change}


@dataclass(frozen=True)
class TrunkLowering:
    """A trunk: whether it is lowered, and what it alone does to all labels on it, each with its branch in float32.

    Attributes:
        part: in float32. lowered: whether it is computed in the precision.
        reused: whether that was settled before, with labels that must not move now.
        figures: the worst of each; None where it was settled before.
        blocking: the labels that did not pass, for whose sake it stays in float32.
    """

    part: str
    lowered: bool
    reused: bool
    figures: Figures | None
    blocking: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelLowering:
    """A label: how its branch is computed, and how far it is from float32.

    Attributes:
        label, part: in float32. tap: that its branch reads.
        lowered: whether its branch is computed in the precision.
        trunk: its branch in float32 on the trunk as it is now; None where that is in float32 too.
        branch: its branch lowered, on the trunk as it is now; None where there is nothing to lower.
        passed: whether the label as it is now computed is within its tolerance.
        left: why its branch was not tried, where `branch` is None.
    """

    label: str
    part: str
    tap: int
    lowered: bool
    trunk: Figures | None
    branch: Figures | None
    passed: bool
    left: str = ""

    @property
    def now(self) -> Figures | None:
        """The label as it is computed; None where all of it stays in float32."""
        return self.branch if self.lowered else self.trunk

    @property
    def verdict(self) -> str:
        """In words."""
        if self.lowered:
            return "ok"
        moved = "" if self.passed else ", MOVED by the trunk"
        if self.branch is None:
            return f"{self.left}{moved}"
        return f"stays in float32: {self.branch.told()} lowered{moved}"


@dataclass(frozen=True)
class LoweringReport:
    """What `lower_plan` did.

    Attributes:
        path: the plan that was written. precision: "int8", "fp16" or "bf16". method: of finding ranges; "" for floats.
        tolerance: of AUC, see `Figures.passes`.
        calibrated: crops that ranges were found on. compared: other crops, that the figures are of, of which
            `annotated` have a class for some label.
        trunks, labels: what came of each. seconds: how long it took.
    """

    path: Path
    precision: str
    method: str
    tolerance: float
    calibrated: int
    compared: int
    annotated: int
    trunks: tuple[TrunkLowering, ...]
    labels: tuple[LabelLowering, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every label is within its tolerance as it is now computed."""
        return all(row.passed for row in self.labels)

    def rows(self) -> list[list[str]]:
        """A heading and a row for each label."""
        found = [["label", "tap", "branch", "largest", "mean", "flips", "AUC float32", "AUC", "change", "result"]]
        for row in self.labels:
            form = self.precision if row.lowered else "float32"
            shown = row.now or row.branch
            found.append([row.label, str(row.tap), form, *_cells(shown), row.verdict])
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""

        def told(row: TrunkLowering | LabelLowering) -> dict[str, Any]:
            plain = {**asdict(row)}
            for name in ("figures", "trunk", "branch"):
                if isinstance(value := getattr(row, name, None), Figures):
                    plain[name] = value.to_dict()
            return plain

        return {
            **{name: getattr(self, name) for name in ("precision", "method", "tolerance", "ok")},
            **{name: getattr(self, name) for name in ("calibrated", "compared", "annotated")},
            "path": str(self.path),
            "trunks": [told(row) for row in self.trunks],
            "labels": [{**told(row), "verdict": row.verdict} for row in self.labels],
            "seconds": round(self.seconds, 3),
        }


def figures_of(
    classes: Sequence[str],
    thresholds: Mapping[str, float],
    found: _Scores,
    wanted: _Scores,
    targets: Mapping[int, int],
) -> Figures:
    """One label's scores against those in float32.

    Args:
        classes, thresholds: the label's. found, wanted: float[N, C]. targets: row -> index of the right class, of the
            rows that somebody annotated.
    """
    if not np.isfinite(found).all():
        return Figures(len(found), 1.0, 1.0, len(found), finite=False)
    difference = np.abs(found.astype(np.float64) - wanted)
    flips = sum(
        decisions(classes, one, thresholds) != decisions(classes, other, thresholds)
        for one, other in zip(found, wanted, strict=True)
    )
    after, before = _auc(len(classes), found, wanted, targets)
    return Figures(
        len(found), min(float(difference.max()), 1.0), min(float(difference.mean()), 1.0), flips, after, before
    )


def worst(figures: Iterable[Figures]) -> Figures:
    """The worst of each. Requires: at least one."""
    every = list(figures)
    changed = [each for each in every if each.auc_change is not None]
    most = max(changed, key=lambda each: abs(each.auc_change or 0.0), default=None)
    return Figures(
        max(each.samples for each in every),
        max(each.largest for each in every),
        max(each.mean for each in every),
        max(each.flips for each in every),
        None if most is None else most.auc,
        None if most is None else most.auc_float32,
        all(each.finite for each in every),
    )


def _auc(
    classes: int, found: _Scores, wanted: _Scores, targets: Mapping[int, int]
) -> tuple[float, float] | tuple[None, None]:
    """AUC now and in float32, of the class where the two differ most; of two classes the last."""
    if not targets:
        return None, None
    from graftsdk.training.evaluation.ranking import auc

    rows, truth = np.array(list(targets)), np.array(list(targets.values()))
    pairs = [
        (auc(truth == index, found[rows, index]), auc(truth == index, wanted[rows, index]))
        for index in (range(classes) if classes > 2 else (1,))
    ]
    known = [(now, then) for now, then in pairs if now == now]  # NaN: no such image, or no other
    return max(known, key=lambda pair: abs(pair[0] - pair[1]), default=(None, None))


def _cells(figures: Figures | None) -> list[str]:
    if figures is None:
        return ["", "", "", "", "", ""]
    share = 100.0 * figures.flips / figures.samples if figures.samples else 0.0
    told = [f"{figures.largest:.4f}", f"{figures.mean:.5f}", f"{figures.flips} ({share:.1f}%)"]
    if figures.auc_change is None:
        return [*told, "", "", ""]
    return [*told, f"{figures.auc_float32:.4f}", f"{figures.auc:.4f}", f"{figures.auc_change:+.4f}"]
