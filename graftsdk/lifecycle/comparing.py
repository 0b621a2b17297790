"""Two ways to the same number, compared: the greatest difference, and the decisions that flip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.prediction import decisions

__all__ = ["TOLERANCE", "Comparison", "ScoreTally", "TapTally"]

# Measured between ONNX Runtime's levels and versions, and against torch: 1e-7 to 1e-5 of a probability.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """One value on two ways.

    Attributes:
        name: what is compared: a label, or "tap 3".
        difference: of scores the greatest absolute difference, of a tap the same as a share of the reference's greatest
            absolute value; infinite where a value is not finite.
        crops: how many were compared. flips: crops on which a decision differs; 0 for taps.
    """

    name: str
    difference: float
    crops: int
    flips: int = 0

    @property
    def ok(self) -> bool:
        """Whether the difference is within TOLERANCE. A flip within it is a score that lies on its threshold."""
        return self.difference <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """JSON types; a difference that is not finite is null."""
        difference = self.difference if math.isfinite(self.difference) else None
        return {
            "name": self.name,
            "difference": difference,
            "crops": self.crops,
            "flips": self.flips,
            "ok": self.ok,
        }


class ScoreTally:
    """Gathers the comparison of one label's scores, batch by batch."""

    def __init__(self, name: str, classes: Sequence[str], thresholds: Mapping[str, float]) -> None:
        self._name, self._classes, self._thresholds = name, tuple(classes), thresholds
        self._difference, self._crops, self._flips = 0.0, 0, 0

    def add(self, found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        """Compare float[n, C] with float[n, C]."""
        self._difference = max(self._difference, _gap(found, wanted))
        self._crops += len(found)
        for one, other in zip(found, wanted, strict=True):
            self._flips += self._decided(one) != self._decided(other)

    def result(self) -> Comparison:
        """What was gathered."""
        return Comparison(self._name, self._difference, self._crops, self._flips)

    def _decided(self, scores: npt.NDArray[Any]) -> tuple[str | bool, ...] | None:
        """The decisions of one row; None where a score is not finite."""
        if not np.isfinite(scores).all():
            return None
        return decisions(self._classes, scores, self._thresholds)


class TapTally:
    """Gathers the comparison of one tap, batch by batch."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._gap, self._scale, self._crops = 0.0, 0.0, 0

    def add(self, found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        """Compare float[n, C, H, W] with the same."""
        self._gap = max(self._gap, _gap(found, wanted))
        if wanted.size and np.isfinite(wanted).all():
            self._scale = max(self._scale, float(np.abs(wanted).max()))
        self._crops += len(found)

    def result(self) -> Comparison:
        """What was gathered."""
        if self._gap == 0.0:
            return Comparison(self._name, 0.0, self._crops)
        return Comparison(self._name, self._gap / self._scale if self._scale else math.inf, self._crops)


def _gap(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """The greatest absolute difference; infinite where shapes differ or a value is not finite."""
    if found.shape != wanted.shape:
        return math.inf
    if found.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = float(np.abs(found.astype(np.float64) - wanted).max())
    return gap if math.isfinite(gap) else math.inf
