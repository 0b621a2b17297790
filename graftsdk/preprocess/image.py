"""What counts as an image in memory."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graftsdk.errors import DTypeError, ImageTooLarge, ImageTooSmall, InputError, LayoutError, ShapeError

__all__ = [
    "MAX_PIXELS",
    "MAX_SIDE",
    "MIN_SIDE",
    "check_color",
    "check_image",
    "check_pixels",
    "check_shape",
    "check_size",
]

Color = Literal["bgr", "rgb"]

MIN_SIDE = 16  # below it an array is more likely in another layout than a photograph
MAX_SIDE = 16_384
MAX_PIXELS = 50_000_000


def check_image(array: Any, color: Color = "bgr") -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3], BGR: the same array without a copy for `color="bgr"`, a contiguous reordered copy for "rgb".

    Any strides are taken: sliced, transposed, reversed, broadcast, read-only and memory-mapped arrays give the same
    results as a contiguous copy.

    Args:
        array: uint8[H, W, 3], sides from 16 to 16384, at most 50 million pixels.
        color: the array's channel order.

    Raises:
        InputError: not an array, or a masked one.
        DTypeError: another dtype than uint8.
        ShapeError: another rank, or not 3 channels.
        LayoutError: channels first.
        ImageTooSmall: a side under 16.
        ImageTooLarge: a side over 16384, or more than 50 million pixels.
    """
    pixels = check_pixels(array, color)
    return pixels if color == "bgr" else np.ascontiguousarray(pixels[:, :, ::-1])


def check_pixels(array: Any, color: Color = "bgr") -> npt.NDArray[np.uint8]:
    """The array as it is, in the order `color`, once it has passed every check of `check_image`."""
    check_color(color)
    if not isinstance(array, np.ndarray):
        raise InputError(f"image: expected an array uint8[H, W, 3], found {type(array).__name__}")
    if isinstance(array, np.ma.MaskedArray):
        raise InputError("image: expected a plain array, found a masked one; use image.filled(0)")
    if array.dtype != np.uint8:
        raise DTypeError(f"image: expected uint8 values 0..255, found {_dtype_name(array.dtype)}{_dtype_advice(array)}")
    check_shape(array.shape)
    check_size(array.shape[0], array.shape[1])
    return array


def check_color(color: Any) -> None:
    """Refuse another channel order than "bgr" and "rgb". Raises InputError."""
    if not isinstance(color, str) or color not in ("bgr", "rgb"):
        raise InputError(f"color: expected 'bgr' or 'rgb', found {color!r:.40}")


def check_size(height: int, width: int) -> None:
    """Refuse an image whose size is out of bounds. Raises ImageTooSmall or ImageTooLarge."""
    found = f"found {width} x {height} (width x height)"
    if min(height, width) < MIN_SIDE:
        raise ImageTooSmall(f"image: expected sides of at least {MIN_SIDE} pixels, {found}; enlarge it or leave it out")
    if max(height, width) > MAX_SIDE:
        raise ImageTooLarge(f"image: expected sides of at most {MAX_SIDE} pixels, {found}; shrink it or cut it up")
    if height * width > MAX_PIXELS:
        raise ImageTooLarge(f"image: expected at most {MAX_PIXELS} pixels, {found}; shrink it or cut it up")


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse another shape than (H, W, 3). Raises ShapeError or LayoutError."""
    found = f"found shape {list(shape)}"
    if len(shape) == 2:
        raise ShapeError(f"image: expected [H, W, 3], {found}; for grey use np.repeat(image[:, :, None], 3, axis=2)")
    if len(shape) == 4:
        raise ShapeError(f"image: expected one image [H, W, 3], {found}; pass several images as a list")
    if len(shape) != 3:
        raise ShapeError(f"image: expected [H, W, 3], {found}")
    if shape[2] == 3:
        return
    if shape[0] == 3:
        raise LayoutError(f"image: expected [H, W, 3], {found}, channels first; use image.transpose(1, 2, 0)")
    advice = "; drop or blend the alpha channel first" if shape[2] == 4 else ""
    raise ShapeError(f"image: expected 3 channels last, [H, W, 3], {found}{advice}")


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "a structured dtype" if dtype.names else dtype.str


def _dtype_advice(array: npt.NDArray[Any]) -> str:
    if array.dtype.kind == "f":
        return "; for values 0..1 use (image * 255).round().astype(np.uint8)"
    if array.dtype.kind == "u":
        return "; scale it to 0..255, then .astype(np.uint8)"
    return ""
