"""PETA (Deng et al., ACM MM 2014): ten sets of pedestrians, `<subset>/archive/{Label.txt, images}`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from graftsdk.errors import InputError
from graftsdk.preprocess import list_images
from graftsdk.text import counted, reason
from graftsdk.training.labels.annotated import NO, YES, AnnotatedSet

__all__ = ["read_peta"]

# Every image has an identity of its own there, though people come again in the images next to it, whole or at the
# edge. A split in blocks of neighbours divides such people at the blocks' ends only.
_OWN_IDENTITIES = ("CUHK", "MIT")
_BLOCK = 50


def read_peta(folder: str | os.PathLike[str]) -> AnnotatedSet:
    """The images whose identity has a line in a `Label.txt`.

    An image belongs to the identity whose ID is its name before the first "_", or, where IDs are file names, whose
    name is the image's without its ending. IDs count within their subset, which is the camera.

    Raises:
        InputError: no such layout, or a Label.txt that cannot be read.
    """
    root = Path(folder)
    subsets = sorted(path.parent.parent.name for path in root.glob("*/archive/Label.txt"))
    if not subsets:
        raise InputError(f"{root}: expected PETA's layout, SUBSET/archive/Label.txt, found none")
    rows: list[tuple[Path, str, str, str, frozenset[str]]] = []  # path, subset, identity, unit, attributes
    strangers: list[Path] = []
    for subset in subsets:
        lines = _read_lines(root / subset / "archive" / "Label.txt")
        stems = {Path(name).stem: name for name in lines if Path(name).suffix}
        for index, path in enumerate(list_images(root / subset / "archive")):
            name = path.name.partition("_")[0]
            name = name if name in lines else stems.get(path.stem, path.stem)
            if name not in lines:
                strangers.append(path)
                continue
            unit = f"block-{index // _BLOCK}" if subset in _OWN_IDENTITIES else name
            rows.append((path, subset, name, unit, lines[name]))
    if not rows:
        raise InputError(f"{root}: expected images that Label.txt has a line for, found none")
    attributes = sorted(frozenset().union(*(row[4] for row in rows)))
    column = {name: index for index, name in enumerate(attributes)}
    values = np.full((len(rows), len(attributes)), NO, np.int8)
    for index, row in enumerate(rows):
        values[index, [column[name] for name in row[4]]] = YES
    notes: tuple[str, ...] = ()
    if strangers:
        notes = (f"{counted(len(strangers), 'image')} without a line in Label.txt, the first {strangers[0]}",)
    return AnnotatedSet(
        source="PETA",
        paths=tuple(row[0] for row in rows),
        names=tuple(f"{row[1]}_{row[0].name}" for row in rows),
        identities=tuple(f"{row[1]}/{row[2]}" for row in rows),
        cameras=tuple(row[1] for row in rows),
        units=tuple(f"{row[1]}/{row[3]}" for row in rows),
        splits=None,
        attributes=tuple(attributes),
        values=values,
        notes=notes,
    )


def _read_lines(path: Path) -> dict[str, frozenset[str]]:
    """ID -> attributes."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable text in UTF-8, found: {reason(error)}") from error
    return {words[0]: frozenset(words[1:]) for words in lines if words}
