"""Two arms, trunks or heads, on the same images of the same labels: is the difference more than chance?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graftsdk.errors import InputError
from graftsdk.text import listed
from graftsdk.training.evaluation.checks import Floats
from graftsdk.training.evaluation.exact_tests import sign_test
from graftsdk.training.evaluation.judged import Judged
from graftsdk.training.evaluation.ranking import Order, enough_identities
from graftsdk.training.evaluation.resampling import DRAWS, checked_draws, identity_draws, interval

__all__ = ["Comparison", "Delta", "compare"]

_Figure = Callable[[Order, Floats], Floats]  # of an order under weights [D, N]: float64[D]


@dataclass(frozen=True)
class Delta:
    """One class's figure under two arms. Attributes: delta: second - first, [low, high] its 95% interval."""

    label: str
    name: str
    first: float
    second: float
    delta: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two arms over labels.

    Attributes:
        figure: what was compared, "auc", "ap" or "fpr@0.9".
        rows: one a class, see `Judged.judged_classes`.
        mean: mean of the deltas over the rows that have one, [low, high] its 95% interval.
        wins, losses, ties: rows in which the second arm is better, worse or equal. p: their `sign_test`.
    """

    figure: str
    rows: tuple[Delta, ...]
    mean: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    p: float


def compare(
    first: Sequence[Judged], second: Sequence[Judged], *, figure: str = "auc", seed: int = 0, draws: int = DRAWS
) -> Comparison:
    """The second arm's figure less the first's, by a paired bootstrap over identities.

    Each draw takes persons, not images, for both arms and for all labels at once: a person whom two labels show
    counts in both. The mean's interval is of the draws in which every label that has an interval has both classes.

    Args:
        first, second: the same labels in the same order, each on the same images.
        figure: "auc", "ap" (average precision), or "fpr@R": the false-positive rate where the recall reaches R,
            each arm, and each draw, at its own threshold.

    Raises:
        InputError: arms of other labels, classes, images or identities, or an unknown figure.
    """
    measure = _measure(figure)
    _check_arms(first, second)
    persons, owners = np.unique(
        np.concatenate([np.asarray(judged.identities) for judged in first]), return_inverse=True
    )
    places = np.split(owners, np.cumsum([len(judged) for judged in first])[:-1])
    rows, pairs = [], []
    for one, two, own in zip(first, second, places, strict=True):
        for name in one.judged_classes:
            (truth, left), (_, right) = one.one(name), two.one(name)
            orders = Order(truth, left), Order(truth, right)
            before, after = (float(measure(order, np.ones((1, len(own))))[0]) for order in orders)
            rows.append((one.label, name, before, after))
            pairs.append((own, orders if enough_identities(truth, own) else None))
    deltas = np.full((len(pairs), checked_draws(draws)), np.nan)
    done = 0
    for times in identity_draws(len(persons), max(len(own) for own in places), draws, seed):
        part = slice(done, done + len(times))
        for index, (own, drawn) in enumerate(pairs):
            if drawn is not None:
                deltas[index, part] = measure(drawn[1], times[:, own]) - measure(drawn[0], times[:, own])
        done += len(times)
    found = tuple(Delta(*row, row[3] - row[2], *interval(values)) for row, values in zip(rows, deltas, strict=True))
    return _conclude(figure, found, deltas[[drawn is not None for _, drawn in pairs]])


def _measure(figure: str) -> _Figure:
    if figure == "auc":
        return lambda order, weights: order.weighted(weights)[0]
    if figure == "ap":
        return lambda order, weights: order.weighted(weights)[1]
    if (found := re.fullmatch(r"fpr@([0-9]*\.?[0-9]+)", figure)) and 0.0 < (recall := float(found[1])) <= 1.0:
        return lambda order, weights: order.fpr_at_recall(weights, recall)
    raise InputError(f"figure: expected 'auc', 'ap' or 'fpr@R' with R above 0 and at most 1, found {figure!r:.80}")


def _conclude(figure: str, rows: tuple[Delta, ...], drawn: Floats) -> Comparison:
    deltas = [row.delta for row in rows if not math.isnan(row.delta)]
    low, high = interval(drawn.mean(axis=0)) if len(drawn) else (math.nan, math.nan)
    up, down = sum(delta > 0 for delta in deltas), sum(delta < 0 for delta in deltas)
    wins, losses = (down, up) if figure.startswith("fpr") else (up, down)
    return Comparison(
        figure=figure,
        rows=rows,
        mean=float(np.mean(deltas)) if deltas else math.nan,
        low=low,
        high=high,
        wins=wins,
        losses=losses,
        ties=len(deltas) - wins - losses,
        p=sign_test(wins, losses),
    )


def _check_arms(first: Sequence[Judged], second: Sequence[Judged]) -> None:
    if not first or [judged.label for judged in first] != [judged.label for judged in second]:
        raise InputError(
            f"expected two arms with the same labels in the same order, found {listed(j.label for j in first)} and "
            f"{listed(j.label for j in second)}"
        )
    for one, two in zip(first, second, strict=True):
        same = one.classes == two.classes and one.identities == two.identities
        if not same or not np.array_equal(one.targets, two.targets):
            raise InputError(f"{one.label!r}: expected the same images in both arms, found other classes or truths")
