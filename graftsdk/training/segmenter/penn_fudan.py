"""The Penn-Fudan pedestrians: PNGImages/X.png beside PedMasks/X_mask.png, whose pixel values number the persons."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from graftsdk.errors import InputError
from graftsdk.text import counted, listed
from graftsdk.training.segmenter.datasets import AnnotatedImage, Annotation, ImageSet

__all__ = ["read_penn_fudan"]


def read_penn_fudan(folder: Path, classes: Sequence[str] = ("person",)) -> ImageSet:
    """All images of the folder with their persons; every value above 0 in a mask is one person.

    A mask without a person makes an image of background.

    Raises:
        InputError: no images, images without a mask, masks without an image or that are no single-channel picture, a
            class other than person.
    """
    if tuple(classes) != ("person",):
        raise InputError(f"{folder}: Penn-Fudan has the class 'person' only, found {listed(classes)} asked for")
    pictures = sorted((folder / "PNGImages").glob("*.png"))
    masks = {path.name.removesuffix("_mask.png"): path for path in (folder / "PedMasks").glob("*_mask.png")}
    if not pictures:
        raise InputError(f"{folder}: expected PNGImages/*.png, found none")
    for what, missing in (
        ("images without a mask PedMasks/X_mask.png", [p.stem for p in pictures if p.stem not in masks]),
        ("masks without an image PNGImages/X.png", sorted(masks.keys() - {p.stem for p in pictures})),
    ):
        if missing:
            raise InputError(
                f"{folder}: expected a mask for each image, found {len(missing)} {what}, first {missing[0]!r}"
            )
    digest = hashlib.sha256()
    images = []
    for picture in pictures:
        data = masks[picture.stem].read_bytes()
        digest.update(picture.stem.encode() + b"\0" + hashlib.sha256(data).digest())
        numbers = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
        if numbers is None or numbers.ndim != 2:
            raise InputError(f"{masks[picture.stem]}: expected a PNG of one channel, found another file")
        persons = tuple(
            Annotation(0, False, rle.encode(np.asfortranarray(numbers == number, np.uint8)))
            for number in np.unique(numbers)
            if number
        )
        images.append(AnnotatedImage(picture, (numbers.shape[0], numbers.shape[1]), persons))
    found = ImageSet(str(folder), tuple(images), ("person",), digest.hexdigest())
    if not found.instances:
        raise InputError(f"{folder}: expected persons in the masks of {counted(len(images), 'image')}, found none")
    return found
