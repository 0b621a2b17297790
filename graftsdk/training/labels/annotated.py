"""Fully annotated sets: many attributes of every crop, whatever the layout they came in."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError, MissingDependency
from graftsdk.text import counted, reason

__all__ = ["NO", "UNKNOWN", "YES", "AnnotatedSet", "load_mat", "texts"]

# In this order `and` is the minimum, `or` the maximum and `not` the difference to YES (Kleene's three values).
NO, UNKNOWN, YES = 0, 1, 2


@dataclass(frozen=True, eq=False)
class AnnotatedSet:
    """N crops with A attributes each.

    Attributes:
        source: what the set is called.
        paths: of the images, N.
        names: N different file names for copies in one folder.
        identities: who is on each, N.
        cameras: where each comes from, N.
        units: N names of what no split may divide: identities, or more of them where some are the same person.
        splits: "train", "val" or "test" for each, where the set itself says so; else None.
        attributes: A names.
        values: int8[N, A]: NO, UNKNOWN or YES.
        notes: what was left out, a line each.
    """

    source: str
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    identities: tuple[str, ...]
    cameras: tuple[str, ...]
    units: tuple[str, ...]
    splits: tuple[str, ...] | None
    attributes: tuple[str, ...]
    values: npt.NDArray[np.int8]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def at_most(self, count: int) -> AnnotatedSet:
        """With no more than `count` images of an identity, evenly over its names' order; a note says how many went."""
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for row in sorted(range(len(self)), key=self.names.__getitem__):
            rows[self.identities[row]].append(row)
        kept = sorted(
            own[index * len(own) // min(count, len(own))]
            for own in rows.values()
            for index in range(min(count, len(own)))
        )
        if len(kept) == len(self):
            return self
        gone = f"{counted(len(self) - len(kept), 'image')} of people with more than {count} left out"
        return replace(
            self,
            paths=tuple(self.paths[row] for row in kept),
            names=tuple(self.names[row] for row in kept),
            identities=tuple(self.identities[row] for row in kept),
            cameras=tuple(self.cameras[row] for row in kept),
            units=tuple(self.units[row] for row in kept),
            splits=None if self.splits is None else tuple(self.splits[row] for row in kept),
            values=self.values[kept],
            notes=(*self.notes, gone),
        )


def load_mat(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The variables of a MATLAB file up to version 7.

    Raises:
        InputError: missing, or not readable as such.
        MissingDependency: SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingDependency("reading .mat files needs scipy: pip install 'graftsdk[train]'") from error
    import zlib

    try:
        found: Mapping[str, Any] = loadmat(os.fspath(path), appendmat=False)
    except (
        *(OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, MemoryError),
        *(MatReadError, zlib.error),
    ) as error:
        told = reason(error) if isinstance(error, (OSError, ValueError)) else str(error)
        raise InputError(f"{os.fspath(path)}: expected a MATLAB file (version 5 to 7), found: {told}") from error
    return found


def texts(cells: Any) -> list[str]:
    """The texts of a cell array; "" for an empty cell or one that holds something else."""
    found = []
    for cell in np.asarray(cells, object).ravel():
        while isinstance(cell, np.ndarray) and cell.size == 1:
            cell = cell.ravel()[0]
        found.append(str(cell) if isinstance(cell, str) else "")
    return found
