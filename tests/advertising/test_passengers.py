"""Who is who over snapshots, and what is smoothed."""

from __future__ import annotations

import numpy as np
import pytest
from passengers import Passengers, Seen
from schema import Timing

from graftsdk import Attribute

TIMING = Timing(hold=10, settle=2, linger=5, forget=20)


def seen(left: float, child: float) -> Seen:
    scores = {"no": 1 - child, "yes": child}
    box = np.array([left, 50, left + 90, 300], np.float32)
    return Seen(box, 0.9, {"child": Attribute("child", ("no", "yes"), scores, {"yes": 0.5})})


def children(passengers: Passengers, people: list[Seen], at: float) -> list[bool]:
    return sorted(one["child"].present for one in passengers.update(people, at))


def test_a_flickering_score_is_smoothed_per_person() -> None:
    passengers = Passengers(TIMING)
    told = []
    for at, score in enumerate((0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9)):
        sway = 4 * (-1) ** at
        told.append(children(passengers, [seen(100 + sway, score), seen(400 - sway, 0.2)], 2.0 * at))
    assert told == [[False, True]] * 8  # the raw answer was no twice


def test_who_is_hidden_for_a_moment_is_still_there() -> None:
    passengers = Passengers(TIMING)
    people = [seen(100, 0.9), seen(400, 0.2)]
    counts = [len(passengers.update(shown, 2.0 * at)) for at, shown in enumerate([people, people, people[1:], people])]
    assert counts == [2, 2, 2, 2]


def test_who_left_is_forgotten() -> None:
    passengers = Passengers(TIMING)
    for at in (0.0, 2.0):
        passengers.update([seen(100, 0.9)], at)
    assert [len(passengers.update([], at)) for at in (4.0, 6.0, 8.0)] == [1, 1, 0]


@pytest.mark.parametrize("gap", [2.0, 30.0])
def test_after_a_long_gap_everybody_is_new(gap: float) -> None:
    passengers = Passengers(TIMING)
    for at in (0.0, 2.0, 4.0):
        passengers.update([seen(100, 0.9)], at)
    assert children(passengers, [seen(100, 0.1)], 4.0 + gap) == [gap < 5]


def test_who_walks_across_the_lift_is_counted_once() -> None:
    passengers = Passengers(TIMING)
    told = []
    for at, left in enumerate((100, 100, 500, 500, 500, 500)):
        told.append((len(passengers.update([seen(left, 0.9)], 2.0 * at)), passengers.count))
    assert told == [(1, 1), (1, 1), (2, 1), (2, 1), (1, 1), (1, 1)]


def test_who_is_hidden_still_counts() -> None:
    passengers = Passengers(TIMING)
    people = [seen(100, 0.9), seen(400, 0.2)]
    counts = []
    for at, shown in enumerate([people, people, people[1:], people[1:], people[1:], [], [], []]):
        passengers.update(shown, 2.0 * at)
        counts.append(passengers.count)
    assert counts == [2, 2, 2, 2, 1, 1, 1, 0]
