"""Two heads, or two trunks, on the same images: is the difference more than chance?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError, MissingDependency
from graftsdk.text import listed
from graftsdk.training.evaluation.checks import Bools, Floats, checked_binary
from graftsdk.training.evaluation.judged import Judged
from graftsdk.training.evaluation.ranking import Order, auc, enough_identities
from graftsdk.training.evaluation.resampling import DRAWS, checked_draws, identity_draws, interval

__all__ = ["AucDelta", "Comparison", "TopRow", "compare", "in_top", "mcnemar", "sign_test", "top_rows"]


@dataclass(frozen=True)
class TopRow:
    """A row of Table 3: how many of the images that a head finds most positive are not.

    Attributes:
        head: its name. top: images taken. false_positives: of them, those without the attribute.
        share: false_positives / top. precision: 1 - share.
        only_first, only_this: images that only the first head, or only this one, decided right. p: `mcnemar` of them;
            NaN of the first head.
    """

    head: str
    top: int
    false_positives: int
    only_first: int
    only_this: int
    p: float

    @property
    def share(self) -> float:
        """False positives among the chosen images."""
        return self.false_positives / self.top

    @property
    def precision(self) -> float:
        """Right ones among the chosen images."""
        return 1.0 - self.share


def top_rows(
    targets: npt.ArrayLike, scores: Mapping[str, npt.ArrayLike], top: int | None = None, seed: int = 0
) -> tuple[TopRow, ...]:
    """Table 3 of the paper: false positives among the same number of top images, for several heads.

    The paper took 3344 and 3307 images; here every head gives the same number, or the counts could not be compared.

    Args:
        targets: bool[N]. scores: head -> float[N] on the same images; the others are tested against the first.
        top: images to take; None: as many as are positive.
        seed: of the order among equal scores, the same order for every head.

    Raises:
        InputError: no head, arrays that do not fit, NaN, or `top` outside 1..N.
    """
    if not scores:
        raise InputError("scores: expected one or more heads, found none")
    rows: list[TopRow] = []
    first: Bools | None = None
    for head, values in scores.items():
        truth, found = checked_binary(targets, values)
        chosen = in_top(found, int(truth.sum()) if top is None else top, seed)
        right = chosen == truth
        first = right if first is None else first
        only_first, only_this = int((first & ~right).sum()), int((right & ~first).sum())
        p = mcnemar(only_first, only_this) if rows else math.nan
        rows.append(TopRow(head, int(chosen.sum()), int((chosen & ~truth).sum()), only_first, only_this, p))
    return tuple(rows)


def in_top(scores: Floats, top: int, seed: int = 0) -> Bools:
    """Whether each image is among the `top` highest scores, bool[N].

    Equal scores come in an order drawn by `seed`, never in that of the files, whose folders sort by class.

    Raises:
        InputError: `top` outside 1..N.
    """
    if not 1 <= top <= len(scores):
        raise InputError(f"top: expected 1 to {len(scores)} images, found {top}")
    drawn = np.random.default_rng(seed).permutation(len(scores))
    chosen = np.zeros(len(scores), np.bool_)
    chosen[drawn[np.argsort(-scores[drawn], kind="stable")[:top]]] = True
    return chosen


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: images that one head alone decided right are a fair coin's throws.

    To pool labels, add up their counts. 1.0 where the heads never differ.
    """
    return _coin(only_first, only_second)


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p that as many labels would go one way if either were as likely; ties are left out."""
    return _coin(wins, losses)


@dataclass(frozen=True)
class AucDelta:
    """One class's AUC under two arms. Attributes: delta: second - first, [low, high] its 95% interval."""

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
        rows: one a class, see `Judged.judged_classes`.
        mean: mean of the deltas over the rows that have one, [low, high] its 95% interval.
        wins, losses, ties: rows in which the second arm is better, worse or equal. p: their `sign_test`.
    """

    rows: tuple[AucDelta, ...]
    mean: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    p: float


def compare(first: Sequence[Judged], second: Sequence[Judged], *, seed: int = 0, draws: int = DRAWS) -> Comparison:
    """The second arm's AUC less the first's, by a paired bootstrap over identities.

    Each draw takes persons, not images, for both arms and for all labels at once: a person whom two labels show
    counts in both. The mean's interval is of the draws in which every label that has an interval has both classes.

    Args:
        first, second: the same labels in the same order, each on the same images.

    Raises:
        InputError: arms of other labels, classes, images or identities.
    """
    _check_arms(first, second)
    names = np.concatenate([np.asarray(judged.identities) for judged in first])
    persons, owners = np.unique(names, return_inverse=True)
    places = np.split(owners, np.cumsum([len(judged) for judged in first])[:-1])
    pairs = []
    for one, two, own in zip(first, second, places, strict=True):
        for name in one.judged_classes:
            truth, scores = one.one(name)
            pairs.append((one.label, name, own, truth, scores, two.one(name)[1]))
    orders = [
        (Order(truth, left), Order(truth, right)) if enough_identities(truth, own) else None
        for _, _, own, truth, left, right in pairs
    ]
    differences = np.full((len(pairs), checked_draws(draws)), np.nan)
    done = 0
    for times in identity_draws(len(persons), max(len(own) for own in places), draws, seed):
        part = slice(done, done + len(times))
        for index, (pair, both) in enumerate(zip(pairs, orders, strict=True)):
            if both is not None:
                weights = times[:, pair[2]]
                differences[index, part] = both[1].weighted(weights)[0] - both[0].weighted(weights)[0]
        done += len(times)
    rows = []
    for (label, name, _, truth, left, right), values in zip(pairs, differences, strict=True):
        before, after = auc(truth, left), auc(truth, right)
        rows.append(AucDelta(label, name, before, after, after - before, *interval(values)))
    return _conclude(tuple(rows), differences[[both is not None for both in orders]])


def _conclude(rows: tuple[AucDelta, ...], differences: Floats) -> Comparison:
    deltas = [row.delta for row in rows if not math.isnan(row.delta)]
    low, high = interval(differences.mean(axis=0)) if len(differences) else (math.nan, math.nan)
    wins, losses = sum(delta > 0 for delta in deltas), sum(delta < 0 for delta in deltas)
    return Comparison(
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


def _coin(heads: int, tails: int) -> float:
    if min(heads, tails) < 0:
        raise InputError(f"expected counts of 0 and more, found {heads} and {tails}")
    if not heads + tails:
        return 1.0
    try:
        from scipy.stats import binomtest
    except ModuleNotFoundError as error:
        raise MissingDependency(f"evaluation needs {error.name}: pip install 'graftsdk[train]'") from error
    return float(binomtest(heads, heads + tails).pvalue)
