"""When a decision is told: once it is made, and again only where it changes by more than the margin."""

from __future__ import annotations

import pytest

from graftsdk.attribute import Attribute
from graftsdk.tracking import Event, Tracking
from graftsdk.tracking.events import decided

AGES = ("child", "adult", "senior")


def yes_no(score: float, threshold: float = 0.5) -> Attribute:
    return Attribute("bag", ("no", "yes"), {"no": 1 - score, "yes": score}, {"yes": threshold})


def age(*scores: float) -> Attribute:
    return Attribute("age", AGES, dict(zip(AGES, scores, strict=True)))


@pytest.mark.parametrize(
    ("attribute", "answers", "before", "expected"),
    [
        # the first time: three answers, or a probability of 0.95
        (yes_no(0.6), 1, None, None),
        (yes_no(0.6), 2, None, None),
        (yes_no(0.6), 3, None, "yes"),
        (yes_no(0.96), 1, None, "yes"),
        (yes_no(0.04), 1, None, "no"),
        (yes_no(0.4), 3, None, "no"),
        (yes_no(0.35, 0.3), 3, None, "yes"),  # by the label's own threshold
        (age(0.96, 0.03, 0.01), 1, None, "child"),
        (age(0.5, 0.4, 0.1), 2, None, None),
        # unchanged
        (yes_no(0.9), 9, "yes", None),
        # changed: 0.2 of the way from the threshold to the end
        (yes_no(0.59), 9, "no", None),
        (yes_no(0.61), 9, "no", "yes"),
        (yes_no(0.41), 9, "yes", None),
        (yes_no(0.39), 9, "yes", "no"),
        (yes_no(0.955, 0.95), 9, "no", None),
        (yes_no(0.965, 0.95), 9, "no", "yes"),  # reachable however high the threshold
        (yes_no(0.03, 0.05), 9, "yes", "no"),
        (age(0.5, 0.4, 0.1), 9, "adult", None),
        (age(0.55, 0.3, 0.15), 9, "adult", "child"),
        # a plan that came later has other classes
        (yes_no(0.5), 1, "maybe", "yes"),
    ],
)
def test_table(attribute: Attribute, answers: int, before: str | None, expected: str | None) -> None:
    assert decided(attribute, answers, before, Tracking()) == expected


def test_scores_around_the_threshold_are_told_once() -> None:
    told = []
    before = None
    for answers, score in enumerate([0.52, 0.48, 0.53, 0.47, 0.55, 0.45, 0.58, 0.42], start=1):
        name = decided(yes_no(score), answers, before, Tracking())
        if name is not None:
            told.append((answers, name))
            before = name
    assert told == [(3, "yes")]


def test_without_hysteresis_each_flip_is_told() -> None:
    assert decided(yes_no(0.5), 5, "no", Tracking(hysteresis=0)) == "yes"
    assert decided(yes_no(0.499), 5, "yes", Tracking(hysteresis=0)) == "no"


def test_json() -> None:
    event = Event(7, "bag", "yes", 0.7000000000001, 3, 10, 12)
    assert event.to_dict() == {
        "track": 7, "label": "bag", "name": "yes", "score": 0.7, "frames": 3, "first_frame": 10, "frame": 12,
        "before": None,
    }  # fmt: skip
