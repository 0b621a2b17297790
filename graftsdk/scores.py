"""What a branch's scores must be, and from where on they count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError, NonFiniteOutput, PlanCorrupt
from graftsdk.plan import BranchDocument

__all__ = [
    "Thresholds",
    "are_probabilities",
    "check_fraction",
    "check_scores",
    "copy_thresholds",
    "override_thresholds",
    "resolve_thresholds",
]

Thresholds = Mapping[str, float | Mapping[str, float]]

_SUM_TOLERANCE = 1e-3  # of a row of probabilities; float32 rounds a softmax to 1e-7 a class


def check_scores(
    label: str, classes: tuple[str, ...], scores: npt.NDArray[Any], count: int, who: Callable[[int], str]
) -> None:
    """Prove that a branch gave probabilities: a graph may compute something else than its document says.

    Raises:
        NonFiniteOutput: a NaN or an infinite score. PlanCorrupt: other shapes, dtypes or sums.
    """
    if scores.shape != (count, len(classes)) or scores.dtype != np.float32:
        raise PlanCorrupt(
            f"label {label!r}: expected scores float32{[count, len(classes)]}, one for each of its classes, its branch "
            f"gave {scores.dtype.name}{list(scores.shape)}; export the branch again"
        )
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise NonFiniteOutput(
            f"label {label!r}: expected finite scores, {who(row)} got {scores[row].tolist()}; "
            f"check its values, or remove the label (graftsdk plan remove)"
        )
    likely = (scores >= 0.0).all(axis=1) & (np.abs(scores.sum(axis=1, dtype=np.float64) - 1.0) <= _SUM_TOLERANCE)
    if not likely.all():
        row = int(np.argmin(likely))
        raise PlanCorrupt(
            f"label {label!r}: expected probabilities whose sum is 1, {who(row)} got {scores[row].tolist()}; "
            f"its branch lacks the softmax: export it again"
        )


def are_probabilities(scores: Sequence[npt.NDArray[Any]], count: int, classes: Sequence[int]) -> bool:
    """Whether `check_scores` would pass all of these, told in a few passes over them together.

    Args:
        scores: of several labels. count: rows that each should have. classes: how many each should have.
    """
    for values, wide in zip(scores, classes, strict=True):
        if values.shape != (count, wide) or values.dtype != np.float32:
            return False
    if not count or not scores:
        return True
    flat = np.concatenate([values.ravel() for values in scores]).astype(np.float64)
    if not (flat.min() >= 0.0 and flat.max() < np.inf):  # a NaN fails both
        return False
    rows = np.repeat(classes, count)
    sums = np.add.reduceat(flat, rows.cumsum() - rows)
    return bool(np.abs(sums - 1.0).max() <= _SUM_TOLERANCE)


def resolve_thresholds(
    documents: Mapping[str, BranchDocument], overrides: Thresholds | None
) -> dict[str, dict[str, float]]:
    """Label -> class -> threshold: the plan's, with the caller's put over them. Raises InputError."""
    return override_thresholds(documents, {label: each.thresholds for label, each in documents.items()}, overrides)


def override_thresholds(
    documents: Mapping[str, BranchDocument],
    thresholds: Mapping[str, Mapping[str, float]],
    overrides: Thresholds | None,
) -> dict[str, dict[str, float]]:
    """Label -> class -> threshold: `thresholds`, with `overrides` put over them. Raises InputError."""
    found = {label: dict(thresholds[label]) for label in documents}
    if overrides is not None and not isinstance(overrides, Mapping):
        raise InputError(f"thresholds: expected {{label: threshold}}, found {type(overrides).__name__}")
    for label, value in (overrides or {}).items():
        if label not in documents:
            raise InputError(f"thresholds: expected labels of {list(documents)}, found {label!r}")
        classes = documents[label].classes
        chosen = value if isinstance(value, Mapping) else {classes[-1]: value}
        if not isinstance(value, Mapping) and len(classes) > 2:
            raise InputError(f"thresholds[{label!r}]: it has the classes {list(classes)}; write {{class: threshold}}")
        for name, threshold in chosen.items():
            if name not in classes:
                raise InputError(f"thresholds[{label!r}]: expected classes of {list(classes)}, found {name!r}")
            found[label][name] = check_fraction(f"thresholds[{label!r}]", threshold)
    return found


def check_fraction(what: str, value: object) -> float:
    """A number from 0 to 1, NumPy's among them. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= float(value) <= 1.0:
        raise InputError(f"{what}: expected a number from 0 to 1, found {value!r:.80}")
    return float(value)


def copy_thresholds(thresholds: Thresholds | None) -> Thresholds | None:
    """Thresholds that stay as they are, whatever their owner does with them."""
    if not isinstance(thresholds, Mapping):
        return thresholds
    return {label: dict(value) if isinstance(value, Mapping) else value for label, value in thresholds.items()}
