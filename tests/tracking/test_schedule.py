"""What is due in a frame, against a slow reference that goes through everything that was ever seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftsdk.errors import InputError
from graftsdk.tracking import Tracking
from graftsdk.tracking.schedule import Sighting, check_every, due, sighting

LABELS = ("age", "phone", "bag")

steps = st.lists(
    st.tuples(st.integers(1, 7), st.integers(1, 40), st.integers(1, 40), st.sets(st.sampled_from(LABELS))),
    min_size=1,
    max_size=40,
)  # frames since the last, width, height, what is decided then


def slow(
    log: list[tuple[int, int, int, set[str]]], frame: int, width: int, height: int, every, settled, limits
) -> set[str]:
    """From all frames before, (frame, width, height, what was computed)."""
    found = set()
    for label in LABELS:
        computed = [entry for entry in log if label in entry[3]]
        if not computed or label not in settled:
            found.add(label)
            continue
        then, wide, high, _ = computed[-1]
        turn = (width / height) / (wide / high)
        if (
            frame >= then + every.get(label, 1)
            or turn >= limits.turned
            or 1 / turn >= limits.turned
            or (width * height) / (wide * high) >= limits.grown
        ):
            found.add(label)
    return found


@given(steps, st.dictionaries(st.sampled_from(LABELS[:2]), st.integers(1, 12)), st.sampled_from([1.2, 2.0, math.inf]))
def test_due_as_the_slow_reference(walk, every, factor) -> None:
    limits = Tracking(turned=factor, grown=2 * factor)
    last: dict[str, Sighting] = {}
    log: list[tuple[int, int, int, set[str]]] = []
    frame = 0
    for skipped, width, height, settled in walk:
        frame += skipped
        now = sighting(frame, np.array([3, 5, 3 + width, 5 + height], np.float32))
        found = due(LABELS, every, settled, last, now, limits)
        assert set(found) == slow(log, frame, width, height, every, settled, limits)
        assert list(found) == [label for label in LABELS if label in found]
        last.update(dict.fromkeys(found, now))
        log.append((frame, width, height, set(found)))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 10, 20), ()),  # as it was
        ((0, 0, 13, 20), ()),  # 1.3 times as wide
        ((0, 0, 14, 20), ("age",)),  # 1.4: turned
        ((0, 0, 7, 20), ("age",)),  # 1 / 0.7 = 1.43
        ((0, 0, 12, 24), ()),  # 1.44 times the area
        ((0, 0, 12.5, 25), ("age",)),  # 1.56: grown
        ((0, 0, 5, 10), ()),  # smaller shows less: no reason
        ((50, 60, 60, 80), ()),  # elsewhere
    ],
)
def test_turned_and_grown(box, expected) -> None:
    before = sighting(0, np.array([0, 0, 10, 20], np.float32))
    now = sighting(1, np.array(box, np.float32))
    assert due(("age",), {"age": 100}, {"age"}, {"age": before}, now, Tracking()) == expected
    assert due(("age",), {"age": 100}, (), {"age": before}, now, Tracking()) == ("age",)  # undecided


def test_a_box_without_width_is_no_division_by_zero() -> None:
    flat = sighting(0, np.array([4, 4, 4, 4], np.float32))
    assert (flat.aspect, flat.area) == (1.0, 1.0)


@pytest.mark.parametrize("every", [["age"], {"hat": 3}, {"age": 0}, {"age": 2.5}, {"age": True}, {3: 3}])
def test_a_schedule_that_means_nothing(every) -> None:
    with pytest.raises(InputError, match="every"):
        check_every(every, LABELS)


@pytest.mark.parametrize(
    "options",
    [
        {"turned": 1},
        {"grown": math.nan},
        {"memory": 1},
        {"memory": -0.1},
        {"decide_after": 0},
        {"decide_at": 1.1},
        {"hysteresis": "0.1"},
        {"forget": 0},
    ],
)
def test_options_out_of_range(options) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Tracking(**options)
