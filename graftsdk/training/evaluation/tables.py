"""Table 2 of the paper with more to it: a row for each label, with intervals over identities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graftsdk.training.evaluation.calibration import brier, calibration_error
from graftsdk.training.evaluation.checks import Bools, Integers, checked_identities
from graftsdk.training.evaluation.counts import Counts, count_draws
from graftsdk.training.evaluation.judged import Judged, thresholds_of
from graftsdk.training.evaluation.ranking import auc, average_precision, enough_identities, ranking_draws
from graftsdk.training.evaluation.resampling import DRAWS, interval

__all__ = ["LabelRow", "Summary", "camera_rows", "label_rows", "summary"]


_BOUNDED = ("accuracy", "precision", "recall", "fpr", "f1")


@dataclass(frozen=True)
class LabelRow:
    """Figures of one class against the rest. What is undefined (0/0, one class only, no threshold) is NaN.

    Attributes:
        label, name: the question and the class. camera: "" where the row is of all cameras.
        threshold: the class holds where score >= threshold; NaN: it has none, and `counts` is None.
        images, positives, identities: support.
        counts: decisions at the threshold. bounds: name of a figure of theirs -> its 95% interval over identities.
        auc, ap: with `_low` and `_high`, the 95% interval over identities.
        ece, brier: calibration.
    """

    label: str
    name: str
    camera: str
    threshold: float
    images: int
    positives: int
    identities: int
    counts: Counts | None
    auc: float
    auc_low: float
    auc_high: float
    ap: float
    ap_low: float
    ap_high: float
    ece: float
    brier: float
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Every number of the row by its name, in the order of Table 2, then the rest."""
        at = ("accuracy", "precision", "recall", "fpr", "f1", "mcc", "balanced_accuracy")
        ranks = ("auc", "auc_low", "auc_high", "ap", "ap_low", "ap_high", "ece", "brier")
        return {
            "threshold": self.threshold,
            **{name: math.nan if self.counts is None else getattr(self.counts, name) for name in at},
            **{name: getattr(self, name) for name in ranks},
            **{name: getattr(self, name) for name in ("images", "positives", "identities")},
            **{f"{name}_low": self.bounds.get(name, (math.nan,))[0] for name in _BOUNDED},
            **{f"{name}_high": self.bounds.get(name, (math.nan,))[-1] for name in _BOUNDED},
        }


def label_rows(
    judged: Judged, thresholds: Mapping[str, float], *, seed: int = 0, draws: int = DRAWS, camera: str = ""
) -> tuple[LabelRow, ...]:
    """One row of two classes (the last one's), of more one for each class against the rest.

    Args:
        thresholds: class -> threshold, chosen on other images than these.
        seed, draws: of the bootstrap over identities; 0 draws: no intervals.
        camera: what to write into the rows.

    Raises:
        InputError: thresholds of other classes or outside 0..1.
    """
    found = thresholds_of(judged, thresholds)
    owners = checked_identities(judged.identities, len(judged))
    rows = []
    for name in judged.judged_classes:
        truth, scores = judged.one(name)
        chosen = scores >= found[name] if name in found else None
        areas, precisions = ranking_draws(truth, scores, owners, seed, draws)
        (auc_low, auc_high), (ap_low, ap_high) = interval(areas), interval(precisions)
        rows.append(
            LabelRow(
                label=judged.label,
                name=name,
                camera=camera,
                threshold=found.get(name, math.nan),
                images=len(judged),
                positives=int(truth.sum()),
                identities=int(owners.max()) + 1,
                counts=Counts.of(truth, chosen) if chosen is not None else None,
                auc=auc(truth, scores),
                auc_low=auc_low,
                auc_high=auc_high,
                ap=average_precision(truth, scores),
                ap_low=ap_low,
                ap_high=ap_high,
                ece=calibration_error(truth, scores),
                brier=brier(truth, scores),
                bounds=_bounds(truth, chosen, owners, seed, draws) if chosen is not None else {},
            )
        )
    return tuple(rows)


def _bounds(truth: Bools, chosen: Bools, owners: Integers, seed: int, draws: int) -> dict[str, tuple[float, float]]:
    """Intervals of figures at a threshold; none where positives or negatives are of fewer than two identities."""
    if not enough_identities(truth, owners):
        return {}
    drawn = count_draws(truth, chosen, owners, seed, draws)
    return {name: interval(np.array([getattr(counts, name) for counts in drawn])) for name in _BOUNDED}


def camera_rows(
    judged: Judged, thresholds: Mapping[str, float], *, seed: int = 0, draws: int = DRAWS
) -> tuple[LabelRow, ...]:
    """`label_rows` of each camera's images: a label that one camera holds most of may have learnt the camera."""
    return tuple(
        row
        for camera, some in judged.by_camera()
        for row in label_rows(some, thresholds, seed=seed, draws=draws, camera=camera)
    )


@dataclass(frozen=True)
class Summary:
    """Figures over labels, NaN left out.

    Attributes:
        auc, ap: means. worst: the row with the least AUC, None where no row has one.
        mean_accuracy: mean of balanced accuracies, the literature's mA.
    """

    auc: float
    ap: float
    mean_accuracy: float
    worst: LabelRow | None


def summary(rows: Sequence[LabelRow]) -> Summary:
    """Means over rows, and the worst of them."""
    ranked = [row for row in rows if not math.isnan(row.auc)]
    accuracies = [row.counts.balanced_accuracy for row in rows if row.counts is not None]
    return Summary(
        auc=_mean([row.auc for row in rows]),
        ap=_mean([row.ap for row in rows]),
        mean_accuracy=_mean(accuracies),
        worst=min(ranked, key=lambda row: row.auc, default=None),
    )


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
