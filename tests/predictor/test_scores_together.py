"""Scores of many labels, looked at together: what passes is what passes one by one."""

from __future__ import annotations

import numpy as np
import pytest

from graftsdk.errors import GraftError
from graftsdk.scores import are_probabilities, check_scores


def one_by_one(scores: list[np.ndarray], count: int, classes: list[int]) -> bool:
    try:
        for values, wide in zip(scores, classes, strict=True):
            check_scores("label", ("a", "b", "c", "d")[:wide], values, count, str)
    except GraftError:
        return False
    return True


def softmax(rng: np.random.Generator, count: int, wide: int) -> np.ndarray:
    raw = np.exp(rng.normal(size=(count, wide)))
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


SPOILS = {
    "nothing": lambda values: values,
    "a NaN": lambda values: np.where(values == values[-1, 0], np.float32("nan"), values),
    "infinity": lambda values: np.where(values == values[0, 1], np.float32("inf"), values),
    "both infinities": lambda values: np.where(values == values[0], np.float32([[np.inf, -np.inf]]), values),
    "below 0": lambda values: values + np.float32([[-1.5, 1.5]]),
    "a sum of 1.01": lambda values: values * np.float32(1.01),
    "a sum of 1.0005": lambda values: values * np.float32(1.0005),
    "other rows": lambda values: values[:-1],
    "other classes": lambda values: values[:, :1],
    "float64": lambda values: values.astype(np.float64),
}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_same_pass(spoil: str, count: int, rng: np.random.Generator) -> None:
    for place in range(3):
        classes = [3, 4, 2]
        scores = [softmax(rng, count, wide) for wide in classes]
        scores.insert(place, SPOILS[spoil](softmax(rng, count, 2)))
        classes.insert(place, 2)
        assert are_probabilities(scores, count, classes) == one_by_one(scores, count, classes)


def test_nobody_and_no_label() -> None:
    assert are_probabilities([np.empty((0, 2), np.float32)], 0, [2])
    assert not are_probabilities([np.empty((0, 2), np.float32)], 0, [3])
    assert are_probabilities([], 4, [])
