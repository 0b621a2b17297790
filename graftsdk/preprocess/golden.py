"""Generated crops that are the same to the bit on every machine, on which a plan's scores are recorded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graftsdk.plan.cropspec import CropSpec
from graftsdk.plan.documents import GOLDEN_COUNT, GOLDEN_SEED

__all__ = ["golden_crops"]

_ONE = 1 << 16  # fixed point of the gradients
_NOISE = 24  # grey levels, about a photograph's texture and sensor noise


def golden_crops(spec: CropSpec, seed: int = GOLDEN_SEED, count: int = GOLDEN_COUNT) -> npt.NDArray[np.float32]:
    """float32[count, 3, H, W]: coloured gradients, blocks and noise on a filled background, in the range of real crops.

    Integers only, from PCG64's raw stream (which NumPy keeps stable), up to the last line: one value for each of
    256 levels and 3 channels. Crop i does not depend on `count`.
    """
    levels = (np.arange(256)[None, :] / 255.0 - np.array(spec.mean)[:, None]) / np.array(spec.std)[:, None]
    table = levels.astype(np.float32)  # [3, 256]
    crops = np.empty((count, 3, *spec.size), np.float32)
    for index in range(count):
        pixels = _picture(seed, index, spec)
        for channel in range(3):
            crops[index, channel] = table[channel][pixels[channel]]
    return crops


def _picture(seed: int, index: int, spec: CropSpec) -> npt.NDArray[np.int64]:
    """int64[3, H, W] in 0..255."""
    stream = np.random.PCG64([seed, index])
    height, width = spec.size
    smooth = _gradient(_bytes(stream, (3, 5, 4)), height, width)
    blocks = _bytes(stream, (3, 9, 5))
    blocks = blocks[:, np.arange(height) * 9 // height][:, :, np.arange(width) * 5 // width]
    noise = _bytes(stream, (3, height, width)) * (2 * _NOISE + 1) // 256 - _NOISE
    pixels: npt.NDArray[np.int64] = np.clip((smooth * 5 + blocks * 3) // 8 + noise, 0, 255)
    if spec.background == "fill":
        # An ellipse in place of a silhouette, so that the filled background of real crops is there too.
        y, x = 2 * np.arange(height)[:, None] + 1 - height, 2 * np.arange(width)[None, :] + 1 - width
        outside = (y * width) ** 2 + (x * height) ** 2 > (height * width) ** 2
        pixels[:, outside] = spec.fill
    return pixels


def _bytes(stream: np.random.PCG64, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    count = int(np.prod(shape))
    words = stream.random_raw(-(-count // 8)).astype("<u8")
    return words.view(np.uint8)[:count].reshape(shape).astype(np.int64)


def _gradient(grid: npt.NDArray[np.int64], height: int, width: int) -> npt.NDArray[np.int64]:
    """A coarse grid int64[3, h, w] spread linearly over [3, height, width], in fixed point."""
    for axis, size in ((1, height), (2, width)):
        position = np.arange(size) * ((grid.shape[axis] - 1) * _ONE) // (size - 1)
        lower = np.minimum(position // _ONE, grid.shape[axis] - 2)
        weight = (position - lower * _ONE).reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
        low, high = np.take(grid, lower, axis), np.take(grid, lower + 1, axis)
        grid = (low * (_ONE - weight) + high * weight) // _ONE
    return grid
