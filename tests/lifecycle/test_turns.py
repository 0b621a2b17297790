from __future__ import annotations

import time
from collections import Counter

import pytest

from graftsdk.lifecycle.turns import Spread, in_turns, spread


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([3.0], Spread(3.0, 3.0, 3.0, 1)),
        ([2.0, 1.0, 9.0, 4.0], Spread(1.0, 3.0, 9.0, 4)),
        (list(range(1, 21)), Spread(1, 10.5, 19, 20)),  # one of twenty may be slower
        (list(range(1, 101)), Spread(1, 50.5, 95, 100)),
    ],
)
def test_spread(taken: list[float], expected: Spread) -> None:
    assert spread(taken) == expected


def test_spread_of_each_in_a_batch() -> None:
    assert spread([8.0, 16.0], per=8) == Spread(1.0, 1.5, 2.0, 2)


def test_rounds_then_whoever_had_least(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def case(seconds: float) -> str:
        clock[0] += seconds
        return f"took {seconds}"

    cases = {"long": lambda: case(4.0), "short": lambda: case(1.0)}
    runs = list(in_turns(cases, repeats=2, seconds=26.0))
    assert [name for name, _, _ in runs[:4]] == ["long", "short", "long", "short"]
    assert runs[:2] == [("long", 4000.0, "took 4.0"), ("short", 1000.0, "took 1.0")]
    assert Counter(name for name, _, _ in runs) == {"long": 4, "short": 12}  # 10 s the rounds, then 8 s for each
    assert [name for name, _, _ in in_turns(cases, repeats=1)] == ["long", "short"]
    assert list(in_turns({}, repeats=3, seconds=5.0)) == []
