from __future__ import annotations

import math

import numpy as np
import pytest

from graftsdk.lifecycle.comparing import TOLERANCE, Comparison, ScoreTally, TapTally

CLASSES = ("no", "yes")


def rows(*yes: float) -> np.ndarray:
    return np.array([[1 - value, value] for value in yes])


@pytest.mark.parametrize(
    ("found", "wanted", "difference", "flips", "ok"),
    [
        (rows(0.2, 0.9), rows(0.2, 0.9), 0.0, 0, True),
        (rows(0.2, 0.9), rows(0.3, 0.9), 0.1, 0, False),
        (rows(0.49999), rows(0.50001), 2e-5, 1, True),  # on the threshold: told, not a fault
        (rows(0.4), rows(0.6), 0.2, 1, False),
        (rows(math.nan), rows(0.6), math.inf, 1, False),
    ],
)
def test_scores(found: np.ndarray, wanted: np.ndarray, difference: float, flips: int, ok: bool) -> None:
    tally = ScoreTally("hat", CLASSES, {})
    tally.add(found, wanted)
    result = tally.result()
    assert result.difference == pytest.approx(difference)
    assert (result.flips, result.ok, result.crops) == (flips, ok, len(found))


def test_thresholds_of_the_document_decide() -> None:
    tally = ScoreTally("hat", CLASSES, {"yes": 0.8})
    tally.add(rows(0.75), rows(0.85))
    tally.add(rows(0.45), rows(0.55))
    assert tally.result().flips == 1


def test_taps_are_measured_against_the_greatest_activation() -> None:
    tally = TapTally("tap 3")
    tally.add(np.array([[1.0, 0.0]]), np.array([[1.0, 0.01]]))
    tally.add(np.array([[100.0]]), np.array([[100.0]]))
    assert tally.result() == Comparison("tap 3", pytest.approx(1e-4), 2)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (np.array([[math.nan]]), np.array([[1.0]])),
        (np.array([[math.inf]]), np.array([[1.0]])),
        (np.array([[1.0]]), np.array([[0.0]])),  # nothing to measure against
        (np.array([[1.0, 2.0]]), np.array([[1.0]])),
    ],
)
def test_taps_that_cannot_agree(found: np.ndarray, wanted: np.ndarray) -> None:
    tally = TapTally("tap 0")
    tally.add(found, wanted)
    result = tally.result()
    assert result.difference == math.inf
    assert not result.ok
    assert result.to_dict()["difference"] is None


def test_equal_zeros_agree() -> None:
    tally = TapTally("tap 0")
    tally.add(np.zeros((2, 3)), np.zeros((2, 3)))
    assert tally.result().ok


def test_tolerance_is_the_stated_one() -> None:
    assert TOLERANCE == 1e-4
    assert Comparison("hat", TOLERANCE, 1).ok
    assert not Comparison("hat", 1.01 * TOLERANCE, 1).ok
