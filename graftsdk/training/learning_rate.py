"""The learning rate over a training: warm-up, then steps or a cosine over the share of it that is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Length", "Schedule", "rate"]

DROPS = (280 / 800, 600 / 800, 700 / 800, 750 / 800)  # of the original's 800 thousand steps, x 0.1 each
FROM = 0.1  # of the rate, at the first step of warm-up; the original goes from 1e-4 to 1e-3
COSINE_END = 0.01


class Schedule(Protocol):
    """What of a training's options its length and its rates follow from.

    Attributes:
        steps, epochs, minutes: the training ends at what comes first of those that are not None.
        learning_rate: after warm-up.
        schedule: "cosine" (to 1% of the rate) or "step".
        warmup: steps.
    """

    @property
    def steps(self) -> int | None: ...
    @property
    def epochs(self) -> float | None: ...
    @property
    def minutes(self) -> float | None: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def warmup(self) -> int: ...


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Attributes:
        steps: at most; None where only the clock ends it.
        seconds: at most; None where only steps do.
    """

    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, options: Schedule, epoch: int) -> Length:
        """What the options say, with `epoch` steps an epoch."""
        counts = [options.steps] if options.steps is not None else []
        counts += [max(1, round(options.epochs * epoch))] if options.epochs is not None else []
        return cls(min(counts, default=None), None if options.minutes is None else 60 * options.minutes)

    def done(self, step: int, seconds: float) -> float:
        """The share that is done, 0..1: of the steps or of the time, whichever is further."""
        by_steps = 0.0 if self.steps is None else step / self.steps
        by_time = 0.0 if self.seconds is None else seconds / self.seconds
        return min(1.0, max(by_steps, by_time))


def rate(options: Schedule, step: int, done: float, length: Length) -> float:
    """The learning rate of a step (the first is 0) when the share `done` of the training lies behind."""
    if options.schedule == "step":
        factor = 0.1 ** sum(done >= drop for drop in DROPS)
    else:
        factor = COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * done)) / 2
    # At most a tenth of the length, whether steps or the clock end it.
    ramp = max(step / options.warmup if options.warmup else 1.0, 10 * done)
    if ramp < 1.0:
        factor *= FROM + (1 - FROM) * ramp
    return options.learning_rate * factor
