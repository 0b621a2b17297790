"""How well scores order the images: area under the ROC curve and average precision, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import MissingDependency
from graftsdk.training.evaluation.checks import Bools, Floats, Integers, checked_binary, checked_identities
from graftsdk.training.evaluation.resampling import DRAWS, checked_draws, identity_draws, interval

__all__ = ["Order", "auc", "auc_interval", "average_precision", "enough_identities", "ranking_draws", "sklearn_metrics"]

_UNDEFINED = float("nan")


def sklearn_metrics() -> ModuleType:
    """The module sklearn.metrics. Raises MissingDependency."""
    try:
        import sklearn.metrics
    except ModuleNotFoundError as error:
        raise MissingDependency(f"evaluation needs {error.name}: pip install 'graftsdk[train]'") from error
    found: ModuleType = sklearn.metrics
    return found


def auc(targets: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The share of pairs of a positive and a negative image that are in the right order, ties counted as half.

    Args:
        targets: bool[N], whether the image is positive.
        scores: float[N], probabilities or logits.

    Returns:
        0 to 1; NaN where positives or negatives are missing: there is no pair.

    Raises:
        InputError: shapes that differ, or a NaN among the scores.
    """
    truth, found = checked_binary(targets, scores)
    if truth.all() or not truth.any():
        return _UNDEFINED
    return float(sklearn_metrics().roc_auc_score(truth, found))


def average_precision(targets: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The mean precision over the positives, each at the threshold of its own score. As `auc`, NaN of one class."""
    truth, found = checked_binary(targets, scores)
    if truth.all() or not truth.any():
        return _UNDEFINED
    return float(sklearn_metrics().average_precision_score(truth, found))


def auc_interval(
    targets: npt.ArrayLike,
    scores: npt.ArrayLike,
    identities: Sequence[str] | npt.NDArray[Any],
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """The 95% interval of `auc` by bootstrap over identities.

    Returns:
        (low, high). (nan, nan) where the positives or the negatives are of fewer than two identities: one person's
        images say nothing of the next person.

    Raises:
        InputError: as `auc`; identities of another number than images.
    """
    truth, found = checked_binary(targets, scores)
    return interval(ranking_draws(truth, found, checked_identities(identities, len(truth)), seed, draws)[0])


def ranking_draws(truth: Bools, scores: Floats, owners: Integers, seed: int, draws: int) -> tuple[Floats, Floats]:
    """AUC and average precision in each draw over identities: float64[draws] each.

    All of them NaN where the positives or the negatives are of fewer than two identities.
    """
    areas, precisions = np.full(checked_draws(draws), _UNDEFINED), np.full(draws, _UNDEFINED)
    if enough_identities(truth, owners):
        order, done = Order(truth, scores), 0
        for times in identity_draws(int(owners.max()) + 1, len(owners), draws, seed):
            part = slice(done, done + len(times))
            areas[part], precisions[part] = order.weighted(times[:, owners])
            done += len(times)
    return areas, precisions


def enough_identities(truth: Bools, owners: Integers) -> bool:
    """Whether positives and negatives are of two identities or more each: else a bootstrap says nothing."""
    return all(len(np.unique(owners[some])) >= 2 for some in (truth, ~truth))


class Order:
    """Images in the order of their scores, sorted once, for figures under many weightings.

    scikit-learn computes one weighting a call, 3 ms of 5,000 images: minutes for 1000 draws of 18 labels.
    """

    def __init__(self, truth: Bools, scores: Floats) -> None:
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        last = np.append(ordered[1:] != ordered[:-1], True)  # of the images that share a score
        tie = np.cumsum(last) - last
        ends = np.flatnonzero(last)
        self._order, self._hits = order, np.flatnonzero(truth[order])
        ties = tie[self._hits]  # of each positive
        self._end = ends[ties]
        self._start = np.append(-1, ends)[ties]  # the last image before the tie; -1: there is none
        # The same places among the positives alone.
        before = np.append(0, np.cumsum(truth[order]))
        self._hits_end, self._hits_start = before[self._end + 1], before[self._start + 1]

    def weighted(self, weights: Floats) -> tuple[Floats, Floats]:
        """AUC float64[D] and average precision float64[D] under weights float64[D, N]; NaN without both classes."""
        own, chosen, hits = self._sums(weights)
        chosen_end, hits_end = chosen[:, self._end + 1], hits[:, self._hits_end]
        false = chosen_end - hits_end  # negatives at or above each positive
        above = chosen[:, self._start + 1] - hits[:, self._hits_start]
        positives, negatives = hits[:, -1], chosen[:, -1] - hits[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            areas = 1.0 - (own * (false + above)).sum(axis=1) / (2.0 * positives * negatives)
            precision = np.where(own > 0, hits_end / chosen_end, 0.0)
            average = (own * precision).sum(axis=1) / positives
        both = (positives > 0) & (negatives > 0)
        return np.where(both, areas, _UNDEFINED), np.where(both, average, _UNDEFINED)

    def fpr_at_recall(self, weights: Floats, recall: float) -> Floats:
        """The least false-positive rate at which the recall is reached, float64[D]; NaN without both classes."""
        if not len(self._hits):
            return np.full(len(weights), _UNDEFINED)
        _, chosen, hits = self._sums(weights)
        hits_end = hits[:, self._hits_end]
        positives, negatives = hits[:, -1], chosen[:, -1] - hits[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            first = np.argmax(hits_end / positives[:, None] >= recall, axis=1)  # descending scores: the first is least
            rows = np.arange(len(weights))
            rates = (chosen[rows, self._end[first] + 1] - hits_end[rows, first]) / negatives
        return np.where((positives > 0) & (negatives > 0), rates, _UNDEFINED)

    def _sums(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Weights of the positives [D, P]; weight of the first 0, 1, .. images [D, N + 1] and positives [D, P + 1]."""
        ordered = weights[:, self._order]
        own = ordered[:, self._hits]
        return own, _counted(ordered), _counted(own)


def _counted(weights: Floats) -> Floats:
    """Weight of the first 0, 1, .. N images: float64[D, N + 1]."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums
