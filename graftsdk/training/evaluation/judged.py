"""A label judged: what was true of each image, and what a head said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.attribute import DEFAULT_THRESHOLD
from graftsdk.errors import InputError
from graftsdk.scores import check_fraction
from graftsdk.text import listed
from graftsdk.training.evaluation.calibration import softmax
from graftsdk.training.evaluation.checks import Bools, Floats, Integers, checked_targets

__all__ = ["Judged", "confusion", "decided", "thresholds_of", "title"]

_SUM_TOLERANCE = 1e-3  # of a row of probabilities: what served scores are held to


_YES = ("yes", "present", "true", "1", "positive")


def title(label: str, name: str) -> str:
    """What a row about one class is called: the label alone where the class says yes to it, else "gender: male"."""
    return label if name.casefold() in (*_YES, label.casefold()) else f"{label}: {name}"


@dataclass(frozen=True, eq=False)
class Judged:
    """One label's images with truth and calibrated scores.

    Attributes:
        label: the question. classes: its answers, the positive one last.
        targets: int64[N], the right class of each image. probabilities: float64[N, C].
        identities: who is on each image. cameras: where it was taken; "" each where that is unknown.

    Raises:
        InputError: fewer than two classes, no image, lengths that differ, a target outside 0..C-1, a NaN, or rows that
            are no probabilities.
    """

    label: str
    classes: tuple[str, ...]
    targets: Integers
    probabilities: Floats
    identities: tuple[str, ...]
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        classes, scores = tuple(self.classes), np.array(self.probabilities, np.float64)
        targets = np.asarray(self.targets)
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise InputError(f"{self.label!r}: expected two or more different classes, found {list(classes)}")
        if targets.ndim != 1 or len(targets) == 0 or scores.shape != (len(targets), len(classes)):
            raise InputError(
                f"{self.label!r}: expected targets int[N] and probabilities float[N, {len(classes)}] with N >= 1, "
                f"found shapes {list(targets.shape)} and {list(scores.shape)}"
            )
        likely = (scores >= 0.0).all(axis=1) & (np.abs(scores.sum(axis=1) - 1.0) <= _SUM_TOLERANCE)  # NaN is neither
        if not likely.all():
            row = int(np.argmin(likely))
            raise InputError(
                f"{self.label!r}: expected probabilities whose sum is 1, found {scores[row].tolist()} at {row}"
            )
        identities, cameras = tuple(self.identities), tuple(self.cameras) or ("",) * len(targets)
        if not len(identities) == len(cameras) == len(targets):
            raise InputError(
                f"{self.label!r}: expected an identity and a camera for each of {len(targets)} images, found "
                f"{len(identities)} and {len(cameras)}"
            )
        own = object.__setattr__
        own(self, "classes", classes)
        own(self, "targets", checked_targets(targets, len(classes)))
        own(self, "probabilities", np.minimum(scores, 1.0))  # a sum of 1 within rounding
        own(self, "identities", identities)
        own(self, "cameras", cameras)

    @classmethod
    def from_logits(
        cls,
        label: str,
        classes: Sequence[str],
        targets: npt.ArrayLike,
        logits: npt.ArrayLike,
        identities: Sequence[str],
        cameras: Sequence[str] = (),
        temperature: float = 1.0,
    ) -> Judged:
        """Of logits float[N, C] at a branch's temperature. Raises InputError as the class does."""
        found = np.asarray(logits, np.float64)
        if found.ndim != 2 or not np.isfinite(found).all():
            raise InputError(f"{label!r}: expected finite logits float[N, C], found shape {list(found.shape)}")
        scores = softmax(found, temperature)
        return cls(label, tuple(classes), np.asarray(targets), scores, tuple(identities), tuple(cameras))

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def judged_classes(self) -> tuple[str, ...]:
        """The classes that have figures of their own: of two the last, of more each against the rest."""
        return self.classes[1:] if len(self.classes) == 2 else self.classes

    def one(self, name: str) -> tuple[Bools, Floats]:
        """Truth bool[N] and score float64[N] of one class against the rest. Raises InputError: no such class."""
        if name not in self.classes:
            raise InputError(f"{self.label!r}: expected one of its classes {listed(self.classes)}, found {name!r}")
        index = self.classes.index(name)
        return self.targets == index, self.probabilities[:, index]

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Judged:
        """The same of some images. Args: rows: bool[N], or indices."""
        indices = np.arange(len(self))[rows]
        return Judged(
            self.label,
            self.classes,
            self.targets[indices],
            self.probabilities[indices],
            tuple(self.identities[index] for index in indices),
            tuple(self.cameras[index] for index in indices),
        )

    def by_camera(self) -> Iterator[tuple[str, Judged]]:
        """Each camera and its images, cameras in the order of their names."""
        cameras = np.array(self.cameras, dtype=object)
        for camera in sorted(set(self.cameras)):
            yield camera, self.take(np.asarray(cameras == camera, np.bool_))


def thresholds_of(judged: Judged, thresholds: Mapping[str, float]) -> dict[str, float]:
    """Class -> threshold as `graftsdk.Attribute` applies them: the last of two classes has one, 0.5 where none is set.

    Raises:
        InputError: another class, or a threshold outside 0..1.
    """
    for name in thresholds:
        judged.one(name)
        check_fraction(f"{judged.label!r}, class {name!r}: threshold", thresholds[name])
    default = {judged.classes[-1]: DEFAULT_THRESHOLD} if len(judged.classes) == 2 else {}
    return default | {name: float(value) for name, value in thresholds.items()}


def decided(judged: Judged, thresholds: Mapping[str, float]) -> Integers:
    """What is answered of each image, int64[N]: `Attribute.name` as a class index.

    Of two classes by the threshold (score >= threshold is the last), of more the most probable, the first on ties.
    """
    found = thresholds_of(judged, thresholds)
    if len(judged.classes) > 2:
        return np.asarray(np.argmax(judged.probabilities, axis=1), np.int64)
    return np.asarray(judged.probabilities[:, 1] >= found[judged.classes[1]], np.int64)


def confusion(judged: Judged, thresholds: Mapping[str, float]) -> Integers:
    """How many images of each class (row) were answered with each class (column): int64[C, C]."""
    count = len(judged.classes)
    pairs = judged.targets * count + decided(judged, thresholds)
    found: Integers = np.bincount(pairs, minlength=count * count).reshape(count, count).astype(np.int64)
    return found
