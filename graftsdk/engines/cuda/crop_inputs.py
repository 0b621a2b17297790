"""What crops are cut from on a device: a frame, windows of it, and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError, ShapeError

__all__ = ["DeviceFrame", "DeviceMasks", "check_windows", "crop_windows"]

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_MAX_PIXELS = 1 << 30  # of a frame: three times a place in it fits 32 bits
_MAX_CROPS = 65535  # blocks along a grid's second axis


@dataclass(frozen=True)
class DeviceFrame:
    """A decoded image in device memory: uint8[height, width, 3], pixels side by side.

    Attributes:
        ptr: address of its first byte. height, width: pixels. row_stride: bytes from row to row, of either sign.
    """

    ptr: int
    height: int
    width: int
    row_stride: int

    def __post_init__(self) -> None:
        sides = self.height >= 1 and self.width >= 1 and self.height * self.width <= _MAX_PIXELS
        if not sides or (self.height > 1 and abs(self.row_stride) < 3 * self.width):
            raise ShapeError(
                f"frame: expected uint8[H, W, 3] of at most {_MAX_PIXELS} pixels, rows at least 3 W bytes apart, found "
                f"{self.height} x {self.width} with {self.row_stride} bytes a row"
            )


@dataclass(frozen=True, eq=False)
class DeviceMasks:
    """N masks in device memory.

    Attributes:
        kind: "frame" over the whole image, "bytes" or "floats" (float32 in 0..1) stretched over their extents; in
            bytes nonzero is the person. As graftsdk.preprocess.BoxMasks defines them.
        pointers: uint64[N], the address of each one's first value. row_strides: int64[N], bytes from row to row.
        sizes: int32[N, 2], rows and columns of each.
        extents: float32[N, 4], xyxy in pixels of the image, each with an area; None for "frame".
        owner: what keeps the memory.
    """

    kind: Literal["frame", "bytes", "floats"]
    pointers: npt.NDArray[np.uint64]
    row_strides: Int64
    sizes: Int32
    extents: npt.NDArray[np.float32] | None = None
    owner: object = None

    def __len__(self) -> int:
        return len(self.pointers)

    def check(self, height: int, width: int, count: int) -> None:
        """Nothing, where there are `count` masks that fit an image of this size.

        Raises:
            InputError: an extent without an area, or floats that are not aligned; its leaf ShapeError.
        """
        shapes = (self.pointers.shape, self.row_strides.shape, self.sizes.shape)
        if shapes != ((count,), (count,), (count, 2)):
            raise ShapeError(f"masks: expected {count}, one for each crop, found {len(self)}")
        if self.kind == "frame":
            if (self.sizes != (height, width)).any():
                found = self.sizes[(self.sizes != (height, width)).any(axis=1)][0].tolist()
                raise ShapeError(f"masks: expected [N, {height}, {width}], the image's size, found {found}")
            return
        if (self.sizes < 1).any():
            raise ShapeError("masks: expected at least one cell in each, found one without")
        if self.extents is None or self.extents.shape != (count, 4) or not _have_areas(self.extents):
            raise InputError("masks: expected a finite extent with an area for each, found another or none")
        if self.kind == "floats" and ((self.pointers % 4).any() or (self.row_strides % 4).any()):
            raise InputError("masks: expected float32 at addresses that are multiples of 4, found others")

    def windows(self, height: int, width: int) -> Int32:
        """int32[N, 4]: the pixels of an image of this size that each may cover; one pixel where there are none."""
        if self.extents is None:
            return np.tile(np.array([0, 0, width, height], np.int32), (len(self), 1))
        found = crop_windows(self.extents, height, width)
        found[(found[:, 0] >= found[:, 2]) | (found[:, 1] >= found[:, 3])] = (0, 0, 1, 1)
        return found


def crop_windows(boxes: npt.NDArray[Any], height: int, width: int, pad: float = 0.0) -> Int32:
    """int32[N, 4]: the pixels that boxes, xyxy, cover once padded: floor, ceiling, clamped to the image.

    Each side moves out by `pad` times the box's width or height first.
    """
    wide = boxes.astype(np.float64)
    grown = pad * (wide[:, 2:] - wide[:, :2])
    low, high = np.floor(wide[:, :2] - grown), np.ceil(wide[:, 2:] + grown)
    found = np.concatenate([low, high], axis=1)
    return np.clip(found, 0, (width, height) * 2, out=found).astype(np.int32)


def check_windows(windows: Int32, height: int, width: int) -> None:
    """Nothing, where all windows lie inside an image of this size and have a pixel.

    Raises:
        InputError: one does not, or there are too many; its leaf ShapeError.
    """
    if windows.dtype != np.int32 or windows.ndim != 2 or windows.shape[1] != 4:
        raise ShapeError(f"windows: expected int32[N, 4], found {windows.dtype}{list(windows.shape)}")
    if len(windows) > _MAX_CROPS:
        raise InputError(f"windows: expected at most {_MAX_CROPS} at once, found {len(windows)}; cut smaller batches")
    low, high = windows[:, :2], windows[:, 2:]
    inside = (low >= 0) & (low < high) & (high <= (width, height))
    if not inside.all():
        index = int(np.argmin(inside.all(axis=1)))
        raise InputError(
            f"window {index}: expected 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}, found "
            f"{windows[index].tolist()}"
        )


def _have_areas(extents: npt.NDArray[np.float32]) -> bool:
    return bool((np.isfinite(extents).all(axis=1) & (extents[:, :2] < extents[:, 2:]).all(axis=1)).all())
