"""Drawn scenes as a folder in COCO's layout."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError, MissingDependency
from graftsdk.files import atomic_write
from graftsdk.text import reason
from graftsdk.training.synthetic.scene import DrawnPerson, check_size, draw_scene

__all__ = ["ANNOTATIONS", "IMAGES", "generator_digest", "is_crowd", "write_scenes"]

IMAGES, ANNOTATIONS = "scenes", "annotations/instances_scenes.json"
MOST_SCENES = 999_999  # what names of six digits can tell apart
LEAST_VISIBLE = 0.12  # share of the body inside the picture; less of it is not asked for
LEAST_PIXELS = 60 / (360 * 640)  # share of the picture; a smaller person is not asked for


def generator_digest() -> str:
    """SHA-256 over this package's own source files, names and bytes: two data sets of equal digest, seed, count and
    size hold the same scenes.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


def is_crowd(person: DrawnPerson) -> bool:
    """Whether too little of a person is seen to ask for it: below 12% of the body in the picture, or 60 pixels of
    640x360 (other sizes: the same share).
    """
    pixels = int(np.count_nonzero(person.mask))
    return 1 - person.occlusion < LEAST_VISIBLE or pixels < LEAST_PIXELS * person.mask.size


def write_scenes(
    folder: str | os.PathLike[str],
    count: int,
    seed: int = 0,
    size: tuple[int, int] = (360, 640),
    progress: bool = False,
    workers: int = 1,
) -> Path:
    """Draw scenes 0 to count - 1 of a seed into `folder`: `scenes/000000.jpg` and the annotations in COCO's layout.

    Annotations are run-length encoded; `iscrowd` is 1 where `is_crowd` says so; `attributes`, `occlusion` and
    `amodal_area` stand beside COCO's own fields; `info` names the generator's digest and the seed. The JSON is written
    last: a folder without it is unfinished.

    Args:
        folder: new or empty.
        count: of scenes.
        seed: of the series.
        size: (height, width), pixels.
        progress: show a bar.
        workers: processes that draw.

    Returns:
        The annotations' path.

    Raises:
        InputError: a folder with something in it or that cannot be made, or another argument out of its range.
        ShapeError: a size that `draw_scene` refuses.
        MissingDependency: pycocotools is not installed.
        OSError: the disk is full or fails.
    """
    count = whole_number("count", count, 1, MOST_SCENES)
    workers = whole_number("workers", workers, 1, 256)
    seed = whole_number("seed", seed, 0, 2**63 - 1)
    size = check_size(size)
    _coco_mask()
    root = _new_folder(Path(folder))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with tqdm(total=count, unit="scene", disable=not progress, leave=False) as bar:
        for index, persons in enumerate(_drawn(root, count, seed, size, min(workers, count))):
            images.append({"id": index, "file_name": _name(index), "height": size[0], "width": size[1]})
            for person in persons:
                annotations.append({"id": len(annotations) + 1, "image_id": index, "category_id": 1, **person})
            bar.update()
    document = {
        "info": {
            "description": "procedurally drawn lift scenes",
            "generator": generator_digest(),
            "seed": seed,
            "count": count,
            "size": list(size),
        },
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }
    target = root / ANNOTATIONS
    with atomic_write(target) as file:
        file.write(json.dumps(document, allow_nan=False, separators=(",", ":")).encode())
    return target


def _new_folder(root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise InputError(f"{root}: expected a new or empty folder, found files in it; name another")
        (root / IMAGES).mkdir()
        (root / ANNOTATIONS).parent.mkdir()
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{root}: expected a folder, found a file; name another") from error
    except PermissionError as error:
        raise InputError(f"{root}: expected a folder that can be written, found: {reason(error)}") from error
    return root


def _drawn(root: Path, count: int, seed: int, size: tuple[int, int], workers: int) -> Iterator[list[dict[str, Any]]]:
    """The persons of each scene in order, as annotations; the pictures are written by whoever draws them."""
    draw = partial(_draw_one, root, seed, size)
    if workers == 1:
        yield from map(draw, range(count))
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(draw, range(count), chunksize=8)


def _draw_one(root: Path, seed: int, size: tuple[int, int], index: int) -> list[dict[str, Any]]:
    scene = draw_scene(seed, index, size)
    encoded = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, scene.quality])[1]
    with atomic_write(root / IMAGES / _name(index)) as file:
        file.write(encoded.tobytes())
    return [_annotation(person) for person in scene.persons]


def _coco_mask() -> Any:
    """The module of COCO's masks, which is not part of the base installation."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise MissingDependency(f"a data set of scenes needs {error.name}: pip install 'graftsdk[train]'") from error
    return mask


def _name(index: int) -> str:
    return f"{index:06d}.jpg"


def _annotation(person: DrawnPerson) -> dict[str, Any]:
    x1, y1, x2, y2 = person.box
    return {
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(np.count_nonzero(person.mask)),
        "iscrowd": int(is_crowd(person)),
        "segmentation": _run_lengths(person.mask),
        "occlusion": round(person.occlusion, 4),
        "amodal_area": int(np.count_nonzero(person.amodal)),
        "attributes": person.attributes,
    }


def _run_lengths(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run lengths."""
    encoded = _coco_mask().encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
