"""What figures are computed of: arrays of one length, finite, in their domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError

__all__ = ["Bools", "Floats", "Integers", "checked_binary", "checked_identities", "checked_logits", "checked_scores"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def checked_scores(scores: npt.ArrayLike) -> Floats:
    """Scores as float64[N]. Raises InputError: another rank, NaN, or outside 0..1."""
    found = np.asarray(scores, np.float64)
    if found.ndim != 1:
        raise InputError(f"scores: expected one probability for each image, float[N], found shape {list(found.shape)}")
    wrong = ~((found >= 0.0) & (found <= 1.0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"scores: expected probabilities from 0 to 1, found {found[row]} at {row}; apply the softmax")
    return found


def checked_binary(targets: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Bools, Floats]:
    """Truth as bool[N] and finite scores as float64[N], which may be logits: only their order counts.

    Raises:
        InputError: other ranks, lengths that differ, no image, a truth that is neither 0 nor 1, a NaN or an infinity.
    """
    truth, found = np.asarray(targets), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != found.shape or truth.size == 0:
        raise InputError(
            f"expected one truth and one score for each image, bool[N] and float[N] with N >= 1, found shapes "
            f"{list(truth.shape)} and {list(found.shape)}"
        )
    if truth.dtype != np.bool_ and not np.isin(truth, (0, 1)).all():
        raise InputError(f"targets: expected True and False, found {truth.dtype.name} such as {np.unique(truth)[:4]}")
    _check_finite("scores", found)
    return truth.astype(np.bool_), found


def checked_logits(logits: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Floats, Integers]:
    """Logits as float64[N, C] and their classes as int64[N].

    Raises:
        InputError: other ranks, lengths that differ, no image, one class, a target outside 0..C-1, a NaN or infinity.
    """
    found, classes = np.asarray(logits, np.float64), np.asarray(targets)
    if found.ndim != 2 or classes.shape != found.shape[:1] or found.shape[0] == 0 or found.shape[1] < 2:
        raise InputError(
            f"expected logits float[N, C] and targets int[N] with N >= 1 and C >= 2, found shapes {list(found.shape)} "
            f"and {list(classes.shape)}"
        )
    _check_finite("logits", found)
    return found, checked_targets(classes, found.shape[1])


def checked_targets(targets: npt.NDArray[Any], classes: int) -> Integers:
    """Class indices as int64[N]. Raises InputError: no integers, or outside 0..classes-1."""
    if not np.issubdtype(targets.dtype, np.integer) or not ((targets >= 0) & (targets < classes)).all():
        raise InputError(
            f"targets: expected integers from 0 to {classes - 1}, found {targets.dtype.name} such as "
            f"{np.unique(targets)[[0, -1]].tolist()}"
        )
    return targets.astype(np.int64)


def checked_identities(identities: Sequence[str] | npt.NDArray[Any], count: int) -> Integers:
    """Who is on which image as indices int64[N] into the different identities. Raises InputError: another length."""
    found = np.asarray(identities)
    if found.shape != (count,):
        raise InputError(f"identities: expected one for each of {count} images, found shape {list(found.shape)}")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _check_finite(what: str, values: Floats) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(f"{what}: expected finite numbers, found {values[row].tolist()} at {row}")
