"""Rules against a search over every threshold, and that the choice survives rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graftsdk.errors import InputError
from graftsdk.training.evaluation import Counts, choose_threshold, parse_rule

RULES = ("f1", "youden", "accuracy", "fpr<=0.25", "precision>=0.5", "recall>=0.75", "cost(1,3)")


def worth(rule: str, counts: Counts) -> tuple[float, ...]:
    """What a rule compares, larger is better; -inf where it refuses. The second number settles ties."""
    fewer = -counts.false_positives
    plain = {"f1": counts.f1, "youden": counts.recall - counts.fpr, "accuracy": counts.accuracy}
    if rule in plain:
        return round(plain[rule], 12), fewer
    if rule == "cost(1,3)":
        return -(counts.false_positives + 3 * counts.false_negatives), fewer
    if rule == "recall>=0.75":
        return (fewer, 0.0) if counts.recall >= 0.75 else (-math.inf, 0.0)
    met = counts.fpr <= 0.25 if rule == "fpr<=0.25" else counts.precision >= 0.5  # NaN of nothing chosen is not
    return (counts.recall, fewer) if met else (-math.inf, 0.0)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=14))
def test_no_threshold_is_better(rule: str, images: list[tuple[bool, int]]) -> None:
    truth, scores = np.array([yes for yes, _ in images]), np.array([score / 8 for _, score in images])
    assume(truth.any() and not truth.all())
    every = [Counts.of(truth, scores >= threshold / 16) for threshold in range(17)]  # scores and all between them
    best = max(worth(rule, counts) for counts in every)
    if best[0] == -math.inf:
        with pytest.raises(InputError, match="loosen the bound"):
            choose_threshold(truth, scores, rule)
    else:
        threshold = choose_threshold(truth, scores, rule)
        assert 0.0 <= threshold <= 1.0
        assert worth(rule, Counts.of(truth, scores >= threshold)) == best


CHOSEN = {
    # truth, scores, rule, threshold
    "between the classes": ([0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9], "f1", 0.5),
    "all positive": ([1, 0, 1, 1], [0.2, 0.4, 0.6, 0.8], "recall>=1", 0.1),
    "none": ([0, 1, 0, 1], [0.9, 0.1, 0.8, 0.2], "fpr<=0", 0.95),
    "a bound that is just met": ([0, 0, 0, 0, 1], [0.1, 0.2, 0.3, 0.8, 0.6], "fpr<=0.25", 0.45),
    "constant scores, all": ([0, 1, 1], [0.5, 0.5, 0.5], "accuracy", 0.25),
    "constant scores, none": ([0, 0, 1], [0.5, 0.5, 0.5], "accuracy", 0.75),
    "scores of 0 and 1": ([0, 1], [0.0, 1.0], "f1", 0.5),
    "all scores 1": ([0, 1], [1.0, 1.0], "f1", 0.5),
    "all scores 0": ([0, 1], [0.0, 0.0], "f1", 0.0),
    "neighbours in float64": ([0, 1], [0.5, np.nextafter(0.5, 1)], "f1", np.nextafter(0.5, 1)),
    "as many false as right: the higher": ([1, 0, 1, 0], [0.9, 0.7, 0.5, 0.3], "accuracy", 0.8),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_chosen(case: str) -> None:
    truth, scores, rule, expected = CHOSEN[case]
    assert choose_threshold(np.array(truth), np.array(scores), rule) == pytest.approx(expected, abs=1e-15)


def test_no_decision_turns_in_float32(rng: np.random.Generator) -> None:
    truth = rng.random(500) < 0.4
    scores = np.round(rng.beta(2, 3, 500) * 0.7 + 0.2 * truth, 4)
    for rule in RULES:
        threshold = choose_threshold(truth, scores, rule)
        assert ((scores.astype(np.float32) >= threshold) == (scores >= threshold)).all()


def test_decimal_bounds_are_met_by_their_own_share() -> None:
    """7 of 100 is a recall of 0.07, though 0.07 * 100 is more than 7 in floats."""
    truth, scores = np.arange(200) < 100, np.zeros(200)
    for hits in range(1, 100):
        scores[:hits] = 0.8
        assert choose_threshold(truth, scores, f"recall>={hits / 100}") == 0.4


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "f2",
        "fpr",
        "fpr<=",
        "fpr<=1.5",
        "fpr>=0.1",
        "recall<=0.1",
        "precision>=1e",
        "cost(1)",
        "cost(0,1)",
        "cost(1,-1)",
        "fpr<=nan",
        "F1",
    ],
)
def test_refused_rules(rule: str) -> None:
    with pytest.raises(InputError, match="expected one of f1"):
        parse_rule(rule)


@pytest.mark.parametrize("rule", [*RULES, " fpr <= 1e-3 ", "cost( 0.5 , 2 )"])
def test_accepted_rules(rule: str) -> None:
    parse_rule(rule)


@pytest.mark.parametrize(
    ("truth", "scores", "rule", "message"),
    [
        ([1, 1], [0.1, 0.9], "f1", "found 2 and 0"),
        ([0, 0], [0.1, 0.9], "f1", "found 0 and 2"),
        ([0, 1], [0.1, math.nan], "f1", "finite"),
        ([0, 1], [0.1, 1.1], "f1", "0 to 1"),
        ([0, 1], [-0.1, 1.0], "f1", "0 to 1"),
        ([0, 1], [1.0, 1.0], "fpr<=0.5", "fpr reaches 1.0000"),
        ([0, 0, 1], [0.9, 0.8, 0.7], "precision>=0.9", "precision reaches 0.3333"),
    ],
)
def test_refused(truth: list[int], scores: list[float], rule: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_threshold(np.array(truth), np.array(scores), rule)
