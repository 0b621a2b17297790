"""What is told about people, yes and no, texts and numbers, as attributes that expressions know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.training.labels.annotated import NO, UNKNOWN, YES

__all__ = ["attribute_table"]

MOST_ATTRIBUTES = 1000
GREATEST_NUMBER = 1e6


def attribute_table(people: Sequence[Mapping[str, Any]], where: str) -> tuple[tuple[str, ...], npt.NDArray[np.int8]]:
    """(A names, sorted; int8[N, A]: NO, UNKNOWN or YES), of what is told about each of N people.

    An attribute of yes and no keeps its name (`hat`). A text gives an attribute for each of its values
    (`age_child`, `lookalike_hat_helmet`); where it may be empty, its name alone is whether it says anything
    (`lookalike_hat`). Numbers give one for each value where all are whole (`yaw_bin_3`), else none. What is not told
    about somebody is unknown.

    Args:
        people: name -> bool, text or number.
        where: they stand, for messages.

    Raises:
        InputError: values of another kind or of two kinds, two attributes that would have one name, more than 1000,
            or none.
    """
    columns: dict[str, list[Any]] = {}
    for index, person in enumerate(people):
        if len(columns.keys() | person.keys()) > MOST_ATTRIBUTES:
            raise InputError(f"{where}: expected at most {MOST_ATTRIBUTES} attributes, found more")
        for name, value in person.items():
            columns.setdefault(name, [None] * len(people))[index] = value
    told: dict[str, Any] = {}
    for name, column in columns.items():
        for attribute, values in _columns(name, column, where):
            if attribute in told:
                raise InputError(f"{where}: expected attributes of different names, found {attribute!r:.80} twice")
            told[attribute] = values
            if len(told) > MOST_ATTRIBUTES:
                raise InputError(f"{where}: expected at most {MOST_ATTRIBUTES} attributes and values, found more")
    if not told:
        raise InputError(f"{where}: expected attributes of people, found none")
    names = tuple(sorted(told))
    return names, np.stack([told[name] for name in names], axis=1)


def _columns(name: str, column: Sequence[Any], where: str) -> Iterator[tuple[str, Any]]:
    """Name and int8[N] of each attribute that one column of values gives; None is unknown."""
    kinds = {bool if isinstance(value, bool) else float if isinstance(value, int) else type(value) for value in column}
    kinds.discard(type(None))
    if not kinds:
        return
    unknown = np.array([value is None for value in column])
    if kinds == {bool}:
        yield name, np.where(unknown, UNKNOWN, np.where([value is True for value in column], YES, NO)).astype(np.int8)
        return
    if kinds == {float}:
        if not all(value is None or (abs(value) <= GREATEST_NUMBER and value == int(value)) for value in column):
            return  # a share, as of grey hair; a NaN too
        column = ["" if value is None else str(int(value)) for value in column]
    elif kinds != {str}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"{where}: expected attribute {name!r:.80} as yes or no, a text or a number, found {found}")
    given = np.array([value or "" for value in column], object)
    if kinds == {str} and (given[~unknown] == "").any():
        yield name, np.where(unknown, UNKNOWN, np.where(given != "", YES, NO)).astype(np.int8)
    for value in sorted(set(given.tolist()) - {""}):
        yield f"{name}_{value}", np.where(unknown, UNKNOWN, np.where(given == value, YES, NO)).astype(np.int8)
