"""Which label each person of a fully annotated set is annotated for: one only, as in GraftNet (paper, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.training.labels.draws import draw

__all__ = ["allot", "rarest_class"]

_Ints = npt.NDArray[np.int64]


def rarest_class(targets: _Ints, classes: int) -> int:
    """What the other classes are counted against: the last class of two, the smallest one of more."""
    if classes == 2:
        return 1
    return int(np.bincount(targets[targets >= 0], minlength=classes).argmin())


@dataclass(frozen=True)
class _Pool:
    """People who have no label yet.

    Attributes:
        person: int64[N], of each image.
        camera: int64[P], of each person.
        order: int64[P], how early each is drawn, 0 first.
        size: int64[P], images.
    """

    person: _Ints
    camera: _Ints
    order: _Ints
    size: _Ints


def allot(
    identities: Sequence[str],
    cameras: Sequence[str],
    targets: Sequence[_Ints],
    bases: Sequence[int],
    negatives: float,
    seed: int,
) -> _Ints:
    """int64[N]: the label of each image's person; -1 for people whom none needs.

    Labels choose one after the other, the rarest first, each from people who are still free, and none more images
    than its share of what is free then: `free / labels that have not chosen`. A label takes images of its base class
    (the positives) in the proportions of its cameras, and `negatives` times as many of each other class from the same
    camera: otherwise the network learns the camera. Positives of a camera without as many free negatives stay free.

    Args:
        identities: of each image, N.
        cameras: of each image, N; a person's is that of its first one.
        targets: int64[N] for each label, the rarest label first: class of each image, or -1.
        bases: the base class of each label.
        negatives: images of each other class for one of the base class, above 0.
        seed: of the draws.
    """
    names, first, person = np.unique(np.asarray(identities, object), return_index=True, return_inverse=True)
    _, camera = np.unique(np.asarray(cameras, object)[first], return_inverse=True)
    order = np.argsort(np.argsort([draw(seed, "label", name) for name in names]))
    pool = _Pool(person, camera, order, np.bincount(person, minlength=len(names)))
    owner = np.full(len(names), -1, np.int64)
    if not len(names):
        return owner
    for index, (target, base) in enumerate(zip(targets, bases, strict=True)):
        free = owner < 0
        budget = float(pool.size[free].sum()) / (len(targets) - index)
        owner[_choose(pool, target, base, free, budget, negatives)] = index
    return owner[person]


def _choose(
    pool: _Pool, target: _Ints, base: int, free: npt.NDArray[np.bool_], budget: float, negatives: float
) -> list[int]:
    """People for one label."""
    classes = int(target.max(initial=base)) + 1
    counts = np.zeros((len(pool.size), classes), np.int64)  # [P, C] images
    known = target >= 0
    np.add.at(counts, (pool.person[known], target[known]), 1)
    kind = np.where(counts[:, base] > 0, base, counts.argmax(axis=1))
    usable = free & (counts.sum(axis=1) > 0)
    at_hand = np.zeros((int(pool.camera.max()) + 1, classes))  # [cameras, C] images
    np.add.at(at_hand, (pool.camera[usable], kind[usable]), counts.sum(axis=1)[usable])
    others = [index for index in range(classes) if index != base]
    matched = np.minimum(at_hand[:, base], at_hand[:, others].min(axis=1))
    ratio = 1.0 + negatives * len(others)
    # Where other classes are too few for the ratio, what is left of the budget goes to the base class.
    wanted = min(matched.sum(), max(budget / ratio, budget - at_hand[:, others].sum()))
    chosen: list[int] = []
    owed = 0.0
    for camera in np.flatnonzero(matched):
        quota = wanted * matched[camera] / matched.sum()
        here = usable & (pool.camera == camera)
        positives, images = _draw(pool, here & (kind == base), counts[:, base], quota + owed)
        owed += quota - images
        chosen += positives
        for other in others:
            chosen += _draw(pool, here & (kind == other), counts[:, other], negatives * images)[0]
    return chosen


def _draw(pool: _Pool, people: npt.NDArray[np.bool_], images: _Ints, wanted: float) -> tuple[list[int], int]:
    """(people, their images): drawn in order, each taken if the number of images comes nearer to `wanted` by it."""
    taken: list[int] = []
    count = 0
    candidates = np.flatnonzero(people)
    for index in candidates[np.argsort(pool.order[candidates])]:
        size = int(images[index])
        if abs(count + size - wanted) < abs(count - wanted):
            taken.append(int(index))
            count += size
    return taken, count
