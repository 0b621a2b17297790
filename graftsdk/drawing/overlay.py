"""One person's mask on a picture of any scale: translucent, with an outline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.errors import ShapeError
from graftsdk.preprocess.boxmasks import LazyMask

if TYPE_CHECKING:
    from graftsdk.prediction import Person

__all__ = ["draw_mask"]

ALPHA = 0.3  # seen on photographs: faces and clothes keep their own colours

Array = npt.NDArray[Any]


def draw_mask(
    picture: npt.NDArray[np.uint8], person: Person, size: tuple[int, int], color: tuple[int, int, int], thick: int
) -> None:
    """Lay the person's mask over the picture.

    Args:
        picture: uint8[h, w, 3], BGR, the person's image at any scale; is drawn on.
        person: one without a mask leaves the picture as it is.
        size: (height, width) of the image in its own pixels.
        color: BGR. thick: pixels of the outline.

    Raises:
        ShapeError: a mask of another size than the image.
    """
    found = _source(person, size)
    if found is None:
        return
    inside, left, top = _window(*found, size, picture.shape[:2])
    if not inside.any():
        return
    view = picture[top : top + inside.shape[0], left : left + inside.shape[1]]
    table = np.arange(256)[:, None] * (1.0 - ALPHA) + np.array(color) * ALPHA + 0.5  # [256, 3]
    cv2.copyTo(cv2.LUT(view, table.astype(np.uint8)[None]), inside, view)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, contours, -1, color, thick, cv2.LINE_AA, offset=(left, top))


def _source(person: Person, size: tuple[int, int]) -> tuple[Array, tuple[float, ...]] | None:
    """The mask as an array and what it covers, xyxy in pixels of the image; None where there is none.

    A segmenter's mask stays at its own few thousand pixels: over a frame of 12 megapixels the mask of each person
    would take longer than all the rest of the drawing.
    """
    lazy = person._mask
    if isinstance(lazy, LazyMask) and tuple(lazy.size) == size:
        array, extent = lazy.masks[lazy.index], lazy.masks.extents[lazy.index]
        values = array if array.dtype == np.float32 else (array != 0).astype(np.float32)
        return values, tuple(float(edge) for edge in extent)
    mask = person._frame()
    if mask is None:
        return None
    if mask.shape != size:
        raise ShapeError(f"person {person.index}: expected a mask {size}, found {mask.shape}")
    flat = mask if mask.dtype == np.bool_ else mask > 0.5
    left, top, wide, high = cv2.boundingRect(np.ascontiguousarray(flat).view(np.uint8))
    if not wide:
        return None
    part = flat[top : top + high, left : left + wide].astype(np.float32)
    return part, (left, top, left + wide, top + high)


def _window(
    values: Array, extent: tuple[float, ...], size: tuple[int, int], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.uint8], int, int]:
    """(uint8[h, w] of 0 and 1, left, top): the mask at the pixels of a picture of this shape.

    As `BoxMasks` says: bilinear, half-pixel, and what has its centre outside the extent is nobody's.
    """
    sx, sy = shape[1] / size[1], shape[0] / size[0]
    x0, y0, x1, y1 = extent[0] * sx, extent[1] * sy, extent[2] * sx, extent[3] * sy
    left, right = (int(min(max(math.ceil(edge - 0.5), 0), shape[1])) for edge in (x0, x1))
    top, bottom = (int(min(max(math.ceil(edge - 0.5), 0), shape[0])) for edge in (y0, y1))
    if left >= right or top >= bottom:
        return np.zeros((0, 0), np.uint8), 0, 0
    height, width = values.shape
    fx, fy = width / (x1 - x0), height / (y1 - y0)  # pixels of the mask to a pixel of the picture
    place = np.array([[fx, 0.0, (left + 0.5 - x0) * fx - 0.5], [0.0, fy, (top + 0.5 - y0) * fy - 0.5]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    window = cv2.warpAffine(values, place, (right - left, bottom - top), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return (window > 0.5).view(np.uint8), left, top
