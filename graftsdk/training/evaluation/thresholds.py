"""From which score on a class holds: chosen on validation data, by a rule that has a name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.training.evaluation.checks import Floats, checked_binary, checked_scores

__all__ = ["DEFAULT_RULE", "RULES", "choose_threshold", "parse_rule"]

DEFAULT_RULE = "f1"
RULES = ("f1", "youden", "accuracy", "fpr<=X", "precision>=X", "recall>=X", "cost(FALSE_POSITIVE,FALSE_NEGATIVE)")
_NUMBER = r"\s*([0-9.eE+-]+)\s*"
_BOUND = re.compile(rf"(fpr\s*<=|precision\s*>=|recall\s*>=){_NUMBER}")
_COST = re.compile(rf"cost\s*\({_NUMBER},{_NUMBER}\)")


@dataclass(frozen=True)
class _Rule:
    """name: the rule's first word. numbers: its bound, or the costs of a false positive and of a false negative."""

    name: str
    numbers: tuple[float, ...]


def parse_rule(rule: str) -> _Rule:
    """The rule that a text names; for commands that should refuse one before hours of training.

    Raises:
        InputError: no rule of `RULES`, a bound outside 0..1, or costs that are not positive.
    """
    text = rule.strip()
    if text in ("f1", "youden", "accuracy"):
        return _Rule(text, ())
    if bound := _BOUND.fullmatch(text):
        value = _number(bound[2])
        if 0.0 <= value <= 1.0:
            return _Rule(bound[1].rstrip("<>= "), (value,))
    if cost := _COST.fullmatch(text):
        costs = _number(cost[1]), _number(cost[2])
        if all(0.0 < value < math.inf for value in costs):
            return _Rule("cost", costs)
    raise InputError(
        f"rule: expected one of {', '.join(RULES)} with X from 0 to 1 and costs above 0, found {rule!r:.80}"
    )


def _number(text: str) -> float:
    """NaN for "1e" and the like, which lies in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def choose_threshold(targets: npt.ArrayLike, scores: npt.ArrayLike, rule: str = DEFAULT_RULE) -> float:
    """The threshold that a rule picks, an image being positive where score >= threshold.

    It lies halfway between two neighbouring scores, 0 and 1 being the outermost, so that rounding in another engine
    turns no decision on these images. Of thresholds that a rule finds equal, the highest: fewer false positives.

    Args:
        targets: bool[N], whether the image is positive.
        scores: float[N], calibrated probabilities of the class.
        rule: what the threshold is best at.
            "f1": F1 score. "youden": recall - FPR. "accuracy". "cost(a,b)": least a FP + b FN.
            "fpr<=x", "precision>=x": the highest recall within the bound. "recall>=x": the lowest FPR within it.

    Raises:
        InputError: an unknown rule, scores outside 0..1, positives or negatives missing, or a bound that no threshold
            meets.
    """
    parsed = parse_rule(rule)
    truth, _ = checked_binary(targets, scores)
    found = checked_scores(scores)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        raise InputError(
            f"a threshold needs positive and negative images, found {positives} and {negatives}; "
            f"add images of the other class to the validation split"
        )
    cuts = _cuts(found)
    # Images at or above each cut.
    hits = positives - np.searchsorted(np.sort(found[truth]), cuts)
    false = negatives - np.searchsorted(np.sort(found[~truth]), cuts)
    value, allowed = _value(parsed, hits, false, positives, negatives)
    if not allowed.any():
        with np.errstate(invalid="ignore"):
            best = np.nanmax(hits / (hits + false)) if parsed.name == "precision" else np.min(false / negatives)
        raise InputError(
            f"rule {rule!r}: no threshold meets it on {len(truth)} images; {parsed.name} reaches {best:.4f}: "
            f"loosen the bound"
        )
    value = np.where(allowed, value, -np.inf)
    return float(cuts[np.flatnonzero(value == value.max())[-1]])


def _cuts(scores: Floats) -> Floats:
    """All thresholds that decide differently, ascending: from all images positive to none where that can be said."""
    different = np.unique(scores)
    below = np.concatenate([[0.0], different[:-1]])
    middle = 0.5 * (below + different)
    cuts = np.where(middle > below, middle, different)  # neighbours in float64 have no number between them
    if different[-1] < 1.0:
        top = 0.5 * (different[-1] + 1.0)
        cuts = np.append(cuts, top if top > different[-1] else 1.0)
    return cuts


def _value(
    rule: _Rule, hits: npt.NDArray[np.intp], false: npt.NDArray[np.intp], positives: int, negatives: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """What is to be greatest at each threshold, and where the bound is met. Integers where ties must be exact."""
    everywhere = np.ones(len(hits), np.bool_)
    if rule.name == "f1":
        return 2 * hits / (hits + false + positives), everywhere  # 2 TP / (2 TP + FP + FN)
    if rule.name == "youden":
        return (hits * negatives - false * positives).astype(np.float64), everywhere
    if rule.name == "accuracy":
        return (hits - false).astype(np.float64), everywhere
    if rule.name == "cost":
        return -(rule.numbers[0] * false + rule.numbers[1] * (positives - hits)), everywhere
    if rule.name == "recall":
        return -false.astype(np.float64), hits / positives >= rule.numbers[
            0
        ]  # 7 of 100 is 0.07, but 0.07 * 100 is more than 7
    if rule.name == "fpr":
        return hits.astype(np.float64), false / negatives <= rule.numbers[0]
    chosen = np.maximum(hits + false, 1)  # of none chosen, 0 / 1 is below every bound but 0
    return hits.astype(np.float64), hits / chosen >= rule.numbers[0]
