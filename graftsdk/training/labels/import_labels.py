"""Sub-datasets of a fully annotated set, written as folders: whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from graftsdk.errors import InputError
from graftsdk.files import atomic_write
from graftsdk.text import reason
from graftsdk.training.interrupts import stop_asked
from graftsdk.training.labels.annotated import AnnotatedSet
from graftsdk.training.labels.cutting import CutOptions, Place, cut_labels
from graftsdk.training.labels.declared import GRAFT_TOML
from graftsdk.training.labels.identities import write_identities
from graftsdk.training.labels.questions import Question
from graftsdk.training.labels.sets import SPLITS
from graftsdk.training.labels.staging import check_new, staged

__all__ = ["CARD", "import_labels"]

CARD = "card.json"


def import_labels(
    images: AnnotatedSet,
    questions: Sequence[Question],
    target: str | os.PathLike[str],
    options: CutOptions | None = None,
    *,
    licence: str = "not stated",
    link: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write `<target>/<label>/{train,val,test}/<class>/*`, and give what `card.json` beside them says.

    The card names source, licence, options, questions, images and identities by label, split and class, what was left
    out, and a SHA-256 over every image's place and bytes. Each label has its `identities.csv`; `graft.toml` holds the
    order of classes that are not `no` and `yes`. Everything is written beside `target` and renamed at the end.

    Args:
        images: of a fully annotated set.
        questions: the labels.
        target: a new or empty folder.
        options: how the set is cut; see `cut_labels`.
        licence: of the images, for the card.
        link: hard links in place of copies.
        progress: show a bar.

    Raises:
        InputError: a target with something in it or that cannot be written, links across file systems, or what
            `cut_labels` refuses.
        KeyboardInterrupt: Ctrl-C or SIGTERM; nothing stays behind.
        OSError: the disk is full or fails; nothing stays behind.
    """
    options = CutOptions() if options is None else options
    folder = Path(target)
    check_new(folder)
    whole = len(images)
    if options.per_person is not None:
        images = images.at_most(options.per_person)
    with stop_asked() as stop:  # SIGTERM too: the caller may have something to clear away
        places, notes = cut_labels(images, questions, options)
        if stop.is_set():
            raise KeyboardInterrupt
    card = _card(images, questions, places, options, licence, notes) | {"images_in_source": whole}
    with stop_asked() as stop, staged(folder) as staging:
        for place in tqdm(places, unit="image", disable=not progress, leave=False):
            if stop.is_set():
                raise KeyboardInterrupt
            copy = staging / questions[place.label].label / _file(images, questions, place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            _put(images.paths[place.image], copy, link)
        for index, question in enumerate(questions):
            rows = [place for place in places if place.label == index]
            write_identities(
                staging / question.label,
                (
                    (_file(images, questions, row), images.identities[row.image], images.cameras[row.image])
                    for row in rows
                ),
            )
        declared = "".join(_declaration(question) for question in questions if question.classes != ("no", "yes"))
        if declared:
            with atomic_write(staging / GRAFT_TOML) as file:
                file.write(declared.encode())
        with atomic_write(staging / CARD) as file:
            file.write(json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        if stop.is_set():
            raise KeyboardInterrupt
    return card


def _put(source: Path, copy: Path, link: bool) -> None:
    if not link:
        shutil.copyfile(source, copy)
        return
    try:
        os.link(source.resolve(), copy)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        raise InputError(
            f"{copy}: expected a file system on which {source} can be linked, found: {reason(error)}; copy instead"
        ) from error


def _file(images: AnnotatedSet, questions: Sequence[Question], place: Place) -> str:
    return f"{place.split}/{questions[place.label].classes[place.target]}/{images.names[place.image]}"


def _declaration(question: Question) -> str:
    """JSON's quoted texts are TOML's."""
    label, classes = (json.dumps(value, ensure_ascii=False) for value in (question.label, list(question.classes)))
    return f"[labels.{label}]\nclasses = {classes}\n\n"


def _card(
    images: AnnotatedSet,
    questions: Sequence[Question],
    places: Sequence[Place],
    options: CutOptions,
    licence: str,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for place in places:
        name = f"{questions[place.label].label}/{_file(images, questions, place)}\0"
        digest.update(name.encode("utf-8", "surrogateescape") + place.digest)
    people: defaultdict[tuple[int, str, int], list[str]] = defaultdict(list)
    for place in places:
        people[place.label, place.split, place.target].append(images.identities[place.image])
    labels: dict[str, Any] = {}
    for index, question in enumerate(questions):
        found = {split: [people[index, split, target] for target in range(len(question.classes))] for split in SPLITS}
        labels[question.label] = {
            "classes": list(question.classes),
            "expressions": dict(zip(question.classes, question.expressions, strict=True)),
            "images": {split: [len(side) for side in sides] for split, sides in found.items()},
            "identities": {split: [len(set(side)) for side in sides] for split, sides in found.items()},
        }
    return {
        "source": images.source,
        "licence": licence,
        "options": asdict(options) | {"split": "by identity" if images.splits is None else "the set's own"},
        "labels": labels,
        "notes": list(notes),
        "digest": digest.hexdigest(),
    }
