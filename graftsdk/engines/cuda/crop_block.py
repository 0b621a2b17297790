"""The parameters of the crop's kernels, as numbers in the order in which mask_crop.cu has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.engines.cuda.crop_inputs import DeviceFrame, DeviceMasks

__all__ = ["CALL", "CROP", "CropBlock", "CropLayout"]

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

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
        """The parameters for N windows, at least one; a few dozen operations on arrays, however many there are."""
        call = self._calls[reverse].copy()
        call["row_stride"], call["height"], call["width"] = frame.row_stride, frame.height, frame.width
        call["masked"] = masks is not None
        crops = np.zeros(len(windows), CROP)
        crops["window"] = windows
        sides = (windows[:, :1:-1] - windows[:, 1::-1]).astype(np.int64)  # [N, 2]: high, wide
        corner, inner = self._placement(sides)
        crops["top"], crops["left"] = corner.T
        crops["inner_height"], crops["inner_width"] = inner.T
        scale = sides / inner
        support = np.maximum(scale, 1.0) if self._antialias else np.ones_like(scale)
        taps = np.floor(2.0 * support).astype(np.int64) + 1  # at most: both ends go to whole cells
        taps[:, 0] = np.where(taps[:, 0] <= _FEW, _FEW, taps[:, 0])
        crops["down_taps"] = taps[:, 0]
        crops["tile_width"] = tiles = _tile_widths(scale[:, 1], support[:, 1], self._size[1])
        words = np.zeros((len(windows), 3), np.int64)  # of both tables and the bits
        words[:, :2] = _aligned(2 * inner) + _aligned(inner * taps)
        mask_blocks = parts = 0
        if masks is not None:
            strips = -(-sides[:, 0] // _MASK_ROWS)
            bits = strips * sides[:, 1]
            words[:, 2] = _aligned(bits)
            parts = -(-int(bits.max()) // REDUCED)
            mask_blocks = int((strips * -(-sides[:, 1] // THREADS)).max())
            crops["mask"], crops["mask_row_stride"] = masks.pointers, masks.row_strides
            crops["mask_height"], crops["mask_width"] = masks.sizes.T
            crops["mask_type"] = _MASK_TYPES[masks.kind]
            if masks.extents is not None:
                crops["extent"] = masks.extents
        ends = words.ravel().cumsum()
        crops["down"], crops["across"], crops["bits"] = (ends.reshape(words.shape) - words).T
        return CropBlock(
            call,
            crops,
            nbytes=4 * int(ends[-1]),
            mask_blocks=mask_blocks,
            tiles=-(-self._size[1] // int(tiles.min())) * -(-self._size[0] // TILE_ROWS),
            parts=parts,
        )

    def _placement(self, sides: Int64) -> tuple[Int64, Int64]:
        """Corner and size of the resized windows, int64[N, 2] each, rows first: tables.letterbox_placement."""
        target = np.array(self._size, np.int64)
        inner = np.tile(target, (len(sides), 1))
        if self._letterbox:
            other = sides[:, ::-1]
            fitted = np.maximum(1, (2 * sides * target[::-1] + other) // (2 * other))  # to the other side's target
            tall = target[0] * sides[:, 1] <= target[1] * sides[:, 0]
            inner[tall, 1] = fitted[tall, 1]
            inner[~tall, 0] = fitted[~tall, 0]
        return (target - inner) // 2, inner


def _aligned(words: Int64) -> Int64:
    return -(-words // _ALIGNED) * _ALIGNED


def _tile_widths(scale: Float64, support: Float64, width: int) -> Int32:
    """int32[N]: outputs across of a tile, so that it reads at most _COLUMNS columns; or _NARROW, which may read more.

    Multiples of 32 where there is room: a warp has 32 threads.
    """
    most = np.floor((_COLUMNS - 2.0 * support - 2.0) / scale) + 1.0
    most = np.clip(most, _NARROW, min(_COLUMNS, max(width, _NARROW))).astype(np.int32)
    return np.where(most >= 32, most // 32 * 32, most)
