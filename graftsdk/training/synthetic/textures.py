"""Noise and patterns that cloth, walls and sensors are made of: drawn once a process, then only cut from."""

from __future__ import annotations

from functools import cache, lru_cache

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["PERIODS", "SIDE", "Plane", "noise", "pattern", "window"]

SIDE = 1408  # of every plane, pixels; windows of at most SIDE - 1 are cut from it

PERIODS = (3, 4, 6, 8, 12, 16, 24, 32, 48)  # of patterns, pixels

Plane = npt.NDArray[np.uint8]

# Kind -> cells of the value noise as (down, across, weight), and the darkest value; the brightest is 255.
_NOISES: dict[str, tuple[tuple[tuple[int, int, float], ...], int]] = {
    "weave": (((700, 700, 0.5), (120, 120, 0.3), (24, 24, 0.5)), 196),
    "folds": (((60, 190, 0.8), (25, 70, 1.0), (320, 420, 0.3)), 138),
    "crumpled": (((90, 90, 1.0), (200, 160, 0.7), (600, 600, 0.2)), 150),
    "brushed": (((900, 8, 0.6), (1300, 22, 0.5), (6, 4, 0.7)), 150),
    "grain": (((9, 240, 0.8), (26, 700, 0.6), (4, 30, 0.7)), 120),
    "clouds": (((4, 4, 1.0), (11, 11, 0.6), (40, 40, 0.3)), 90),
    "leaves": (((40, 40, 0.8), (150, 150, 0.9), (480, 480, 0.7)), 40),
    "stone": (((500, 500, 0.7), (90, 90, 0.6), (12, 12, 0.6)), 130),
}


@cache
def noise(kind: str) -> Plane:
    """uint8[SIDE, SIDE], bright with darker places: value noise of several sizes, the same in every process."""
    layers, low = _NOISES[kind]
    rng = np.random.Generator(np.random.PCG64(sum(kind.encode())))
    total = np.zeros((SIDE, SIDE), np.float32)
    for down, across, weight in layers:
        cells = rng.random((down, across), dtype=np.float32)
        total += weight * cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    first, last = np.percentile(total, (1, 99))
    scaled = np.clip((total - first) / (last - first), 0, 1)
    return _fixed((low + (255 - low) * scaled + 0.5).astype(np.uint8))


@lru_cache(maxsize=50)
def pattern(kind: str, period: int) -> Plane:
    """uint8[SIDE, SIDE], 255 where the second colour of a cloth shows.

    Args:
        kind: "stripes" (across), "pinstripes" (down), "checks", "dots" or "blotches".
        period: pixels after which it repeats.
    """
    if kind == "blotches":
        cells = max(4, SIDE // (2 * period))
        rng = np.random.Generator(np.random.PCG64(period))
        spots = cv2.resize(rng.random((cells, cells), dtype=np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        return _fixed((spots > 0.62).astype(np.uint8) * np.uint8(255))
    row, column = np.indices((period, period))
    if kind == "stripes":
        cell = row < period // 2
    elif kind == "pinstripes":
        cell = column < max(1, period // 5)
    elif kind == "checks":
        cell = (row < period // 3) ^ (column < period // 3)
    else:
        cell = (row - period // 2) ** 2 + (column - period // 2) ** 2 < (period * period) // 10
    times = SIDE // period + 1
    return _fixed(np.ascontiguousarray(np.tile(cell.astype(np.uint8) * np.uint8(255), (times, times))[:SIDE, :SIDE]))


def window(plane: Plane, x: int, y: int, width: int, height: int) -> Plane:
    """A view of `plane` that begins near (x, y), wrapped so that it fits; neighbouring windows mostly continue."""
    left = x % max(1, SIDE - width)
    top = y % max(1, SIDE - height)
    return plane[top : top + height, left : left + width]


def _fixed(plane: Plane) -> Plane:
    plane.flags.writeable = False
    return plane
