"""COCO instances files: JSON with polygons, run lengths and crowd regions, beside a folder of images."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from graftsdk.errors import InputError
from graftsdk.text import counted, listed, reason
from graftsdk.training.segmenter.datasets import AnnotatedImage, Annotation, ImageSet

__all__ = ["read_coco"]

PREFIX = "instances_"
MOST_JSON_BYTES = 2 * 2**30  # COCO's own train2017 has 470 MB


def read_coco(path: Path, classes: Sequence[str] = ("person",)) -> ImageSet:
    """The images of one instances file and their instances of `classes`; other categories are left out.

    Polygons that reach outside their image are clipped. Annotations whose mask is empty (no pixel, no polygon of
    three points, all of it outside) and annotations of images that the file does not list are left out and told in
    `notes`. Images without an annotation stay, as background. Areas and boxes in the file are not read: both come
    from the masks.

    Raises:
        InputError: the file cannot be read, is broken JSON or has no lists of images, annotations and categories; a
            class that is no category; an id given twice; sizes, polygons or run lengths that cannot be; images that
            are missing on disk. Says how many and which first.
    """
    data, digest = _load(path)
    images = _by_id(path, data["images"], "image")
    _by_id(path, data["annotations"], "annotation")
    labels = _labels(path, data["categories"], classes)
    folder = _folder(path)
    _check_images(path, folder, images)
    annotations: dict[Any, list[Annotation]] = {}
    left: Counter[str] = Counter()
    first: dict[str, Any] = {}
    for entry in data["annotations"]:
        for name in ("category_id", "image_id"):
            if not isinstance(entry.get(name), (int, str)):
                raise InputError(
                    f"{path}: annotation {entry['id']!r:.40}: expected a number or text as {name}, found "
                    f"{entry.get(name)!r:.80}"
                )
        if entry.get("category_id") not in labels:
            continue
        image = images.get(entry.get("image_id"))
        why = "of images that it does not list" if image is None else ""
        if image is not None:
            try:
                segmentation = _segmentation(entry.get("segmentation"), image["height"], image["width"])
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                raise InputError(f"{path}: annotation {entry['id']!r}: {error!s:.200}") from error
            if segmentation is not None and rle.area(segmentation) > 0:
                crowd = bool(entry.get("iscrowd", 0))
                made = Annotation(labels[entry["category_id"]], crowd, segmentation)
                annotations.setdefault(image["id"], []).append(made)
                continue
            why = "with an empty mask"
        left[why] += 1
        first.setdefault(why, entry["id"])
    notes = tuple(
        f"{path}: left out {counted(count, 'annotation')} {why}, the first has id {first[why]!r}"
        for why, count in left.items()
    )
    return ImageSet(
        str(path),
        tuple(
            AnnotatedImage(
                folder / entry["file_name"], (entry["height"], entry["width"]), tuple(annotations.get(entry["id"], ()))
            )
            for entry in sorted(images.values(), key=lambda entry: str(entry["file_name"]))
        ),
        tuple(classes),
        digest,
        notes,
    )


def _load(path: Path) -> tuple[dict[str, Any], str]:
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise InputError(f"{path}: expected at most {MOST_JSON_BYTES} bytes, found {path.stat().st_size}")
        text = path.read_bytes()
        data = json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, found: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected COCO's instances JSON, found broken JSON: {error!s:.200}") from error
    wanted = ("images", "annotations", "categories")
    for name in wanted:
        found = data.get(name) if isinstance(data, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise InputError(f"{path}: expected COCO's instances JSON with a list {name!r}, found none")
    if not data["images"]:
        raise InputError(f"{path}: expected images, found an empty list")
    return data, hashlib.sha256(text).hexdigest()


def _by_id(path: Path, entries: list[dict[str, Any]], what: str) -> dict[Any, dict[str, Any]]:
    try:
        counts = Counter(entry.get("id") for entry in entries)
    except TypeError as error:
        raise InputError(f"{path}: expected {what} ids of numbers or texts, found: {error}") from error
    if None in counts:
        raise InputError(f"{path}: expected an id in every {what}, found {counts[None]} without")
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise InputError(f"{path}: expected each {what} id once, found {len(twice)} given again, first {twice[0]!r}")
    return {entry["id"]: entry for entry in entries}


def _labels(path: Path, categories: list[dict[str, Any]], classes: Sequence[str]) -> dict[Any, int]:
    """Category id -> index in `classes`."""
    ids: dict[Any, Any] = {}
    for entry in _by_id(path, categories, "category").values():
        name = entry.get("name")
        if not isinstance(name, str):
            raise InputError(f"{path}: expected categories with names, found {name!r:.80}")
        if name in classes and name in ids:
            raise InputError(
                f"{path}: expected each category once, found {name!r} with the ids {ids[name]!r:.40} and "
                f"{entry['id']!r:.40}"
            )
        ids[name] = entry["id"]
    missing = [name for name in classes if name not in ids]
    if missing:
        names = [str(name) for name in list(ids)[:8]]
        raise InputError(f"{path}: expected the categories {listed(missing)}, found {listed(names)}")
    return {ids[name]: index for index, name in enumerate(classes)}


def _folder(path: Path) -> Path:
    """X/ beside annotations/instances_X.json, or images/, or the file's own folder."""
    parent = path.parent.parent if path.parent.name == "annotations" else path.parent
    for folder in (parent / path.stem.removeprefix(PREFIX), parent / "images"):
        if folder.is_dir():
            return folder
    return parent


def _check_images(path: Path, folder: Path, images: dict[Any, dict[str, Any]]) -> None:
    missing = []
    for entry in images.values():
        name, sides = entry.get("file_name"), (entry.get("height"), entry.get("width"))
        if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}: image {entry['id']!r}: expected a file name inside {folder}, found {name!r:.80}")
        if not all(type(side) is int and 1 <= side <= 2**15 for side in sides):
            raise InputError(f"{path}: image {entry['id']!r}: expected height and width in pixels, found {sides}")
        if not (folder / name).is_file():
            missing.append(name)
    if missing:
        raise InputError(
            f"{path}: expected {counted(len(images), 'image')} in {folder}, found {len(missing)} missing, "
            f"first {missing[0]!r}; take them out of the JSON or put them there"
        )
    names = Counter(entry["file_name"] for entry in images.values())
    name, count = names.most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: expected each image file once, found {name!r} {count} times")


def _segmentation(value: Any, height: int, width: int) -> dict[str, Any] | None:
    """Compressed run lengths, or None for nothing. Raises ValueError, TypeError or KeyError for what cannot be."""
    if isinstance(value, list):
        polygons = [np.asarray(polygon, np.float64) for polygon in value]
        for polygon in polygons:
            if polygon.ndim != 1 or len(polygon) % 2 or not np.isfinite(polygon).all():
                raise ValueError("expected polygons x, y, x, y, ... of finite numbers")
            if len(polygon) and np.abs(polygon).max() > 2**20:
                raise ValueError("expected polygons in pixels of the image, found a coordinate above a million")
        usable = [polygon for polygon in map(_inside(height, width), polygons) if len(polygon) >= 6]
        if not usable:
            return None
        return _merged(rle.frPyObjects([polygon.tolist() for polygon in usable], height, width))
    if not isinstance(value, dict):
        raise ValueError(f"expected polygons or run lengths, found {type(value).__name__}")
    if value["size"] != [height, width]:
        raise ValueError(f"expected run lengths of {[height, width]} (height, width), found {value['size']!r:.80}")
    counts = value["counts"]
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
            raise ValueError(f"expected run lengths that sum to {height * width}")
        return _merged([rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)])
    packed = counts.encode("ascii") if isinstance(counts, str) else counts
    if _packed_sum(packed) != height * width:  # pycocotools would write past its buffer
        raise ValueError(f"expected run lengths that sum to {height * width}")
    return {"size": [height, width], "counts": packed}


def _merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = rle.merge(runs) if len(runs) != 1 else runs[0]
    return merged


def _inside(height: int, width: int) -> Any:
    """Clips one polygon x, y, x, y ... to the image (Sutherland and Hodgman 1974)."""
    sides = ((0, 1.0, 0.0), (0, -1.0, -float(width)), (1, 1.0, 0.0), (1, -1.0, -float(height)))

    def clip(polygon: np.ndarray) -> np.ndarray:
        points = [(float(x), float(y)) for x, y in polygon.reshape(-1, 2)]
        if all(0 <= x <= width and 0 <= y <= height for x, y in points):
            return polygon
        for axis, sign, bound in sides:
            kept: list[tuple[float, float]] = []
            for before, after in zip(points[-1:] + points[:-1], points, strict=True):
                inner = (sign * before[axis] - bound, sign * after[axis] - bound)
                if (inner[0] >= 0) != (inner[1] >= 0):
                    part = inner[0] / (inner[0] - inner[1])
                    kept.append((before[0] + part * (after[0] - before[0]), before[1] + part * (after[1] - before[1])))
                if inner[1] >= 0:
                    kept.append(after)
            points = kept
            if not points:
                break
        return np.asarray(points, np.float64).reshape(-1)

    return clip


def _packed_sum(packed: bytes) -> float:
    """How many pixels COCO's packed run lengths cover; infinite for bytes that are none.

    Each count is a base-32 number, low digits first, as characters from 48 on with 32 for "more follows", signed; from
    the fourth on the difference to the count two before.
    """
    counts: list[int] = []
    value = shift = 0
    for byte in packed:
        digit = byte - 48
        if not 0 <= digit < 64:
            return math.inf
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            if shift > 40:
                return math.inf
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if counts[-1] < 0:
            return math.inf
        value = shift = 0
    return sum(counts) if not shift else math.inf
