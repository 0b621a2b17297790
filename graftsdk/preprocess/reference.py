"""The definition of a crop, in float64 and in the open. Every faster form is tested against it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.plan.cropspec import CropSpec
from graftsdk.preprocess.boxmasks import BoxMasks, inside, mask_box
from graftsdk.preprocess.image import Color
from graftsdk.preprocess.tables import letterbox_placement, resample, resize_table

__all__ = ["mask_crop_reference"]

Window = tuple[int, int, int, int]  # x0, y0, x1, y1: whole pixels inside the image, half-open
Inside = Callable[[int, int], npt.NDArray[np.bool_]]  # rows y0..y1-1 of the window -> bool[y1 - y0, width]

_ROWS = 32  # output rows that are made at once, and
_PIXELS = 1 << 20  # about how many source pixels they may read: bound memory, not results


def mask_crop_reference(
    image: npt.NDArray[np.uint8],
    boxes: npt.NDArray[Any],
    masks: npt.NDArray[Any] | BoxMasks | None = None,
    spec: CropSpec | None = None,
    color: Color = "bgr",
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """float32[N, 3, H, W]: what `mask_crop` returns, for arguments that it has checked.

    All tables and arithmetic are float64, cast to float32 once at the end: the same bits on every machine and with
    any number of threads. For each box:

    1. `spec.box == "mask"` and masks given: the box is the mask's own bounding box.
    2. Each side moves out by `spec.pad` times the box's width or height, then to the floor or the ceiling, then the
       box is clamped to the image.
    3. Masks given and `spec.background == "fill"`: pixels outside the mask become `spec.fill`.
    4. Resized by `tables.resize_table` to `spec.size`, or inside it (`tables.letterbox_placement`) on `spec.fill`.
    5. (x / 255 - mean) / std, channels in the order `spec.order`.
    """
    if spec is None:
        raise InputError("spec: expected a CropSpec, found None")
    crops = np.empty((len(boxes), 3, *spec.size), np.float32)

    def cut(index: int) -> None:
        height, width = image.shape[:2]
        box = np.asarray(boxes[index], dtype=np.float64)
        if masks is not None and spec.box == "mask":
            box = np.asarray(mask_box(masks, index, height, width), dtype=np.float64)
        x0, y0, x1, _ = window = crop_window(box, height, width, spec.pad)
        covered: Inside | None = None
        if masks is not None and spec.background == "fill":
            covered = partial(_rows_inside, masks, index, x0, y0, x1)
        crop = _resize(image, window, covered, spec)
        if color != spec.order:
            crop = crop[::-1]
        mean, std = np.array(spec.mean)[:, None, None], np.array(spec.std)[:, None, None]
        crops[index] = (crop / 255.0 - mean) / std

    if threads > 1 and len(boxes) > 1:
        with ThreadPoolExecutor(min(threads, len(boxes))) as pool:
            list(pool.map(cut, range(len(boxes))))
    else:
        for index in range(len(boxes)):
            cut(index)
    return crops


def crop_window(box: npt.NDArray[np.float64], height: int, width: int, pad: float) -> Window:
    """The whole pixels of the image that a box (xyxy) covers once padded: floor, ceiling, clamped."""
    x0, y0, x1, y1 = box.tolist()
    wide, high = pad * (x1 - x0), pad * (y1 - y0)
    return (
        int(np.clip(np.floor(x0 - wide), 0, width)),
        int(np.clip(np.floor(y0 - high), 0, height)),
        int(np.clip(np.ceil(x1 + wide), 0, width)),
        int(np.clip(np.ceil(y1 + high), 0, height)),
    )


def _rows_inside(
    masks: npt.NDArray[Any] | BoxMasks, index: int, x0: int, y0: int, x1: int, low: int, high: int
) -> npt.NDArray[np.bool_]:
    return inside(masks, index, y0 + low, y0 + high, x0, x1)


def _resize(
    image: npt.NDArray[np.uint8], window: Window, covered: Inside | None, spec: CropSpec
) -> npt.NDArray[np.float64]:
    """float64[3, H, W], 0..255, channels in the image's order: the window filled, resized and placed."""
    x0, y0, x1, y1 = window
    height, width = spec.size
    top, left = 0, 0
    if spec.fit == "letterbox":
        top, left, height, width = letterbox_placement((y1 - y0, x1 - x0), spec.size)
    down = resize_table(y1 - y0, height, spec.antialias)
    across = resize_table(x1 - x0, width, spec.antialias)

    placed = np.full((3, *spec.size), float(spec.fill))
    step = max(1, min(_ROWS, _PIXELS * height // ((y1 - y0) * (x1 - x0))))
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows, low, high = down.rows(start, stop)
        source = image[y0 + low : y0 + high, x0:x1]  # uint8[rows read, w, 3]
        if covered is not None:
            source = np.where(covered(low, high)[:, :, None], source, np.uint8(spec.fill))
        short = resample(source.reshape(high - low, -1), rows)  # [rows, w * 3]
        columns = short.reshape(stop - start, x1 - x0, 3).transpose(1, 2, 0).reshape(x1 - x0, -1)  # [w, 3 * rows]
        block = resample(columns, across).reshape(width, 3, stop - start)
        placed[:, top + start : top + stop, left : left + width] = block.transpose(1, 2, 0)
    return placed
