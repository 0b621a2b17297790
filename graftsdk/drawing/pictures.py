"""Pictures into files, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError

__all__ = ["PICTURES", "check_suffix", "encode", "write_picture"]

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # what is written; the suffix says which kind


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """The path of a picture to be written. Raises InputError where its suffix is none of `PICTURES`."""
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in PICTURES:
        raise InputError(f"{target}: expected a suffix of {', '.join(PICTURES)}, found {suffix!r}")
    return target


def write_picture(path: str | os.PathLike[str], picture: npt.NDArray[np.uint8]) -> None:
    """Write uint8[H, W, 3], BGR, to a file, whole or not at all.

    Raises:
        InputError: a suffix other than `PICTURES`, or a picture that the kind cannot hold.
        PlanPathError: a path that must not be written.
    """
    from graftsdk.files import atomic_write

    target = check_suffix(path)
    content = encode(picture, target.suffix.lower())
    with atomic_write(target) as file:
        file.write(content)


def encode(picture: npt.NDArray[np.uint8], suffix: str, quality: int = 95) -> bytes:
    """The picture, uint8[H, W, 3], BGR, as the bytes of a file with this suffix; JPEG and WebP at this quality.

    Raises:
        InputError: the kind of file cannot hold it (WebP ends at 16383 pixels a side, JPEG at 65500).
    """
    import cv2  # here: a `Prediction` is made without it

    qualities = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [qualities[suffix], quality] if suffix in qualities else []
    content: Any
    try:
        done, content = cv2.imencode(suffix, picture, options)
    except cv2.error as error:
        raise InputError(f"{picture.shape[1]}x{picture.shape[0]} pixels as {suffix}: {error}; save as .png") from error
    if not done:
        raise InputError(f"{picture.shape[1]}x{picture.shape[0]} pixels do not fit into {suffix}; save as .png")
    return bytes(content.tobytes())
