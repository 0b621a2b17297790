"""A fully annotated set cut into sub-datasets: which image goes into which folder of which label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.text import counted
from graftsdk.training.labels.allot import allot, rarest_class
from graftsdk.training.labels.annotated import AnnotatedSet
from graftsdk.training.labels.questions import Question
from graftsdk.training.labels.sets import SPLITS
from graftsdk.training.labels.splits import labelled_strata, same_picture_units, sample, strata

__all__ = ["CutOptions", "Place", "cut_labels"]


@dataclass(frozen=True)
class CutOptions:
    """How a set is cut.

    Attributes:
        seed: of every draw.
        negatives: images of each other class for one positive, in train and val; above 0.
        test_share: of the people, above 0, below 1; of no effect where the set has splits of its own.
        val_share: of the people who are not test, likewise.
        per_person: at most so many images of an identity, in every split; None: all there are. A few people who were
            filmed for minutes are otherwise most of what a label learns from, and is judged on.
    """

    seed: int = 0
    negatives: float = 3.0
    test_share: float = 0.2
    val_share: float = 0.1
    per_person: int | None = None

    def __post_init__(self) -> None:
        if self.per_person is not None:
            whole_number("per_person", self.per_person, 1, 10**6)
        if not 0.0 < self.negatives <= 1000.0:
            raise InputError(f"negatives: expected a number above 0, at most 1000, found {self.negatives!r}")
        for name in ("test_share", "val_share"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise InputError(f"{name}: expected a number above 0 and below 1, found {getattr(self, name)!r}")


@dataclass(frozen=True)
class Place:
    """Where one image goes.

    Attributes:
        label: index of the question.
        split: "train", "val" or "test".
        target: index of the class.
        image: index in the set.
        digest: SHA-256 of the image's bytes, 32.
    """

    label: int
    split: str
    target: int
    image: int
    digest: bytes


def cut_labels(
    images: AnnotatedSet, questions: Sequence[Question], options: CutOptions
) -> tuple[list[Place], tuple[str, ...]]:
    """(the places, sorted; what was left out, a line each).

    A person is in train or val of one label at most, see `allot`. Test has everybody who is in neither, for every
    label that their images have a certain class of. Images with the same bytes count as one person; where the set has
    splits of its own, an image that is in a later split too is left out of the earlier one.

    Raises:
        InputError: an expression that cannot be evaluated, an unreadable image, or a class without an image in one of
            the splits.
    """
    targets = [question.targets(images) for question in questions]
    for question, target in zip(questions, targets, strict=True):
        _refuse_empty(question, Counter(target[target >= 0].tolist()), "the set")
    bases = [rarest_class(t, len(q.classes)) for q, t in zip(questions, targets, strict=True)]
    rarity = [int((target == base).sum()) for target, base in zip(targets, bases, strict=True)]
    order = sorted(range(len(questions)), key=lambda index: (rarity[index], index))
    wanted = _Wanted(images, targets, bases, order, options)
    units, digests = same_picture_units(images)
    notes = images.notes
    if images.splits is None:
        judged, sides = _split(wanted, units)
    else:
        splits, copies = _given(images.splits, digests)
        if copies:
            notes = (*notes, f"{counted(copies, 'image')} in a later split too, left out of the earlier one")
        rows = {side: [row for row, split in enumerate(splits) if split == side] for side in SPLITS}
        judged, sides = rows["test"], {side: wanted.annotate(rows[side]) for side in SPLITS[:2]}
    places = [
        Place(label, side, target, row, digests[row])
        for side, entries in sides.items()
        for row, label, target in entries
    ]
    for row in judged:
        places += [Place(i, "test", int(t[row]), row, digests[row]) for i, t in enumerate(targets) if t[row] >= 0]
    for index, question in enumerate(questions):
        for side in SPLITS:
            found = Counter(place.target for place in places if place.label == index and place.split == side)
            _refuse_empty(question, found, side)
    return sorted(places, key=lambda p: (p.label, SPLITS.index(p.split), p.target, images.names[p.image])), notes


@dataclass(frozen=True)
class _Wanted:
    """What the labels ask of a set: for each question its targets and its base class, and the order of their choice."""

    images: AnnotatedSet
    targets: list[npt.NDArray[np.int64]]
    bases: list[int]
    order: list[int]
    options: CutOptions

    def annotate(self, rows: Sequence[int]) -> list[tuple[int, int, int]]:
        """(row, label, class) of those of `rows` that a label takes."""
        owner = allot(
            [self.images.identities[row] for row in rows],
            [self.images.cameras[row] for row in rows],
            [self.targets[index][rows] for index in self.order],
            [self.bases[index] for index in self.order],
            self.options.negatives,
            self.options.seed,
        )
        found = [(row, self.order[rank]) for row, rank in zip(rows, owner.tolist(), strict=True) if rank >= 0]
        return [(row, label, int(self.targets[label][row])) for row, label in found if self.targets[label][row] >= 0]


def _split(wanted: _Wanted, units: Sequence[str]) -> tuple[list[int], dict[str, list[tuple[int, int, int]]]]:
    """(rows of test, split -> (row, label, class)), by units: test first, then who is annotated, of them val."""
    cameras, options = wanted.images.cameras, wanted.options
    positives = [wanted.targets[index] == wanted.bases[index] for index in wanted.order]
    tested = sample(strata(units, cameras, positives), options.test_share, options.seed, "test")
    annotated = wanted.annotate([row for row, unit in enumerate(units) if unit not in tested])
    rows = [row for row, _, _ in annotated]
    of = labelled_strata(
        [units[row] for row in rows],
        [cameras[row] for row in rows],
        [label for _, label, _ in annotated],
        [target for _, _, target in annotated],
    )
    held = sample(of, options.val_share, options.seed, "val")
    sides: dict[str, list[tuple[int, int, int]]] = {"train": [], "val": []}
    for entry in annotated:
        sides["val" if units[entry[0]] in held else "train"].append(entry)
    return [row for row, unit in enumerate(units) if unit in tested], sides


def _given(splits: Sequence[str], digests: Sequence[bytes]) -> tuple[list[str], int]:
    """(the split of each image, "" for a copy of one in a later split; how many copies)."""
    last: dict[bytes, int] = {}
    for split, digest in zip(splits, digests, strict=True):
        last[digest] = max(last.get(digest, 0), SPLITS.index(split))
    kept = [s if last[d] == SPLITS.index(s) else "" for s, d in zip(splits, digests, strict=True)]
    return kept, kept.count("")


def _refuse_empty(question: Question, found: Counter[int], where: str) -> None:
    for index, name in enumerate(question.classes):
        if not found[index]:
            raise InputError(
                f"label {question.label!r}: expected images of {name!r} in {where}, found none; leave the label out, "
                f"or give test or val another share (train and val take cameras only that have all of its classes)"
            )
