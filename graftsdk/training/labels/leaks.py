"""Leaks: a person, or the very same picture, that a network is trained on and judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
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
    sizes = {split: _sizes(image.path for image in images[split]) for split in SPLITS}
    digests: dict[Path, bytes] = {}
    for first, second in combinations(SPLITS, 2):
        same = _same_bytes(sizes[first], sizes[second], digests)
        if same:
            _refuse(first, second, f"{counted(len(same), 'image')} with the same bytes, the first", *same[0])


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes, 32. Raises InputError: it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, found: {reason(error)}") from error


def _sizes(paths: Iterable[Path]) -> dict[Path, int]:
    try:
        return {path: path.stat().st_size for path in paths}
    except OSError as error:
        raise InputError(f"{error.filename}: expected a readable file, found: {reason(error)}") from error


def _same_bytes(first: dict[Path, int], second: dict[Path, int], digests: dict[Path, bytes]) -> list[tuple[Path, Path]]:
    """(of the first, of the second), sorted. `digests` are those that were needed so far."""
    both = set(first.values()) & set(second.values())

    def alike(sizes: dict[Path, int]) -> Iterator[tuple[bytes, Path]]:
        for path, size in sizes.items():
            if size in both:
                yield digests.get(path) or digests.setdefault(path, file_digest(path)), path

    known = dict(alike(first))
    return sorted((known[digest], path) for digest, path in alike(second) if digest in known)


def _refuse(first: str, second: str, found: str, one: Path, other: Path) -> None:
    raise InputError(
        f"expected nobody both in {first} and in {second}, found {found}: {one} and {other}; remove one side, or split "
        f"by identity"
    )
