"""Drawn scenes, as `graftsdk scenes` writes them: every person cut out by the mask, with the attributes drawn."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from graftsdk.drawing.pictures import encode
from graftsdk.errors import InputError, MissingDependency
from graftsdk.preprocess import decode_image
from graftsdk.preprocess.cutout import cut_out
from graftsdk.preprocess.image import MIN_SIDE
from graftsdk.text import counted, reason
from graftsdk.training.interrupts import stop_asked
from graftsdk.training.labels.annotated import AnnotatedSet
from graftsdk.training.labels.questions import Question
from graftsdk.training.labels.staging import check_new, put, scratch
from graftsdk.training.labels.told import attribute_table
from graftsdk.training.synthetic.dataset import ANNOTATIONS

__all__ = ["cut_scenes"]

CAMERA = "drawn"  # the annotations do not say which place a scene shows


@dataclass(frozen=True)
class _Person:
    """Somebody on a scene.

    Attributes:
        scene: its number, in the order of file names.
        image: its file.
        size: its height and width, pixels.
        runs: of the mask, COCO's packed run lengths.
        attributes: as annotated.
    """

    scene: int
    image: Path
    size: tuple[int, int]
    runs: bytes
    attributes: dict[str, Any]


@contextmanager
def cut_scenes(
    folder: str | os.PathLike[str],
    target: str | os.PathLike[str],
    questions: Sequence[Question] = (),
    *,
    progress: bool = False,
) -> Iterator[AnnotatedSet]:
    """The people of a folder of scenes, for as long as the block lasts: each a PNG whose alpha is the mask.

    Cut as `graftsdk crop` cuts, along the mask's own box. Crowds (who is too hidden or too small to ask for), people
    of less than 16 pixels across, and empty masks are left out and told in `notes`. Everybody is an identity; a scene
    is a unit, so that no split divides one. `attribute_table` says what attributes there are.

    Args:
        folder: with `annotations/instances_scenes.json` and `scenes/`.
        target: what will be written of them; the pictures lie beside it until the block ends.
        questions: to be asked; refused here where they cannot be, before anything is cut.
        progress: show a bar.

    Raises:
        InputError: annotations that `read_coco` refuses, or without attributes that can be asked for; an image that
            cannot be read or has another size than annotated; a target with something in it; a question that the set
            has no attribute for.
        MissingDependency: pycocotools is not installed.
        KeyboardInterrupt: Ctrl-C or SIGTERM while cutting; nothing stays behind.
        OSError: the disk is full or fails; nothing stays behind.
    """
    target = Path(target)
    check_new(target)
    everybody, notes = _read(Path(folder))
    people, boxes, small = [], [], 0
    for person in everybody:
        box = _box(person)
        if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
            small += 1
            continue
        people.append(person)
        boxes.append(box)
    if small:
        notes += (f"{counted(small, 'person')} of less than {MIN_SIDE} pixels across",)
    if not people:
        raise InputError(f"{folder}: expected people with masks that are no crowd, found none")
    attributes, values = attribute_table([person.attributes for person in people], str(Path(folder) / ANNOTATIONS))
    names = _names(people)
    with scratch(target) as home:
        images = AnnotatedSet(
            source="drawn scenes",
            paths=tuple(home / name for name in names),
            names=names,
            identities=tuple(name.removesuffix(".png") for name in names),
            cameras=(CAMERA,) * len(people),
            units=tuple(f"scene {person.scene}" for person in people),
            splits=None,
            attributes=attributes,
            values=values,
            notes=notes,
        )
        for question in questions:
            question.targets(images)
        _cut(people, boxes, images.paths, progress)
        yield images


def _read(folder: Path) -> tuple[list[_Person], tuple[str, ...]]:
    """(everybody who is no crowd and has a mask, in the order of the scenes; what was left out)."""
    try:
        from graftsdk.training.segmenter.coco import read_coco
    except ImportError as error:
        raise MissingDependency(f"reading scenes needs {error.name}: pip install 'graftsdk[train]'") from error
    path = folder / ANNOTATIONS
    if not path.is_file():
        raise InputError(f"{folder}: expected a folder that graftsdk scenes made, with {ANNOTATIONS}, found none")
    checked = read_coco(path)  # of these bytes every id, size and mask is as it has to be
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, found: {reason(error)}") from error
    if hashlib.sha256(text).hexdigest() != checked.digest:
        raise InputError(f"{path}: expected annotations that stay as they are, found that they changed; try again")
    document = json.loads(text)
    listed = sorted(document["images"], key=lambda entry: str(entry["file_name"]))  # the order of `checked.images`
    scenes = {entry["id"]: index for index, entry in enumerate(listed)}
    person = next(entry["id"] for entry in document["categories"] if entry["name"] == "person")
    people, crowds = [], 0
    for entry in document["annotations"]:
        scene = scenes.get(entry["image_id"])
        if entry["category_id"] != person or scene is None:
            continue  # told by `read_coco`
        if entry.get("iscrowd"):
            crowds += 1
            continue
        where = f"{path}: annotation {entry['id']!r:.40}"
        runs = entry["segmentation"].get("counts") if isinstance(entry["segmentation"], dict) else None
        if not isinstance(runs, str):
            raise InputError(f"{where}: expected packed run lengths, as graftsdk scenes writes them, found others")
        told = entry.get("attributes")
        if not isinstance(told, dict):
            raise InputError(f"{where}: expected a table of attributes, found {told!r:.80}")
        image = checked.images[scene]
        found = _Person(scene, image.path, image.size, runs.encode("ascii"), told)
        if _mask_area(found):
            people.append(found)
    notes = checked.notes + ((f"{counted(crowds, 'person')} too hidden or too small to ask for",) if crowds else ())
    return sorted(people, key=lambda each: each.scene), notes


def _runs(person: _Person) -> dict[str, Any]:
    return {"size": list(person.size), "counts": person.runs}


def _mask_area(person: _Person) -> int:
    from pycocotools import mask as rle

    return int(rle.area(_runs(person)))


def _box(person: _Person) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around the mask, half-open; the mask is not decoded for it."""
    from pycocotools import mask as rle

    x, y, width, height = (round(value) for value in rle.toBbox(_runs(person)).tolist())
    return x, y, x + width, y + height


def _names(people: Sequence[_Person]) -> tuple[str, ...]:
    """Of the pictures: the scene's number, and whose in it."""
    found = []
    for scene, group in groupby(people, key=lambda person: person.scene):
        found += [f"{scene:06d}_{index}.png" for index, _ in enumerate(group)]
    return tuple(found)


def _cut(
    people: Sequence[_Person], boxes: Sequence[tuple[int, int, int, int]], paths: Sequence[Path], progress: bool
) -> None:
    """Write the pictures, each scene decoded once."""
    from pycocotools import mask as rle

    everything = zip(people, boxes, paths, strict=True)
    with stop_asked() as stop, tqdm(total=len(people), unit="person", disable=not progress, leave=False) as bar:
        for source, group in groupby(everything, key=lambda entry: entry[0].image):
            if stop.is_set():
                raise KeyboardInterrupt
            try:
                image = decode_image(source)
            except InputError as error:
                raise type(error)(f"{source}: {error}") from error
            for person, box, path in group:
                if image.shape[:2] != person.size:
                    high, wide = person.size
                    raise InputError(
                        f"{source}: expected {wide}x{high} pixels, as annotated, found {image.shape[1]}x"
                        f"{image.shape[0]}"
                    )
                mask = rle.decode(_runs(person)).astype(bool)
                put(path, encode(cut_out(image, np.array(box), mask[None]).pixels, ".png"))
                bar.update()
