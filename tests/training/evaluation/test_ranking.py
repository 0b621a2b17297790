"""AUC, average precision and their intervals against scikit-learn and slow plain code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from graftsdk.errors import InputError
from graftsdk.training.evaluation import auc, auc_interval, average_precision
from graftsdk.training.evaluation.ranking import Order
from graftsdk.training.evaluation.resampling import identity_draws


def pairs_in_order(truth: list[bool], scores: list[float]) -> float:
    """The definition: every pair of a positive and a negative, ties half."""
    values, yes = np.array(scores), np.array(truth)
    apart = values[yes][:, None] - values[~yes]
    return float(np.mean((apart > 0) + 0.5 * (apart == 0)))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=12))
def test_auc_is_the_share_of_ordered_pairs(images: list[tuple[bool, int]]) -> None:
    truth, scores = [yes for yes, _ in images], [score / 5 for _, score in images]
    if len(set(truth)) == 1:
        assert math.isnan(auc(truth, scores)) and math.isnan(average_precision(truth, scores))
    else:
        assert auc(truth, scores) == pytest.approx(pairs_in_order(truth, scores))


@pytest.mark.parametrize("levels", [4, 30, 10**9], ids=["many ties", "some", "none"])
def test_weighted_kernel_against_sklearn(rng: np.random.Generator, levels: int) -> None:
    truth = rng.random(200) < 0.3
    scores = np.round((rng.random(200) + 0.3 * truth) * levels) / levels
    weights = rng.integers(0, 4, size=(5, 200)).astype(float)
    areas, precisions = Order(truth, scores).weighted(weights)
    some = {"y_true": truth, "y_score": scores}
    assert areas == pytest.approx([metrics.roc_auc_score(**some, sample_weight=row) for row in weights])
    assert precisions == pytest.approx([metrics.average_precision_score(**some, sample_weight=row) for row in weights])


def test_weights_without_a_class_give_nan() -> None:
    truth, scores = np.array([True, False]), np.array([0.9, 0.1])
    areas, precisions = Order(truth, scores).weighted(np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    assert [math.isnan(value) for value in areas] == [math.isnan(value) for value in precisions] == [True, True, False]


def test_interval_is_that_of_a_slow_bootstrap(rng: np.random.Generator) -> None:
    persons = rng.integers(40, size=150)
    truth = rng.random(150) < 0.4
    scores = rng.normal(size=150) + truth + 0.5 * rng.normal(size=40)[persons]
    names = [f"p{person:02}" for person in persons]
    found = []
    for times in np.concatenate(list(identity_draws(len(set(names)), 150, 100, seed=3))):
        drawn = [
            image
            for person, count in enumerate(times)
            for image in np.flatnonzero(np.unique(persons, return_inverse=True)[1] == person).tolist() * int(count)
        ]
        found.append(pairs_in_order(truth[drawn], scores[drawn]))
    expected = np.quantile(found, [0.025, 0.975])
    assert auc_interval(truth, scores, names, seed=3, draws=100) == pytest.approx(tuple(expected))


def test_draws_take_as_many_persons_as_there_are() -> None:
    parts = list(identity_draws(7, 100_000, 50, seed=0))
    times = np.concatenate(parts)
    assert len(parts) > 1 and times.shape == (50, 7) and (times.sum(axis=1) == 7).all()
    assert (times == np.concatenate(list(identity_draws(7, 10, 50, seed=0)))).all()  # however they are cut in parts
    assert (times != np.concatenate(list(identity_draws(7, 10, 50, seed=1)))).any()


def test_persons_with_many_images_widen_the_interval(rng: np.random.Generator) -> None:
    """The reason for the bootstrap over identities: ten images of one person are not ten persons."""
    truth = np.repeat(rng.random(60) < 0.5, 10)
    scores = np.repeat(rng.normal(size=60), 10) + truth
    persons = np.repeat(np.arange(60), 10)
    by_person, by_image = (auc_interval(truth, scores, names, draws=300) for names in (persons, np.arange(600)))
    assert by_person[1] - by_person[0] > 2 * (by_image[1] - by_image[0])


@pytest.mark.parametrize(
    ("truth", "persons"),
    [([1, 1, 0, 0], "aabb"), ([1, 1, 0, 0], "aabc"), ([1, 1, 1, 1], "abcd"), ([1, 0, 1, 0], "aaaa"), ([1], "a")],
    ids=["one person each", "one positive person", "one class", "one person in all", "one image"],
)
def test_too_few_persons_have_no_interval(truth: list[int], persons: str) -> None:
    found = auc_interval(np.array(truth, bool), np.linspace(0, 1, len(truth)), list(persons))
    assert all(math.isnan(value) for value in found)


def test_constant_scores_are_chance() -> None:
    truth, scores = np.arange(50) < 20, np.full(50, 0.3)
    assert auc(truth, scores) == 0.5 and auc_interval(truth, scores, np.arange(50)) == (0.5, 0.5)
    assert average_precision(truth, scores) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        ([0, 1], [0.1, math.nan], "finite"),
        ([0, 1], [0.1, math.inf], "finite"),
        ([0, 1], [0.1], "shapes"),
        ([], [], "N >= 1"),
        ([0, 2], [0.1, 0.2], "True and False"),
        ([[0, 1]], [[0.1, 0.2]], "shapes"),
    ],
)
def test_refused(truth: list[int], scores: list[float], message: str) -> None:
    for figure in (auc, average_precision):
        with pytest.raises(InputError, match=message):
            figure(np.array(truth), np.array(scores))


def test_refused_draws() -> None:
    truth, scores = np.array([0, 1, 0, 1]), np.linspace(0, 1, 4)
    with pytest.raises(InputError, match="draws"):
        auc_interval(truth, scores, np.arange(4), draws=-1)
    with pytest.raises(InputError, match="identities"):
        auc_interval(truth, scores, np.arange(3))
