"""Which labels of a person are to be computed in a frame."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.tracking.options import MOST_FRAMES, Tracking

__all__ = ["Sighting", "check_every", "due", "sighting"]


class Sighting(NamedTuple):
    """How a person was seen when something was computed.

    Attributes:
        frame: of the source. aspect: width / height of the box. area: in pixels.
    """

    frame: int
    aspect: float
    area: float


def sighting(frame: int, box: npt.NDArray[np.floating]) -> Sighting:
    """A frame and a box, float[4] xyxy. A side counts as one pixel or more."""
    x0, y0, x1, y1 = (float(value) for value in box)
    width, height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    return Sighting(frame, width / height, width * height)


def due(
    labels: Sequence[str],
    every: Mapping[str, int],
    settled: Collection[str],
    last: Mapping[str, Sighting],
    now: Sighting,
    limits: Tracking,
) -> tuple[str, ...]:
    """The labels that are to be computed: new, undecided, stale, turned or grown. Those not in `every` always are.

    Args:
        labels: all that there are, in the order of the answer.
        every: label -> frames from one time to the next.
        settled: those that are decided already.
        last: label -> how the person was seen when it was last computed. now: how the person is seen.
    """
    found = []
    for label in labels:
        before = last.get(label)
        if before is None or label not in settled or now.frame - before.frame >= every.get(label, 1):
            found.append(label)
            continue
        turn = now.aspect / before.aspect
        if max(turn, 1.0 / turn) >= limits.turned or now.area / before.area >= limits.grown:
            found.append(label)
    return tuple(found)


def check_every(every: Mapping[str, int] | None, labels: Sequence[str]) -> dict[str, int]:
    """Label -> frames, as they were given.

    Raises:
        InputError: no mapping, a label that is not computed, or no whole number from 1 on.
    """
    if every is None:
        return {}
    if not isinstance(every, Mapping):
        raise InputError(f"every: expected {{label: frames}}, found {type(every).__name__}")
    for label in every:
        if label not in labels:
            raise InputError(f"every: expected labels of {list(labels)}, found {label!r:.80}")
    return {label: whole_number(f"every[{label!r}]", frames, 1, MOST_FRAMES) for label, frames in every.items()}
