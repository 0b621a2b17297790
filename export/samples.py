"""Real crops from a folder of images, one whole image a person."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftsdk.errors import InputError
from graftsdk.plan import CropSpec
from graftsdk.preprocess import list_images, read_crop

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
        yield np.stack([_crop(path, spec) for path in paths[start : start + batch]])


def _crop(path: Path, spec: CropSpec) -> _Array:
    try:
        return read_crop(path, spec)
    except InputError as error:
        raise type(error)(f"sample {error}") from error
