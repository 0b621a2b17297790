"""Real crops from a folder of images, one whole image a person."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from graftsdk.errors import InputError
from graftsdk.plan import CropSpec
from graftsdk.preprocess import decode_image, list_images, mask_crop

__all__ = ["find_samples", "sample_crops"]

_Array = np.ndarray[Any, np.dtype[Any]]


def find_samples(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The images of a folder, sorted by name. Raises InputError: no such folder, or no image in it."""
    found = tuple(list_images(folder))
    if not found:
        raise InputError(f"samples: expected a folder with images (JPEG, PNG, WebP, BMP), found none in {folder}")
    return found


def sample_crops(paths: Sequence[Path], spec: CropSpec, batch: int) -> Iterator[_Array]:
    """Crops float32[<= batch, 3, H, W], in the order of `paths`, each image decoded when its turn comes.

    The whole image is the person's box; a PNG's alpha is the mask (covered where it is at least 128 of 255).

    Raises:
        InputError: an image that cannot be read or cut; names its path.
    """
    for start in range(0, len(paths), batch):
        yield np.concatenate([_crop(path, spec) for path in paths[start : start + batch]])


def _crop(path: Path, spec: CropSpec) -> _Array:
    try:
        image = decode_image(path)
        mask = _alpha_mask(path)
        height, width = image.shape[:2]
        box = np.array([[0, 0, width, height]], np.float32)
        return mask_crop(image, box, mask, spec)
    except InputError as error:
        raise type(error)(f"sample {path}: {error}") from error


def _alpha_mask(path: Path) -> _Array | None:
    """bool[1, H, W] of a PNG with alpha, turned as its pixels are; None for all others."""
    with Image.open(path) as image:
        if image.format != "PNG" or not ("A" in image.getbands() or "transparency" in image.info):
            return None
        alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    return np.asarray(alpha)[None] >= 128
