"""The parameters of the crop's kernels, as numbers in the order in which mask_crop.cu has them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines.cuda.crop_inputs import DeviceFrame, DeviceMasks

__all__ = ["CALL", "CROP", "CropBlock", "CropLayout"]

Int32 = npt.NDArray[np.int32]

# As in mask_crop.cu.
THREADS = 256
TILE_ROWS = 8
REDUCED = 1024
_COLUMNS, _NARROW = 128, 8
_MASK_ROWS = 32
_FEW = 4
_ALIGNED = 4  # words: tables and weights begin at multiples of 16 bytes
_MASK_TYPES = {"frame": 1, "bytes": 2, "floats": 3}

CALL = np.dtype(
    [
        ("row_stride", np.int64), ("height", np.int32), ("width", np.int32), ("out_height", np.int32),
        ("out_width", np.int32), ("fill", np.int32), ("antialias", np.int32), ("masked", np.int32),
        ("half", np.int32), ("plane", np.int32, 3), ("scale", np.float32, 3), ("base", np.float32, 3),
        ("unused", np.int32),
    ]
)  # fmt: skip
CROP = np.dtype(
    [
        ("mask", np.uint64), ("mask_row_stride", np.int64), ("down", np.int64), ("across", np.int64),
        ("bits", np.int64), ("window", np.int32, 4), ("top", np.int32), ("left", np.int32),
        ("inner_height", np.int32), ("inner_width", np.int32), ("tile_width", np.int32), ("down_taps", np.int32),
        ("mask_height", np.int32), ("mask_width", np.int32), ("mask_type", np.int32), ("extent", np.float32, 4),
        ("unused", np.int32),
    ]
)  # fmt: skip
_CROP = struct.Struct("<Q4q13i4fi")  # the same
_NO_EXTENT = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class CropBlock:
    """The parameters of one call.

    Attributes:
        call: CALL[1]. crops: CROP[N].
        nbytes: of the workspace that tables and bits take.
        mask_blocks: blocks that make the bits of the largest mask; 0 where there are none.
        tiles: blocks that make the crop that has most.
        parts: blocks that look through the largest mask.
    """

    call: np.ndarray
    crops: np.ndarray
    nbytes: int
    mask_blocks: int
    tiles: int
    parts: int


class CropLayout:
    """Where things lie and how large they are, for crops of one specification.

    Args:
        size: (H, W) of a crop. mean, std: in the output's channel order, in units of 1. fill: 0..255.
        antialias, letterbox: as in a CropSpec. half: whether crops are float16.
    """

    def __init__(
        self,
        size: tuple[int, int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        fill: int,
        *,
        antialias: bool,
        letterbox: bool,
        half: bool,
    ) -> None:
        self._size, self._antialias, self._letterbox = size, antialias, letterbox
        self._calls = []
        for order in (slice(None), slice(None, None, -1)):  # the image's channels: in the output's order, or the other
            call = np.zeros(1, CALL)
            call["out_height"], call["out_width"] = size
            call["fill"], call["antialias"], call["half"] = fill, antialias, half
            call["plane"] = np.arange(3)[order]
            call["scale"] = (1.0 / (255.0 * np.array(std)))[order]
            call["base"] = ((fill / 255.0 - np.array(mean)) / np.array(std))[order]
            self._calls.append(call)

    def block(self, frame: DeviceFrame, windows: Int32, masks: DeviceMasks | None, *, reverse: bool) -> CropBlock:
        """The parameters for N windows, at least one.

        Row by row: of a few persons that takes a third of the time that a few dozen operations on arrays would take.
        """
        call = self._calls[reverse].copy()
        call["row_stride"], call["height"], call["width"] = frame.row_stride, frame.height, frame.width
        call["masked"] = masks is not None
        crops = bytearray(len(windows) * _CROP.size)
        words = mask_blocks = parts = 0
        narrowest = _COLUMNS
        mask: tuple[Any, ...] = (0, 0, (0, 0), 0, _NO_EXTENT)
        bits = 0
        given = None if masks is None else _rows_of(masks)
        for index, (x0, y0, x1, y1) in enumerate(windows.tolist()):
            high, wide = y1 - y0, x1 - x0
            top, left, inner_height, inner_width = self._placement(high, wide)
            down_taps, _ = self._axis(high, inner_height)
            across_taps, tile_width = self._axis(wide, inner_width)
            down_taps = max(down_taps, _FEW)
            narrowest = min(narrowest, tile_width)
            if given is not None:
                mask = next(given)
                strips = -(-high // _MASK_ROWS)
                bits = strips * wide
                parts = max(parts, -(-bits // REDUCED))
                mask_blocks = max(mask_blocks, strips * -(-wide // THREADS))
            across = words + _aligned(2 * inner_height) + _aligned(inner_height * down_taps)
            start = across + _aligned(2 * inner_width) + _aligned(inner_width * across_taps)
            pointer, row_stride, (mask_height, mask_width), kind, extent = mask
            _CROP.pack_into(
                crops, index * _CROP.size, pointer, row_stride, words, across, start, x0, y0, x1, y1, top, left,
                inner_height, inner_width, tile_width, down_taps, mask_height, mask_width, kind, *extent, 0,
            )  # fmt: skip
            words = start + _aligned(bits)
        height, width = self._size
        return CropBlock(
            call,
            np.frombuffer(crops, CROP),
            nbytes=4 * words,
            mask_blocks=mask_blocks,
            tiles=-(-width // narrowest) * -(-height // TILE_ROWS),
            parts=parts,
        )

    def _placement(self, high: int, wide: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the resized window in the crop: tables.letterbox_placement."""
        height, width = self._size
        if self._letterbox:
            if height * wide <= width * high:
                width = max(1, (2 * wide * height + high) // (2 * high))
            else:
                height = max(1, (2 * high * width + wide) // (2 * wide))
        return (self._size[0] - height) // 2, (self._size[1] - width) // 2, height, width

    def _axis(self, source: int, cells: int) -> tuple[int, int]:
        """Of a resize from `source` to `cells`: room for weights of one output, and outputs of a tile across.

        A tile reads at most _COLUMNS columns; one of _NARROW may read more. Multiples of 32 where there is room: a warp
        has 32 threads.
        """
        scale = source / cells
        support = max(scale, 1.0) if self._antialias else 1.0
        most = math.floor((_COLUMNS - 2.0 * support - 2.0) / scale) + 1
        most = min(max(most, _NARROW), _COLUMNS, max(self._size[1], _NARROW))
        return int(2.0 * support) + 1, most // 32 * 32 if most >= 32 else most  # at most: both ends go to whole cells


def _rows_of(masks: DeviceMasks) -> Iterator[tuple[Any, ...]]:
    """Of each mask: address, bytes from row to row, size, type, extent."""
    extents = repeat(_NO_EXTENT) if masks.extents is None else masks.extents.tolist()
    kinds = repeat(_MASK_TYPES[masks.kind])
    return zip(masks.pointers.tolist(), masks.row_strides.tolist(), masks.sizes.tolist(), kinds, extents, strict=False)


def _aligned(words: int) -> int:
    return -(-words // _ALIGNED) * _ALIGNED
