"""Leaks: a person, or the very same picture, that a network is trained on and judged by."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from itertools import combinations
from pathlib import Path

from graftsdk.errors import InputError
from graftsdk.text import counted, reason
from graftsdk.training.labels.sets import SPLITS, LabelSet

__all__ = ["check_leaks", "file_digest"]


def check_leaks(*sets: LabelSet) -> None:
    """Refuse an identity, or the same bytes, in two of train, val and test.

    Several labels are looked at together, as a trunk that learns from all of them has to be: what one trains on,
    none may be judged by. Images whose identities nobody named are told apart by their bytes alone. Only files of a
    size that occurs on both sides are read.

    Raises:
        InputError: there is one; names the splits, how many, and the first two files. Or a file cannot be read.
    """
    images = {split: [image for each in sets for image in getattr(each, split)] for split in SPLITS}
    for first, second in combinations(SPLITS, 2):
        homes = {image.identity: image.path for image in images[first]}
        both = {image.identity: image.path for image in images[second] if image.identity in homes}
        if both:
            identity = min(both)
            found = f"{counted(len(both), 'identity', 'identities')}, the first {identity!r}"
            _refuse(first, second, found, homes[identity], both[identity])
    files = {split: dict.fromkeys(image.path for image in images[split]) for split in SPLITS}
    for first, second in combinations(SPLITS, 2):
        same = _same_bytes(list(files[first]), list(files[second]))
        if same:
            _refuse(first, second, f"{counted(len(same), 'image')} with the same bytes, the first", *same[0])


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes, 32. Raises InputError: it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, found: {reason(error)}") from error


def _same_bytes(first: list[Path], second: list[Path]) -> list[tuple[Path, Path]]:
    """(of the first, of the second), sorted."""
    sizes = [{path.stat().st_size for path in side} for side in (first, second)]
    both = sizes[0] & sizes[1]
    known: dict[bytes, Path] = {}
    for path in first:
        if path.stat().st_size in both:
            known.setdefault(file_digest(path), path)
    found: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in second if known else ():
        if path.stat().st_size in both and (twin := known.get(file_digest(path))) is not None:
            found[twin].append(path)
    return sorted((twin, path) for twin, paths in found.items() for path in paths)


def _refuse(first: str, second: str, found: str, one: Path, other: Path) -> None:
    raise InputError(
        f"expected nobody both in {first} and in {second}, found {found}: {one} and {other}; remove one side, or split "
        f"by identity"
    )
