"""Temperature, prior, histogram and calibration error against definitions and known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from graftsdk.errors import InputError
from graftsdk.training.evaluation import (
    brier,
    calibration_error,
    fit,
    fit_temperature,
    histogram,
    prior_shift,
    reliability,
    softmax,
)


def drawn(rng: np.random.Generator, classes: int, images: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is right: targets are drawn from it."""
    logits = 2.0 * rng.normal(size=(images, classes))
    targets = (softmax(logits).cumsum(axis=1) < rng.random((images, 1))).sum(axis=1)
    return logits, np.minimum(targets, classes - 1)


def likelihood(logits: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    """Negative log-likelihood with Platt's truth, image by image."""
    chances, total, classes = softmax(logits, temperature), 0.0, logits.shape[1]
    for row, own in zip(chances, targets, strict=True):
        rest = 1 / (list(targets).count(own) + 2)
        total -= sum(
            (1 - rest if name == own else rest / (classes - 1)) * math.log(row[name]) for name in range(classes)
        )
    return total / len(targets)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("factor", [0.2, 1.0, 8.0])
def test_temperature_is_the_best_of_a_grid(rng: np.random.Generator, classes: int, factor: float) -> None:
    logits, targets = drawn(rng, classes)
    found = fit_temperature(factor * logits, targets)
    assert found == pytest.approx(factor * fit_temperature(logits, targets), rel=1e-6)
    assert found == pytest.approx(factor, rel=0.25)  # of 400 images
    some, own = factor * logits[:60], targets[:60]
    found = fit_temperature(some, own)
    best = min(likelihood(some, own, temperature) for temperature in found * np.geomspace(0.5, 2, 30))
    assert likelihood(some, own, found) <= best + 1e-12


BOUNDS = {
    # logits, targets, temperature
    "never wrong, two images": ([[2.0, 0.0], [0.0, 2.0]], [0, 1], 2 / math.log(2)),  # 2 of 3 sure
    "never wrong, small logits": ([[0.01, 0.0], [0.0, 0.01]], [0, 1], 0.05),
    "always wrong": ([[2.0, 0.0], [0.0, 2.0]], [1, 0], 20.0),
    "as often wrong": ([[2.0, 0.0], [2.0, 0.0]], [1, 0], 20.0),
    "constant logits": ([[3.0, 3.0], [1.0, 1.0]], [1, 0], 1.0),
    "huge logits": ([[1e300, 0.0], [0.0, 1e300]], [0, 1], 20.0),
}


@pytest.mark.parametrize("case", BOUNDS)
def test_temperature_at_its_bounds(case: str) -> None:
    logits, targets, expected = BOUNDS[case]
    found = fit_temperature(np.array(logits), np.array(targets))
    assert found == pytest.approx(expected)


def test_a_small_split_that_is_never_wrong_keeps_an_order(rng: np.random.Generator) -> None:
    """Scores of a label that validates perfectly are not all 0 and 1 in float32, where its test images would tie."""
    targets = np.arange(100) % 2
    logits = rng.normal(size=(100, 2)) + 8.0 * np.eye(2)[targets]
    scores = softmax(logits, fit_temperature(logits, targets)).astype(np.float32)
    assert (logits.argmax(axis=1) == targets).all() and len(np.unique(scores)) == 200


def test_prior_shift_undoes_balanced_training(rng: np.random.Generator) -> None:
    """Two normal classes: the logit learnt on balanced data, shifted, is the log odds under the true prior."""
    values = rng.normal(size=50)
    learnt = np.stack([np.zeros(50), values], axis=1)
    odds = np.exp(values) * 0.1 / 0.9
    assert softmax(learnt + prior_shift([1, 1], [90, 10]))[:, 1] == pytest.approx(odds / (1 + odds))
    assert prior_shift([3, 1], [6, 2]) == pytest.approx(0.0)


def test_temperature_with_a_shift(rng: np.random.Generator) -> None:
    logits, targets = drawn(rng, 2)
    shift = prior_shift([1, 1], [3, 1])
    assert fit_temperature(logits - shift, targets, shift) == pytest.approx(fit_temperature(logits, targets))


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        ([[0.0, 1.0], [math.nan, 1.0]], [0, 1], "finite numbers, found .* at 1"),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 1], "class 1 only"),
        ([[0.0, 1.0], [1.0, 0.0]], [0, 2], "0 to 1"),
        ([[0.0], [1.0]], [0, 0], "C >= 2"),
        ([0.0, 1.0], [0, 1], "shapes"),
        ([[0.0, 1.0]], [0, 1], "shapes"),
    ],
)
def test_refused_temperature(logits: list[object], targets: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_temperature(np.array(logits), np.array(targets))


@pytest.mark.parametrize(("trained", "true"), [([0, 1], [1, 1]), ([1, 1], [1, 0]), ([1, 1], [1, 1, 1]), ([[1]], [1])])
def test_refused_prior(trained: list[object], true: list[object]) -> None:
    with pytest.raises(InputError):
        prior_shift(trained, true)


def test_histogram_has_20_bins_and_takes_both_ends() -> None:
    found = histogram([0.0, 0.049, 0.05, 0.5, 0.949, 0.951, 1.0, 1.0])
    assert found == (2, 1, *(0,) * 8, 1, *(0,) * 7, 1, 3)
    assert all(type(count) is int for count in found) and histogram([]) == (0,) * 20


@pytest.mark.parametrize("scores", [[0.5, math.nan], [1.01], [-0.01], [[0.5]]])
def test_refused_histogram(scores: list[object]) -> None:
    with pytest.raises(InputError):
        histogram(scores)


def slow_error(truth: np.ndarray, scores: np.ndarray, bins: int) -> float:
    images = sorted(zip(scores, truth, strict=True))
    total = 0.0
    for part in np.array_split(np.array(images), bins):
        total += abs(sum(part[:, 0]) - sum(part[:, 1]))
    return total / len(images)


def test_calibration_error_by_its_definition(rng: np.random.Generator) -> None:
    truth, scores = rng.random(307) < 0.3, rng.random(307)
    assert calibration_error(truth, scores) == pytest.approx(slow_error(truth, scores, 15))
    points = reliability(truth, scores)
    assert {point.images for point in points} == {20, 21} and sum(point.images for point in points) == 307
    assert brier(truth, scores) == pytest.approx(metrics.brier_score_loss(truth, scores))


def test_order_of_ties_changes_nothing(rng: np.random.Generator) -> None:
    truth, scores = np.sort(rng.random(300) < 0.3), np.round(rng.random(300), 1)
    mixed = rng.permutation(300)
    assert calibration_error(truth, scores) == pytest.approx(calibration_error(truth[mixed], scores[mixed]))


@pytest.mark.parametrize(
    ("truth", "scores", "error"),
    [
        ([0, 1], [0.0, 1.0], 0.0),
        ([0, 1], [1.0, 0.0], 1.0),
        ([0, 0, 0, 1], [0.25] * 4, 0.0),
        ([1] * 20, [0.9] * 20, 0.1),
    ],
)
def test_known_calibration_errors(truth: list[int], scores: list[float], error: float) -> None:
    assert calibration_error(np.array(truth), np.array(scores)) == pytest.approx(error)


def test_fit_is_what_a_branch_stores(rng: np.random.Generator) -> None:
    logits, targets = drawn(rng, 2)
    found = fit("hat", ("no", "yes"), targets, 3 * logits, [str(index) for index in range(400)], draws=50)
    assert found.temperature == fit_temperature(3 * logits, targets)
    assert list(found.thresholds) == ["yes"] and list(found.histogram) == ["yes"]
    assert sum(found.histogram["yes"]) == 400
    assert {"auc", "auc_low", "auc_high", "ap", "f1", "recall", "fpr", "ece"} <= set(found.metrics)
    assert all(math.isfinite(value) for value in found.metrics.values())


def test_fit_of_three_classes_has_a_threshold_for_each(rng: np.random.Generator) -> None:
    logits, targets = drawn(rng, 3)
    classes, persons = ("other", "female", "male"), ["one person"] * 400
    found = fit("gender", classes, targets, logits, persons, rule={"male": "fpr<=0.05"}, draws=10)
    assert tuple(found.thresholds) == tuple(found.histogram) == classes
    assert found.metrics["male.fpr"] <= 0.05 < found.metrics["female.fpr"]
    assert found.metrics["accuracy"] == np.mean(logits.argmax(axis=1) == targets)
    assert "male.auc" in found.metrics and "male.auc_low" not in found.metrics  # of one person there is no interval


def test_fit_says_which_class_has_no_threshold(rng: np.random.Generator) -> None:
    logits, _ = drawn(rng, 3)
    persons, targets = ["a"] * 400, np.arange(400) % 2
    with pytest.raises(InputError, match="label 'gender', class 'male': .* found 0 and 400"):
        fit("gender", ("other", "female", "male"), targets, logits, persons, draws=0)
    with pytest.raises(InputError, match="expected rules for classes"):
        fit("hat", ("no", "yes"), targets, logits[:, :2], persons, rule={"no": "f1"})
