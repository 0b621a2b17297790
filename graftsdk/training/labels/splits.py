"""Which people of a fully annotated set are for training, validation and test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.training.labels.annotated import AnnotatedSet
from graftsdk.training.labels.draws import draw
from graftsdk.training.labels.leaks import file_digest

__all__ = ["labelled_strata", "same_picture_units", "sample", "strata"]


def sample(units: Mapping[str, tuple[Any, str]], share: float, seed: int, purpose: str) -> set[str]:
    """A share of the units of each group, to within half a unit, evenly over its cameras; of two or more at least one.

    A systematic sample of the group's units in the order of their cameras, which are in random order within each.

    Args:
        units: name -> (group, camera), both comparable with the other ones.
        share: above 0, below 1.
        seed: of the order within a camera, and of where a sample begins.
        purpose: what it is for; another one, other draws.
    """
    groups: defaultdict[Any, list[str]] = defaultdict(list)
    for name in sorted(units, key=lambda name: (units[name], draw(seed, purpose, name))):
        groups[units[name][0]].append(name)
    found: set[str] = set()
    for group, names in groups.items():
        count = min(max(round(len(names) * share), 1), len(names) - 1)
        steps = np.floor(np.arange(len(names) + 1) * count / len(names) + draw(seed, purpose, repr(group)))
        found.update(name for name, chosen in zip(names, steps[1:] > steps[:-1], strict=True) if chosen)
    return found


def same_picture_units(images: AnnotatedSet) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """(units, SHA-256 of each image): the set's units, those with the very same picture made one.

    Raises:
        InputError: an image cannot be read.
    """
    digests = tuple(file_digest(path) for path in images.paths)
    parent = {name: name for name in images.units}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[bytes, str] = {}
    for name, digest in zip(images.units, digests, strict=True):
        one, other = sorted((root(name), root(first.setdefault(digest, name))))
        parent[other] = one
    return tuple(root(name) for name in images.units), digests


def strata(
    units: Sequence[str], cameras: Sequence[str], positives: Sequence[npt.NDArray[np.bool_]]
) -> dict[str, tuple[int, str]]:
    """Unit -> (the rarest label that it is positive for, its camera), before any label is chosen for it.

    Args:
        units: of each image.
        cameras: of each image; a unit's is that of its first one.
        positives: bool[N] for each label, the rarest label first.
    """
    rarest = np.full(len(units), len(positives))
    for index in reversed(range(len(positives))):
        rarest[positives[index]] = index
    found: dict[str, tuple[int, str]] = {}
    for name, camera, index in zip(units, cameras, rarest.tolist(), strict=True):
        known = found.get(name, (index, camera))
        found[name] = (min(index, known[0]), known[1])
    return found


def labelled_strata(
    units: Sequence[str], cameras: Sequence[str], labels: Sequence[int], targets: Sequence[int]
) -> dict[str, tuple[tuple[int, int], str]]:
    """Unit -> ((its label, its class), its camera), of its first image; (-1, -1) where it has several labels.

    Args:
        units: of each image.
        cameras: of each image.
        labels: index of the label that each image is annotated for.
        targets: each image's class.
    """
    found: dict[str, tuple[tuple[int, int], str]] = {}
    for name, camera, label, target in zip(units, cameras, labels, targets, strict=True):
        known = found.setdefault(name, ((label, target), camera))
        if known[0][0] != label:
            found[name] = ((-1, -1), known[1])
    return found
