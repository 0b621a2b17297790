"""A crop that lies on disk as a picture of its own: from the file to the network's input, as serving cuts it."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from graftsdk.errors import InputError
from graftsdk.plan.cropspec import CropSpec
from graftsdk.preprocess.crop import mask_crop
from graftsdk.preprocess.decode import decode_image

__all__ = ["read_crop"]


def read_crop(path: str | os.PathLike[str], spec: CropSpec) -> npt.NDArray[np.float32]:
    """float32[3, H, W]: the person whose picture this is, with the pixels that `mask_crop` gives to an engine.

    The whole image is the person's box; a PNG's alpha is the mask (covered where it is at least 128 of 255). Where
    `spec` keeps the background, it is the colours that the PNG has under its alpha.

    Raises:
        InputError and its leaves: what `decode_image` and `mask_crop` raise; the message begins with the path. An
            image of more than 50 million pixels is refused before it is decoded.
    """
    try:
        image = decode_image(path)
        height, width = image.shape[:2]
        box = np.array([[0, 0, width, height]], np.float32)
        pixels = _with_alpha(path)
        mask = None if pixels is None else pixels[None, :, :, 3] >= 128
        if pixels is not None and spec.background == "keep":
            image = np.ascontiguousarray(pixels[:, :, 2::-1])  # decoding lays what is transparent over black
        crop: npt.NDArray[np.float32] = mask_crop(image, box, mask, spec)[0]
    except InputError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error
    return crop


def _with_alpha(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8] | None:
    """uint8[H, W, 4], RGBA, of a PNG with alpha, turned as its pixels are; None for all others."""
    with Image.open(path) as image:
        if image.format != "PNG" or not ("A" in image.getbands() or "transparency" in image.info):
            return None
        return np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
