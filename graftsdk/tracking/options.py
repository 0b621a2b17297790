"""When something is computed again, how much is forgotten, and from when on a thing is decided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.scores import check_fraction

__all__ = ["MOST_FRAMES", "Tracking"]

TURNED = 1.35  # factor of width to height; who turns to the side is a third narrower, a step moves it by a tenth
GROWN = 1.5  # factor of the box's area: 1.22 times as many pixels on each side
MEMORY = 0.8  # five answers count in the mean: 1 / (1 - 0.8)
DECIDE_AFTER = 3  # answers
DECIDE_AT = 0.95  # probability
HYSTERESIS = 0.2  # of the way from the threshold to the end
FORGET = 300  # frames; a tracker gives a number up long before

MOST_FRAMES = 10**9


@dataclass(frozen=True)
class Tracking:
    """Options of a stream with tracks.

    Attributes:
        turned: factor by which width / height of the box, since a label was computed, grows or shrinks until the label
            is computed again, due or not. math.inf: never.
        grown: factor by which the box's area grows until then: a person who comes nearer shows more. math.inf: never.
        memory: weight of all that was known, 0 to below 1, each time that something new comes:
            score = sum(memory**age * probability) / sum(memory**age), age counted in answers, the newest 0.
            0 shows the newest answer alone.
        decide_after: answers until something is decided. Until then a label is computed on each frame, due or not.
        decide_at: voted probability of the class from which it is decided before.
        hysteresis: how far beyond its threshold a score must be until a decision changes: of two classes, that part of
            the way from the threshold to 1 or 0; of more, how much more probable the new class must be than the old.
        forget: frames of the source, those skipped too, after which a track that was not seen is forgotten.

    Raises:
        InputError: a value out of its range.
    """

    turned: float = TURNED
    grown: float = GROWN
    memory: float = MEMORY
    decide_after: int = DECIDE_AFTER
    decide_at: float = DECIDE_AT
    hysteresis: float = HYSTERESIS
    forget: int = FORGET

    def __post_init__(self) -> None:
        for name in ("turned", "grown"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value) or value <= 1:
                raise InputError(f"{name}: expected a factor above 1, or math.inf, found {value!r:.80}")
        for name in ("memory", "decide_at", "hysteresis"):
            check_fraction(name, getattr(self, name))
        if self.memory == 1:
            raise InputError("memory: expected less than 1, found 1; nothing would ever be forgotten")
        for name in ("decide_after", "forget"):
            whole_number(name, getattr(self, name), 1, MOST_FRAMES)
