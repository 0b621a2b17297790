"""Whether a score of 0.8 is right 8 times of 10: made so by temperature and prior, and measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError, MissingDependency
from graftsdk.plan.documents import HISTOGRAM_BINS
from graftsdk.training.evaluation.checks import Bools, Floats, Integers, checked_binary, checked_logits, checked_scores

__all__ = [
    "BINS",
    "COLDEST",
    "HOTTEST",
    "ReliabilityPoint",
    "brier",
    "calibration_error",
    "fit_temperature",
    "histogram",
    "prior_shift",
    "reliability",
    "softmax",
]

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0  # beyond, a fit says that the logits are wrong, not how sure they are


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """Probabilities of logits float[N, C] at a temperature: float64[N, C]."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def fit_temperature(logits: npt.ArrayLike, targets: npt.ArrayLike, shift: npt.ArrayLike | None = None) -> float:
    """The temperature T at which softmax((logits + shift) / T) has the least negative log-likelihood.

    In 1/T it is convex, so the root of its slope is the minimum (Guo et al. 2017, 4.2). An image of a class with n
    images counts as (n + 1) / (n + 2) of it (Platt 1999, 2.2): on a small split that is never wrong the plain minimum
    is T = 0, and scores that are all 0 or 1 in float32 order no images any more.

    Args:
        logits: float[N, C] on validation data, of a model that did not learn from it.
        targets: int[N], the right class of each.
        shift: float[C], see `prior_shift`; it has to go into the classifier's bias too.

    Returns:
        0.05 to 20; a bound where the minimum lies beyond it, as of logits that are no better than chance; 1.0 where
        all logits of each image are equal.

    Raises:
        InputError: shapes that differ, NaN, targets outside 0..C-1 or all of one class.
    """
    found, classes = checked_logits(logits, targets)
    if len(np.unique(classes)) < 2:
        raise InputError(f"a temperature needs images of two or more classes, found class {classes[0]} only")
    if shift is not None:
        found = found + _checked_vector("shift", shift, found.shape[1])
    truth = _softened(classes, found.shape[1])
    centred = found - found[np.arange(len(classes)), classes][:, None]  # the right class's logit is 0
    if not centred.any():
        return 1.0

    def slope(log_inverse: float) -> float:
        """D NLL / d (1/T): the mean logit under the softmax, less that under the truth."""
        return float(((softmax(centred, math.exp(-log_inverse)) - truth) * centred).sum(axis=1).mean())

    low, high = -math.log(HOTTEST), -math.log(COLDEST)
    if slope(low) >= 0.0:
        return HOTTEST
    if slope(high) <= 0.0:
        return COLDEST
    try:
        from scipy.optimize import brentq
    except ModuleNotFoundError as error:
        raise MissingDependency(f"evaluation needs {error.name}: pip install 'graftsdk[train]'") from error
    return float(math.exp(-brentq(slope, low, high, xtol=1e-10)))


def _softened(targets: Integers, classes: int) -> Floats:
    """Truth float64[N, C] as Platt has it: (n + 1) / (n + 2) for the class, the rest shared by the others."""
    rest = 1.0 / (np.bincount(targets, minlength=classes)[targets] + 2.0)
    truth = np.repeat((rest / (classes - 1))[:, None], classes, axis=1)
    truth[np.arange(len(targets)), targets] = 1.0 - rest
    return truth


def prior_shift(trained: npt.ArrayLike, true: npt.ArrayLike) -> Floats:
    """What to add to logits learnt under one share of the classes to serve another: -log(trained / true), float64[C].

    Batches that were balanced, or mined negatives, make positives look common; added to the classifier's bias, before
    the temperature is fitted, this takes it back. Saerens et al. 2002, (2.4).

    Args:
        trained, true: images or shares of each class, float[C] above 0.

    Raises:
        InputError: different lengths, or a class without images.
    """
    had = _checked_vector("trained", trained)
    has = _checked_vector("true", true, len(had))
    if not ((had > 0).all() and (has > 0).all()):
        raise InputError(f"expected a share above 0 of every class, found {had.tolist()} and {has.tolist()}")
    return np.asarray(np.log(has / has.sum()) - np.log(had / had.sum()), np.float64)


def histogram(scores: npt.ArrayLike) -> tuple[int, ...]:
    """How many scores lie in each of 20 equal bins of [0, 1], the last one closed: as a branch's document stores it.

    Raises:
        InputError: scores outside 0..1, or NaN.
    """
    counts, _ = np.histogram(checked_scores(scores), bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    return tuple(int(count) for count in counts)


@dataclass(frozen=True)
class ReliabilityPoint:
    """Images of like scores. Attributes: score: their mean. share: of positives among them. images: how many."""

    score: float
    share: float
    images: int


def reliability(targets: npt.ArrayLike, scores: npt.ArrayLike, bins: int = BINS) -> tuple[ReliabilityPoint, ...]:
    """Points of the reliability diagram: images by ascending score in `bins` parts of equal size (within one image).

    Equal mass, since most scores of a rare label lie near 0. Images of one score count with their mean truth, so that
    a part that ends among them does not depend on the order in which they came.

    Raises:
        InputError: scores outside 0..1, NaN, shapes that differ.
    """
    truth, found = _checked(targets, scores)
    different, tie, counts = np.unique(found, return_inverse=True, return_counts=True)
    shares = np.bincount(tie, weights=truth, minlength=len(different)) / counts
    order = np.argsort(found, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return tuple(
        ReliabilityPoint(float(found[part].mean()), float(shares[tie[part]].mean()), len(part)) for part in parts
    )


def calibration_error(targets: npt.ArrayLike, scores: npt.ArrayLike, bins: int = BINS) -> float:
    """The expected calibration error: mean distance of score and share over `reliability`, weighted by images."""
    points = reliability(targets, scores, bins)
    return sum(abs(point.score - point.share) * point.images for point in points) / sum(p.images for p in points)


def brier(targets: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean squared distance of score and truth, 0 to 1. Raises InputError as `reliability`."""
    truth, found = _checked(targets, scores)
    return float(np.mean((found - truth) ** 2))


def _checked(targets: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Bools, Floats]:
    truth, _ = checked_binary(targets, scores)
    return truth, checked_scores(scores)


def _checked_vector(what: str, values: npt.ArrayLike, length: int | None = None) -> Floats:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or (length is not None and len(found) != length) or not np.isfinite(found).all():
        raise InputError(f"{what}: expected {length or 'some'} finite numbers, found {found.tolist()!r:.80}")
    return found
