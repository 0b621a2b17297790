"""Four counts and what Table 2 of the paper says with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graftsdk.training.evaluation.checks import Bools, Integers
from graftsdk.training.evaluation.resampling import identity_draws

__all__ = ["Counts", "count_draws"]


@dataclass(frozen=True)
class Counts:
    """Right and wrong decisions about one class. A figure that is 0/0, as precision where nothing was chosen, is NaN.

    Attributes:
        true_positives, false_positives, false_negatives, true_negatives: images.
    """

    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float

    @classmethod
    def of(cls, truth: Bools, chosen: Bools) -> Counts:
        """Of truth bool[N] and decisions bool[N]."""
        hits = int(np.count_nonzero(truth & chosen))
        positives, selected = int(np.count_nonzero(truth)), int(np.count_nonzero(chosen))
        return cls(hits, selected - hits, positives - hits, len(truth) - positives - selected + hits)

    @property
    def positives(self) -> float:
        """Images of the class."""
        return self.true_positives + self.false_negatives

    @property
    def negatives(self) -> float:
        """Images of any other class."""
        return self.false_positives + self.true_negatives

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        return _ratio(self.true_positives + self.true_negatives, self.positives + self.negatives)

    @property
    def precision(self) -> float:
        """Share of the chosen images that are of the class."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the images of the class that were chosen."""
        return _ratio(self.true_positives, self.positives)

    @property
    def fpr(self) -> float:
        """Share of the other images that were chosen."""
        return _ratio(self.false_positives, self.negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN), 0 where nothing right was chosen."""
        twice = 2 * self.true_positives
        return _ratio(twice, twice + self.false_positives + self.false_negatives)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of recall and 1 - FPR."""
        return (self.recall + 1.0 - self.fpr) / 2.0

    @property
    def mcc(self) -> float:
        """Matthews' correlation of truth and decision, -1 to 1; NaN where either is the same for all images."""
        chosen = self.true_positives + self.false_positives
        left = self.false_negatives + self.true_negatives
        agree = self.true_positives * self.true_negatives - self.false_positives * self.false_negatives
        return _ratio(agree, math.sqrt(self.positives * self.negatives * chosen * left))


def count_draws(truth: Bools, chosen: Bools, owners: Integers, seed: int, draws: int) -> tuple[Counts, ...]:
    """The counts in each draw over identities, for intervals of any figure of theirs."""
    kinds = np.where(truth, np.where(chosen, 0, 2), np.where(chosen, 1, 3))  # in the order of the fields
    identities = int(owners.max()) + 1
    each = np.bincount(owners * 4 + kinds, minlength=4 * identities).reshape(identities, 4)
    parts = identity_draws(identities, identities, draws, seed)
    return tuple(Counts(*row) for times in parts for row in (times @ each).tolist())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
