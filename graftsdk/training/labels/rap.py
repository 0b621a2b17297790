"""RAP (Li et al., 2016 and 2019): `RAP_annotation/RAP_annotation.mat` and `RAP_dataset/`, version 1 or 2."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from graftsdk.errors import InputError
from graftsdk.text import counted
from graftsdk.training.labels.annotated import NO, UNKNOWN, YES, AnnotatedSet, load_mat, texts

__all__ = ["read_rap"]

# CAM01_2014-02-15_20140215161032-20140215162620_tarid0_frame218_line1.png, with "-" for "_" in version 2
_TRACK = re.compile(r"(?P<camera>CAM\d+)[-_].*[-_]tarid\d+(?=[-_]frame)", re.IGNORECASE)


def read_rap(folder: str | os.PathLike[str]) -> AnnotatedSet:
    """The images of the annotation; an attribute that is neither 0 nor 1 there (2: unknown) is unknown.

    Who is on an image: `person_identity`, where version 2 gives one; elsewhere the track that the file name tells, so
    that a person who was followed by two cameras is two. RAP's own partitions divide tracks and are not used.

    Raises:
        InputError: no such file or another content, or no image that it names.
    """
    root = Path(folder)
    path = next((root / name for name in _ANNOTATIONS if (root / name).is_file()), root / _ANNOTATIONS[0])
    fields = _fields(load_mat(path), path)
    names = texts(_first(fields, ("name", "imagesname"), path))
    attributes = texts(_first(fields, ("attribute_eng", "attribute"), path))
    labels = next((v for v in fields.values() if getattr(v, "shape", None) == (len(names), len(attributes))), None)
    if labels is None or labels.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected a matrix {[len(names), len(attributes)]}, images by attributes, found none")
    persons = np.asarray(fields.get("person_identity", ()), object).ravel()
    home = root / "RAP_dataset"
    kept, identities, cameras = [], [], []
    for index, name in enumerate(names):
        if not name or Path(name).name != name or not (home / name).is_file():
            continue
        track = _TRACK.match(name)
        person = _number(persons[index]) if index < len(persons) else 0
        kept.append(index)
        cameras.append(track["camera"].upper() if track else "")
        identities.append(f"person {person}" if person > 0 else track[0] if track else name)
    if not kept:
        raise InputError(f"{home}: expected the images that {path.name} names, found none")
    missing = len(names) - len(kept)
    notes = (f"{counted(missing, 'image')} named and not there",) if missing else ()
    chosen = labels[kept]
    return AnnotatedSet(
        source="RAP",
        paths=tuple(home / names[index] for index in kept),
        names=tuple(names[index] for index in kept),
        identities=tuple(identities),
        cameras=tuple(cameras),
        units=tuple(identities),
        splits=None,
        attributes=tuple(attributes),
        values=np.select([chosen == 0, chosen == 1], [NO, YES], UNKNOWN).astype(np.int8),
        notes=notes,
    )


_ANNOTATIONS = ("RAP_annotation/RAP_annotation.mat", "RAP_annotation.mat")


def _fields(mat: Any, path: Path) -> dict[str, Any]:
    found = mat.get("RAP_annotation")
    names = getattr(getattr(found, "dtype", None), "names", None)
    if found is None or not names or found.size != 1:
        raise InputError(f"{path}: expected the struct RAP_annotation, found another content")
    return {name: found[name].ravel()[0] for name in names}


def _first(fields: dict[str, Any], names: tuple[str, ...], path: Path) -> Any:
    for name in names:
        if name in fields:
            return fields[name]
    raise InputError(f"{path}: expected a field {' or '.join(names)}, found {sorted(fields)[:12]}")


def _number(cell: Any) -> int:
    """Of a cell that holds one number; 0 for anything else. RAP's -1 and -2 are people whom nobody named."""
    value = np.asarray(cell).ravel()
    return int(value[0]) if value.size == 1 and value.dtype.kind in "biuf" and np.isfinite(value[0]) else 0
