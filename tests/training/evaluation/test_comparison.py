"""Table 3, McNemar, and two arms over labels."""

from __future__ import annotations

import math
from dataclasses import replace
from math import comb

import numpy as np
import pytest

from graftsdk.errors import InputError
from graftsdk.training.evaluation import (
    Counts,
    Judged,
    average_precision,
    choose_threshold,
    compare,
    mcnemar,
    sign_test,
    top_rows,
)
from graftsdk.training.evaluation.resampling import identity_draws


def coin(heads: int, tails: int) -> float:
    """Both tails of a fair coin, term by term."""
    throws = heads + tails
    tail = sum(comb(throws, count) for count in range(min(heads, tails) + 1)) / 2**throws
    return min(1.0, 2 * tail)


def share_in_order(truth: np.ndarray, scores: np.ndarray) -> float:
    apart = scores[truth == 1][:, None] - scores[truth == 0]
    return float(np.mean((apart > 0) + 0.5 * (apart == 0)))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (82, 42), (0, 12), (3, 9)])
def test_exact_tests(first: int, second: int) -> None:
    assert mcnemar(first, second) == sign_test(second, first) == pytest.approx(coin(first, second))


def test_known_sign_test() -> None:
    assert sign_test(18, 0) == pytest.approx(2 / 2**18)  # "all 18 better than ImageNet"
    with pytest.raises(InputError):
        sign_test(-1, 3)


def test_paper_table_3() -> None:
    """Its two heads at their own numbers of images: precision .746 and .876."""
    for top, false, precision in ((3344, 850, 0.746), (3307, 410, 0.876)):
        truth = np.zeros(40_000, bool)
        truth[: top - false] = True
        scores = np.linspace(1.0, 0.0, 40_000)
        (row,) = top_rows(truth, {"head": scores}, top)
        assert (row.top, row.false_positives) == (top, false) and math.isnan(row.p)
        assert row.precision == pytest.approx(precision, abs=5e-4)


def test_top_against_a_plain_count(rng: np.random.Generator) -> None:
    truth = rng.random(300) < 0.3
    scores = {name: rng.normal(size=300) + strength * truth for name, strength in (("a", 0.5), ("b", 2.0), ("c", 0))}
    rows = top_rows(truth, scores)
    count = int(truth.sum())
    right = {}
    for row in rows:
        best = sorted(range(300), key=lambda index: -scores[row.head][index])[:count]
        assert (row.top, row.false_positives) == (count, sum(not truth[index] for index in best))
        right[row.head] = [(index in best) == truth[index] for index in range(300)]
    for row in rows[1:]:
        pairs = list(zip(right["a"], right[row.head], strict=True))
        assert (row.only_first, row.only_this) == (pairs.count((True, False)), pairs.count((False, True)))
        assert row.p == pytest.approx(coin(row.only_first, row.only_this))
    assert rows[1].false_positives < rows[0].false_positives


def test_equal_scores_come_in_no_order_of_files() -> None:
    """Positives first or last in the list: constant scores find their share, not all or none of them."""
    for truth in (np.arange(1000) < 100, np.arange(1000) >= 900):
        (first, same) = top_rows(truth, {"a": np.zeros(1000), "b": np.ones(1000)})
        assert 75 <= first.false_positives <= 99
        assert (same.only_first, same.only_this, same.p) == (0, 0, 1.0)  # one order for both heads


@pytest.mark.parametrize(
    ("scores", "top", "message"),
    [
        ({}, None, "one or more heads"),
        ({"a": [0.1, 0.2]}, 0, "1 to 2"),
        ({"a": [0.1, 0.2]}, 3, "1 to 2"),
        ({"a": [0.1, math.nan]}, 1, "finite"),
        ({"a": [0.1, 0.2], "b": [0.1]}, 1, "shapes"),
    ],
)
def test_refused_top(scores: dict[str, list[float]], top: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        top_rows(np.array([0, 1]), scores, top)


def test_no_positive_has_no_top() -> None:
    with pytest.raises(InputError, match="top"):
        top_rows(np.array([0, 0]), {"a": [0.1, 0.2]})


def arm(label: str, strength: float, seed: int, persons: int = 60, images: int = 150) -> Judged:
    rng = np.random.default_rng(seed)
    targets = rng.integers(2, size=images)
    names = [f"p{index:02}" for index in rng.integers(persons, size=images)]
    logits = rng.normal(size=(images, 2)) + strength * np.eye(2)[targets]
    return Judged.from_logits(label, ("no", "yes"), targets, logits, names)


def test_compare_against_a_slow_bootstrap() -> None:
    first, second = ([arm(label, strength, seed) for seed, label in enumerate("ab")] for strength in (0.5, 1.5))
    found = compare(first, second, draws=60, seed=5)
    names = sorted({name for judged in first for name in judged.identities})
    deltas = []
    for times in np.concatenate(list(identity_draws(len(names), 150, 60, seed=5))):
        row = []
        for one, two in zip(first, second, strict=True):
            images = [i for i, name in enumerate(one.identities) for _ in range(int(times[names.index(name)]))]
            areas = [share_in_order(j.targets[images], j.probabilities[images, 1]) for j in (one, two)]
            row.append(areas[1] - areas[0])
        deltas.append(row)
    for index, row in enumerate(found.rows):
        expected = np.quantile([delta[index] for delta in deltas], [0.025, 0.975])
        assert (row.low, row.high) == pytest.approx(tuple(expected))
        assert row.delta == pytest.approx(row.second - row.first) and row.delta > 0
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(np.mean(deltas, axis=1), [0.025, 0.975])))
    assert (found.wins, found.losses, found.ties, found.p) == (2, 0, 0, 0.5)


@pytest.mark.parametrize("recall", [0.5, 0.8, 0.9, 1.0])
def test_fpr_at_a_recall_is_that_of_the_rule(recall: float) -> None:
    first, second = arm("a", 0.5, 0), arm("a", 1.5, 0)
    found = compare([first], [second], figure=f"fpr@{recall}", draws=60, seed=1)
    for judged, rate in ((first, found.rows[0].first), (second, found.rows[0].second)):
        truth, scores = judged.one("yes")
        assert rate == Counts.of(truth, scores >= choose_threshold(truth, scores, f"recall>={recall}")).fpr
    assert found.rows[0].delta < 0 and (found.wins, found.losses) == (1, 0)  # fewer false positives: better
    names = sorted(set(first.identities))
    deltas = []
    for times in np.concatenate(list(identity_draws(len(names), 150, 60, seed=1))):
        images = [i for i, name in enumerate(first.identities) for _ in range(int(times[names.index(name)]))]
        rates = []
        for judged in (first, second):
            truth, scores = (values[images] for values in judged.one("yes"))
            reached = [np.mean(scores[~truth] >= t) for t in scores[truth] if np.mean(scores[truth] >= t) >= recall]
            rates.append(min(reached))
        deltas.append(rates[1] - rates[0])
    assert (found.rows[0].low, found.rows[0].high) == pytest.approx(tuple(np.quantile(deltas, [0.025, 0.975])))


def test_average_precision_can_be_compared() -> None:
    first, second = arm("a", 0.5, 0), arm("a", 1.5, 0)
    found = compare([first], [second], figure="ap", draws=0)
    assert found.rows[0].first == pytest.approx(average_precision(*first.one("yes")))
    assert found.rows[0].second == pytest.approx(average_precision(*second.one("yes"))) and found.wins == 1


@pytest.mark.parametrize("figure", ["", "AUC", "f1", "fpr", "fpr@", "fpr@0", "fpr@1.1", "fpr@-1", "fpr@nan"])
def test_refused_figures(figure: str) -> None:
    with pytest.raises(InputError, match="expected 'auc'"):
        compare([arm("a", 1.0, 0)], [arm("a", 1.0, 0)], figure=figure)


def test_an_arm_against_itself_differs_by_nothing() -> None:
    arms = [arm("a", 1.0, 0), arm("b", 1.0, 1)]
    found = compare(arms, arms, draws=50)
    assert (found.mean, found.low, found.high, found.ties, found.p) == (0.0, 0.0, 0.0, 2, 1.0)


def test_three_classes_have_three_rows(rng: np.random.Generator) -> None:
    targets, names = rng.integers(3, size=90), [str(index) for index in range(90)]
    one, two = (Judged.from_logits("age", "abc", targets, rng.normal(size=(90, 3)), names) for _ in range(2))
    assert [row.name for row in compare([one], [two], draws=10).rows] == ["a", "b", "c"]


@pytest.mark.parametrize("figure", ["auc", "ap", "fpr@0.9"])
def test_label_of_one_class_takes_no_part(figure: str) -> None:
    whole, part = arm("a", 1.0, 0), arm("b", 1.0, 1)
    part = part.take(part.targets == 0)
    found = compare([whole, part], [arm("a", 2.0, 0), part], figure=figure, draws=50)
    assert math.isnan(found.rows[1].delta) and math.isnan(found.rows[1].low)
    assert found.mean == found.rows[0].delta and (found.low, found.high) == (found.rows[0].low, found.rows[0].high)
    alone = compare([part], [part], figure=figure, draws=50)
    assert math.isnan(alone.mean) and math.isnan(alone.low) and alone.p == 1.0


def test_arms_of_other_images_are_refused() -> None:
    one = arm("a", 1.0, 0)
    others = {
        "the same labels": arm("b", 1.0, 0),
        "the same images in both arms": arm("a", 1.0, 1),
        "same images": replace(one, identities=one.identities[::-1]),
    }
    for message, other in others.items():
        with pytest.raises(InputError, match=message):
            compare([one], [other])
    with pytest.raises(InputError, match="same labels"):
        compare([], [])
