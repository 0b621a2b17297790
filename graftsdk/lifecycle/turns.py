"""Timing several things in turns, so that a busy moment of the machine does not hit one of them alone."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Spread", "in_turns", "spread"]

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """How long the runs of one thing took, in milliseconds, and how many there were.

    `p95_ms` is the least that 95% of the runs do not exceed: below 20 runs it is the slowest of them.
    """

    least_ms: float
    median_ms: float
    p95_ms: float
    runs: int


def spread(taken: Sequence[float], per: float = 1.0) -> Spread:
    """Of milliseconds, at least one, each divided by `per` (as by the crops of a batch)."""
    ordered = sorted(value / per for value in taken)
    return Spread(
        ordered[0], statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], runs=len(ordered)
    )


def in_turns(
    cases: Mapping[str, Callable[[], T]], *, repeats: int, seconds: float = 0.0
) -> Iterator[tuple[str, float, T]]:
    """(name, milliseconds, what it returned) of every run: `repeats` rounds of all cases, then until the time is up.

    After the rounds it is always the case that had the least time so far, so that each gets an equal part of `seconds`
    (counted from the beginning) and short ones run often.
    """
    ends = time.perf_counter() + seconds
    had = dict.fromkeys(cases, 0.0)

    def run(name: str) -> tuple[str, float, T]:
        started = time.perf_counter()
        result = cases[name]()
        spent = 1e3 * (time.perf_counter() - started)
        had[name] += spent
        return name, spent, result

    for _ in range(repeats):
        for name in cases:
            yield run(name)
    while cases and time.perf_counter() < ends:
        yield run(min(had, key=had.__getitem__))
