"""How far the scores of live traffic are from those of the validation data that a plan stores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graftsdk.plan import BranchDocument

__all__ = ["Drift", "psi"]

# Scores, below which nothing is said: those of one and the same distribution have a PSI of about (bins - 1) / scores,
# which is 0.02 here, well below the 0.1 at which one looks.
_LEAST = 1000
_KEPT = 20_000  # scores; counts are halved there, so that what is long past fades and memory stays as it is


def psi(expected: Sequence[float], found: Sequence[float]) -> float:
    """The population stability index of two histograms over the same bins: sum of (q - p) ln(q / p).

    p and q are shares, each count raised by a half, so that an empty bin is no infinity (Jeffreys' prior). By the usual
    rule below 0.1 nothing moved and above 0.25 much did (Siddiqi, Credit Risk Scorecards, 2006). 0 for equal shares.

    Args:
        expected: counts of each bin. found: likewise, as many bins.
    """
    p = [count + 0.5 for count in expected]
    q = [count + 0.5 for count in found]
    if len(p) != len(q):
        raise ValueError(f"expected histograms of as many bins, found {len(p)} and {len(q)}")
    whole_p, whole_q = sum(p), sum(q)
    return sum((b / whole_q - a / whole_p) * math.log((b / whole_q) / (a / whole_p)) for a, b in zip(p, q, strict=True))


class Drift:
    """Histograms of the scores that were answered, against those of the validation data. Not for several threads.

    Of each label, the class whose histogram the plan stores; of two classes the last one's. A label without a histogram
    has no drift. Counts are halved at 20,000, so that between the last 10,000 and 20,000 scores decide.

    Args:
        documents: label -> its branch's document.
    """

    def __init__(self, documents: Mapping[str, BranchDocument]) -> None:
        self._expected: dict[str, tuple[str, tuple[int, ...]]] = {}
        for label, document in documents.items():
            for name in reversed(document.classes):
                counts = document.histogram.get(name)
                if counts is not None and any(counts):
                    self._expected[label] = (name, counts)
                    break
        self._found = {label: [0.0] * len(counts) for label, (_, counts) in self._expected.items()}

    def add(self, label: str, scores: Mapping[str, float]) -> None:
        """Count one person's scores of a label: class -> probability."""
        if label not in self._expected:
            return
        name, counts = self._expected[label]
        if name not in scores:  # of a plan that has other classes under this name
            return
        found = self._found[label]
        found[min(int(scores[name] * len(counts)), len(counts) - 1)] += 1
        if sum(found) >= _KEPT:
            self._found[label] = [count / 2 for count in found]

    def values(self) -> dict[str, float]:
        """Label -> PSI, of the labels with enough scores."""
        return {
            label: psi(self._expected[label][1], found) for label, found in self._found.items() if sum(found) >= _LEAST
        }
