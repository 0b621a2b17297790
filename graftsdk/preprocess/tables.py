"""Interpolation tables of a resize: float64, cast once where float32 is needed, for the reference and faster forms.

A resize is two passes, one an axis, and each pass is a table: output cell i is the weighted sum of `count[i]` source
cells from `first[i]` on. Cells are mapped by their centres (half-pixel, `align_corners=False`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Table", "bilinear_taps", "letterbox_placement", "resize_table"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """One axis of a resize.

    Attributes:
        first: int64[out], the first source cell of each output cell.
        count: int64[out], how many source cells it reads, at least 1; `first + count` never passes the source's end.
        weights: float64[out, taps], their weights; each row sums to 1 and is 0 from `count` on.
    """

    first: Int64
    count: Int64
    weights: Float64

    def rows(self, start: int, stop: int) -> tuple[Table, int, int]:
        """The output cells start..stop-1 as a table of their own, and the half-open range of source cells it reads.

        `first` of the returned table counts from the start of that range.
        """
        first, count = self.first[start:stop], self.count[start:stop]
        low, high = int(first.min()), int((first + count).max())
        return Table(first - low, count, self.weights[start:stop]), low, high


def resize_table(source: int, target: int, antialias: bool) -> Table:
    """The table from `source` cells to `target` cells, bilinear.

    With `antialias` the triangle is widened by the scale where the axis shrinks, in the form of Pillow and torch:
    support = max(scale, 1), centre = (i + .5) * scale, cells int(centre - support + .5) .. int(centre + support + .5),
    weights normalised. Where the axis grows both forms agree.
    """
    if not antialias:
        return _plain_table(source, target)
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target, dtype=np.float64) + 0.5) * scale
    # Truncation is what Pillow and torch do; the values are not negative after the maximum.
    first = np.maximum(centre - support + 0.5, 0.0).astype(np.int64)
    last = np.minimum((centre + support + 0.5).astype(np.int64), source)
    count = last - first
    cells = first[:, None] + np.arange(int(count.max()))
    weights = np.maximum(1.0 - np.abs((cells - centre[:, None] + 0.5) / support), 0.0)
    weights[cells >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return Table(first, count, weights)


def _plain_table(source: int, target: int) -> Table:
    lower, upper, fraction = bilinear_taps(
        (np.arange(target, dtype=np.float64) + 0.5) * (source / target) - 0.5, source
    )
    if source == 1:
        return Table(lower, np.ones(target, np.int64), np.ones((target, 1)))
    at_end = lower == upper  # clamped at the far border: the same cell read from one earlier
    fraction = np.where(at_end, 1.0, fraction)
    weights = np.stack([1.0 - fraction, fraction], axis=1)
    return Table(np.where(at_end, lower - 1, lower), np.full(target, 2, np.int64), weights)


def bilinear_taps(position: Float64, size: int) -> tuple[Int64, Int64, Float64]:
    """Lower cell, upper cell and the upper's weight at each position (0 = centre of cell 0), clamped to the cells."""
    position = np.clip(position, 0.0, size - 1.0)
    lower = position.astype(np.int64)
    return lower, np.minimum(lower + 1, size - 1), position - lower


def resample(source: npt.NDArray[Any], table: Table) -> Float64:
    """float64[out, ...]: `table` applied along the first axis of `source`.

    Plain multiplications and additions in the order of the taps: the same bits on every machine.
    """
    result: Float64 = np.zeros((len(table.first), *source.shape[1:]))
    product = np.empty_like(result)
    shape = (-1,) + (1,) * (source.ndim - 1)
    for tap in range(table.weights.shape[1]):
        cells = np.minimum(table.first + tap, source.shape[0] - 1)  # beyond `count` the weight is 0
        np.multiply(source[cells], table.weights[:, tap].reshape(shape), out=product)
        result += product
    return result


def letterbox_placement(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a (H, W) source that keeps its aspect inside a (H, W) target, centred.

    The tighter side fills the target; the other one is rounded half up, at least 1; an odd rest goes below and right.
    """
    (height, width), (target_height, target_width) = source, target
    if target_height * width <= target_width * height:
        inner = (target_height, max(1, (2 * width * target_height + height) // (2 * height)))
    else:
        inner = (max(1, (2 * height * target_width + width) // (2 * width)), target_width)
    return (target_height - inner[0]) // 2, (target_width - inner[1]) // 2, *inner
