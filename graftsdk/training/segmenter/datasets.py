"""Images with instance masks, whatever the layout they came from; which layout a folder has; splits by name."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

from graftsdk.errors import InputError
from graftsdk.text import counted

__all__ = [
    "AnnotatedImage",
    "Annotation",
    "ImageSet",
    "open_image_set",
    "open_training_sets",
    "parse_share",
    "split_by_name",
]

_logger = logging.getLogger("graftsdk")


@dataclass(frozen=True)
class Annotation:
    """One instance.

    Attributes:
        label: index of its class, 0 the first that is no background.
        crowd: a region of many, or of what is too small to ask for: never a target, never background either.
        segmentation: its pixels, COCO's compressed run lengths {"size": [H, W], "counts": bytes}; never empty.
    """

    label: int
    crowd: bool
    segmentation: dict[str, Any]

    def mask(self) -> npt.NDArray[np.uint8]:
        """uint8[H, W], 0 and 1."""
        decoded: npt.NDArray[np.uint8] = rle.decode(self.segmentation)
        return decoded


@dataclass(frozen=True)
class AnnotatedImage:
    """One image of a data set.

    Attributes:
        path: the file, which was there when the set was opened.
        size: (height, width) in pixels, as annotated.
        annotations: none for an image of background only.
    """

    path: Path
    size: tuple[int, int]
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class ImageSet:
    """Annotated images.

    Attributes:
        name: how it is called in messages: its path.
        images: in the order of their file names.
        classes: names without background; annotations count them from 0.
        digest: SHA-256, 64 hex digits, of the annotations it was read from.
        notes: what was wrong in it and is left out or mended, one line each, with count and first example.
    """

    name: str
    images: tuple[AnnotatedImage, ...]
    classes: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def instances(self) -> int:
        """How many instances there are to learn, crowds not counted."""
        return sum(not annotation.crowd for image in self.images for annotation in image.annotations)

    def summary(self) -> str:
        """One line."""
        empty = sum(not image.annotations for image in self.images)
        return (
            f"{self.name}: {counted(len(self), 'image')}, {counted(self.instances, 'instance')}, "
            f"{empty} without annotation"
        )


def open_image_set(path: str | os.PathLike[str], classes: Sequence[str] = ("person",)) -> ImageSet:
    """The images of a folder in COCO's or Penn-Fudan's layout, or of one COCO instances file, checked.

    COCO: `annotations/instances_X.json` with the images in `X/` or `images/`; where several such files lie there,
    name one of them instead of the folder. Penn-Fudan: `PNGImages/` and `PedMasks/`.

    Raises:
        InputError: another layout, or annotations that cannot be used; see `read_coco` and `read_penn_fudan`.
    """
    from graftsdk.training.segmenter.coco import read_coco
    from graftsdk.training.segmenter.penn_fudan import read_penn_fudan

    folder = Path(path)
    if folder.is_file():
        return read_coco(folder, classes)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of annotated images, found no folder of that name")
    if (folder / "PedMasks").is_dir() and (folder / "PNGImages").is_dir():
        return read_penn_fudan(folder, classes)
    found = sorted((folder / "annotations").glob("instances_*.json"))
    if len(found) == 1:
        return read_coco(found[0], classes)
    if not found:
        raise InputError(
            f"{folder}: expected annotations/instances_*.json (COCO) or PNGImages/ and PedMasks/ (Penn-Fudan), "
            f"found neither"
        )
    names = ", ".join(entry.name for entry in found[:4])
    raise InputError(f"{folder}: expected one instances_*.json, found {len(found)} ({names}); name the one to read")


def parse_share(text: str) -> tuple[str, float | None]:
    """("folder", 0.3) of "folder:0.3", ("folder", None) of "folder".

    Raises:
        InputError: a share that is not above 0 and below 1.
    """
    path, mark, number = text.rpartition(":")
    if not mark or Path(text).exists():
        return text, None
    try:
        share = float(number)
    except ValueError:
        return text, None
    if not 0.0 < share < 1.0:
        raise InputError(f"{text}: expected a share above 0 and below 1 after the colon, found {number}")
    return path, share


def split_by_name(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """(the rest, `share` of the images), the same in every run and whatever else lies in the folder.

    An image's place depends on its file name alone (SHA-256 of it): images that are added later move no other.

    Raises:
        InputError: `share` is not above 0 and below 1, or one side stays empty.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"val_split: expected a number above 0 and below 1, found {share!r}")
    held = [
        int(hashlib.sha256(image.path.name.encode()).hexdigest()[:8], 16) < share * 2**32 for image in images.images
    ]
    if all(held) or not any(held):
        raise InputError(
            f"{images.name}: expected images on both sides of a split by {share:g}, found {len(images)} on one; "
            f"name the validation data itself"
        )

    def part(side: bool) -> ImageSet:
        chosen = tuple(image for image, is_held in zip(images.images, held, strict=True) if is_held is side)
        return ImageSet(images.name, chosen, images.classes, images.digest, images.notes if not side else ())

    return part(False), part(True)


def open_training_sets(
    data: Sequence[str | os.PathLike[str]],
    val: Sequence[str | os.PathLike[str]],
    val_split: float | None,
    classes: Sequence[str],
) -> tuple[list[ImageSet], list[float | None], list[AnnotatedImage]]:
    """(the sets to learn from, their shares, the images to evaluate on), with a log line for each set.

    Args:
        data: paths, perhaps with shares, see `parse_share`.
        val: paths.
        val_split: in place of `val`, see `split_by_name`.
        classes: names without background.

    Raises:
        InputError: see `open_image_set`; nothing to learn from or to be evaluated on, or both `val` and `val_split`.
    """
    if not data:
        raise InputError("data: expected a folder of annotated images, found none")
    if val and val_split is not None:
        raise InputError("validation: expected val or val_split, found both")
    named = [parse_share(os.fspath(entry)) for entry in data]
    sets = [open_image_set(path, classes) for path, _ in named]
    held_out: list[AnnotatedImage] = []
    if val_split is not None:
        split = [split_by_name(images, val_split) for images in sets]
        sets = [rest for rest, _ in split]
        held_out = [image for _, held in split for image in held.images]
    opened = [open_image_set(path, classes) for path in val]
    held_out += [image for images in opened for image in images.images]
    for images in (*sets, *opened):
        _logger.info("%s", images.summary())
        for note in images.notes:
            _logger.info("%s", note)
    if not any(images.instances for images in sets):
        raise InputError(f"data: expected instances of {', '.join(classes)}, found none in {sets[0].name}")
    if (val or val_split is not None) and not any(not a.crowd for image in held_out for a in image.annotations):
        raise InputError(f"validation: expected instances of {', '.join(classes)}, found none")
    return sets, [share for _, share in named], held_out
