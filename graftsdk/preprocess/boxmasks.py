"""Masks at any resolution, each covering a part of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from graftsdk.errors import DTypeError, InputError, ShapeError
from graftsdk.preprocess.tables import bilinear_taps

__all__ = ["BoxMasks", "LazyMask", "inside", "mask_box"]

_STRIP = 64  # rows that are sampled at once when a whole mask is walked: bounds memory, not results


class BoxMasks(Sequence[npt.NDArray[Any]]):
    """N masks, each an array of its own resolution stretched over its extent.

    The value at pixel (x, y) is the bilinear sample of the array at the pixel's centre mapped through the extent
    (half-pixel, clamped at the array's border). A pixel is a person's where its centre lies inside the extent
    (`x0 <= x + .5 < x1`) and the value is > 0.5. In bool and uint8 arrays nonzero counts as 1.

    `masks[i]` is the i-th array; `masks[a:b]` and `masks.select(indices)` are BoxMasks again. Arrays are not copied.

    Args:
        arrays: N arrays bool[h, w], uint8[h, w] or float32[h, w] in 0..1.
        extents: float32[N, 4], xyxy in pixels of the image, half-open; may reach beyond the image.

    Raises:
        ShapeError: an array is not 2-D or is empty, or extents are not [N, 4].
        DTypeError: an array or the extents have another dtype.
        InputError: a float value outside 0..1, or an extent that is not finite or has no area. Names the index.
    """

    arrays: tuple[npt.NDArray[Any], ...]
    extents: npt.NDArray[np.float32]

    def __init__(self, arrays: Sequence[npt.NDArray[Any]] | npt.NDArray[Any], extents: npt.NDArray[Any]) -> None:
        arrays, extents = _array_tuple(arrays), _extent_array(extents)
        if extents.dtype.kind not in "fiu":
            raise DTypeError(f"extents: expected float32[{len(arrays)}, 4], found dtype {extents.dtype}")
        if extents.shape != (len(arrays), 4) and not (len(arrays) == 0 and extents.size == 0):
            raise ShapeError(f"extents: expected [{len(arrays)}, 4], one for each mask, found {list(extents.shape)}")
        for index, array in enumerate(arrays):
            _check_array(array, f"mask {index}")
        with np.errstate(over="ignore"):  # too large for float32: infinite, and refused as such
            narrow = extents.astype(np.float32).reshape(len(arrays), 4)
        valid = np.isfinite(narrow).all(axis=1) & (narrow[:, :2] < narrow[:, 2:]).all(axis=1)
        if not valid.all():
            index = int(np.argmin(valid))
            raise InputError(
                f"extent {index}: expected finite x0 < x1 and y0 < y1, found {extents[index].tolist()}; "
                f"extents are x0, y0, x1, y1 in pixels of the image"
            )
        self.arrays = arrays
        self.extents = narrow
        self.extents.flags.writeable = False

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return iter(self.arrays)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> BoxMasks: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[Any] | BoxMasks:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return self.arrays[index]

    def __repr__(self) -> str:
        return f"BoxMasks({len(self)} masks)"

    def select(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> BoxMasks:
        """The masks at `indices`, in that order."""
        return BoxMasks.unchecked(
            [self.arrays[index] for index in indices], self.extents[np.asarray(indices, dtype=np.int64)]
        )

    @classmethod
    def unchecked(cls, arrays: Sequence[npt.NDArray[Any]], extents: npt.NDArray[np.float32]) -> BoxMasks:
        """Masks that this package made itself, as the class wants them: nothing is looked at, nothing is copied."""
        made = cls.__new__(cls)
        made.arrays, made.extents = tuple(arrays), extents
        made.extents.flags.writeable = False
        return made

    def mask_at(self, index: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """bool[height, width]: one mask over the whole frame, made anew by each call."""
        mask = np.zeros((height, width), np.bool_)
        y0, y1, x0, x1 = self._pixels(index, height, width)
        for start in range(y0, y1, _STRIP):
            stop = min(start + _STRIP, y1)
            mask[start:stop, x0:x1] = inside(self, index, start, stop, x0, x1)
        return mask

    def values(self, index: int, y0: int, y1: int, x0: int, x1: int) -> npt.NDArray[np.float64]:
        """float64[y1 - y0, x1 - x0]: one mask's values at the pixels of a window; 0 outside the extent."""
        array, extent = self.arrays[index], self.extents[index].astype(np.float64)
        result = np.zeros((y1 - y0, x1 - x0))
        rows, columns = np.arange(y0, y1) + 0.5, np.arange(x0, x1) + 0.5
        in_rows = np.flatnonzero((rows >= extent[1]) & (rows < extent[3]))
        in_columns = np.flatnonzero((columns >= extent[0]) & (columns < extent[2]))
        if not len(in_rows) or not len(in_columns):
            return result
        height, width = array.shape
        up, down, fall = bilinear_taps(
            (rows[in_rows] - extent[1]) / (extent[3] - extent[1]) * height - 0.5, height
        )  # fmt: skip
        left, right, slide = bilinear_taps(
            (columns[in_columns] - extent[0]) / (extent[2] - extent[0]) * width - 0.5, width
        )  # fmt: skip
        cells = (array if array.dtype == np.float32 else array != 0).astype(np.float64)
        lines = cells[up] + (cells[down] - cells[up]) * fall[:, None]  # [rows, w]
        low = lines[:, left]
        window = low + (lines[:, right] - low) * slide
        result[in_rows[0] : in_rows[-1] + 1, in_columns[0] : in_columns[-1] + 1] = window
        return result

    def _pixels(self, index: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(y0, y1, x0, x1): the pixels of the frame that the extent touches."""
        x0, y0, x1, y1 = self.extents[index].astype(np.float64)
        return (
            int(np.clip(np.floor(y0), 0, height)),
            int(np.clip(np.ceil(y1), 0, height)),
            int(np.clip(np.floor(x0), 0, width)),
            int(np.clip(np.ceil(x1), 0, width)),
        )


@dataclass(frozen=True, eq=False)
class LazyMask:
    """A function of no arguments that makes one of the masks over the whole frame, bool[H, W], anew by each call.

    A person's mask in this form takes no memory of its own and pickles; what draws it at another scale samples `masks`
    at its own pixels instead of making the frame.

    Attributes:
        masks: all of them. index: which one.
        size: (height, width) of the frame in pixels.
    """

    masks: BoxMasks
    index: int
    size: tuple[int, int]

    def __call__(self) -> npt.NDArray[np.bool_]:
        return self.masks.mask_at(self.index, *self.size)

    def window(self) -> tuple[npt.NDArray[np.bool_], int, int]:
        """The part of the frame outside of which the mask covers nothing, and the row and column where it begins."""
        y0, y1, x0, x1 = self.masks._pixels(self.index, *self.size)
        return inside(self.masks, self.index, y0, y1, x0, x1), y0, x0


def inside(masks: BoxMasks | npt.NDArray[Any], index: int, y0: int, y1: int, x0: int, x1: int) -> npt.NDArray[np.bool_]:
    """bool[y1 - y0, x1 - x0]: where mask `index` covers the pixels of a window."""
    if isinstance(masks, BoxMasks):
        covered = np.empty((y1 - y0, x1 - x0), np.bool_)
        for start in range(y0, y1, _STRIP):
            stop = min(start + _STRIP, y1)
            covered[start - y0 : stop - y0] = masks.values(index, start, stop, x0, x1) > 0.5
        return covered
    window: npt.NDArray[np.bool_] = masks[index, y0:y1, x0:x1] != 0
    return window


def mask_box(
    masks: BoxMasks | npt.NDArray[Any], index: int, height: int, width: int
) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1), half-open: the pixels of the frame that mask `index` covers, or None where it covers none."""
    top, bottom, left, right = masks._pixels(index, height, width) if isinstance(masks, BoxMasks) else (
        0, height, 0, width
    )  # fmt: skip
    columns = np.zeros(right - left, np.bool_)
    rows: list[int] = []
    for start in range(top, bottom, _STRIP):
        covered = inside(masks, index, start, min(start + _STRIP, bottom), left, right)
        columns |= covered.any(axis=0)
        rows.extend((start + np.flatnonzero(covered.any(axis=1))).tolist())
    if not rows:
        return None
    filled = np.flatnonzero(columns)
    return left + int(filled[0]), rows[0], left + int(filled[-1]) + 1, rows[-1] + 1


def _array_tuple(arrays: Any) -> tuple[npt.NDArray[Any], ...]:
    try:
        return tuple(arrays)
    except TypeError as error:
        raise InputError(f"masks: expected a list of arrays [h, w], found {type(arrays).__name__}") from error


def _extent_array(extents: Any) -> npt.NDArray[Any]:
    if isinstance(extents, np.ma.MaskedArray):
        raise InputError("extents: expected a plain array [N, 4], found a masked one; use extents.filled()")
    try:
        return np.asarray(extents)
    except ValueError as error:
        raise ShapeError(f"extents: expected [N, 4], found rows of different lengths: {error!s:.200}") from error
    except (TypeError, RuntimeError) as error:
        raise InputError(f"extents: expected an array [N, 4], found one that gives none: {error!s:.200}") from error


def _check_array(array: Any, where: str) -> None:
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise InputError(f"{where}: expected an array [h, w], found {type(array).__name__}")
    if array.dtype not in (np.bool_, np.uint8, np.float32) or not array.dtype.isnative:
        raise DTypeError(f"{where}: expected bool, uint8 or float32 in 0..1, found {array.dtype.str}")
    if array.ndim != 2 or 0 in array.shape:
        raise ShapeError(f"{where}: expected [h, w] with h and w at least 1, found {list(array.shape)}")
    if array.dtype == np.float32 and not (array.min() >= 0.0 and array.max() <= 1.0):  # a NaN fails both
        raise InputError(f"{where}: expected values from 0 to 1, found others; logits need a sigmoid first")
