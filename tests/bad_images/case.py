"""What a case of bad input is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Case", "Given", "always"]


@dataclass(frozen=True, eq=False)
class Given:
    """What a caller hands in; `masks` may be a function that makes them, should making them be what fails."""

    image: Any
    boxes: Any = None
    masks: Any = None
    color: Any = "bgr"


@dataclass(frozen=True, eq=False)
class Case:
    """One case.

    Attributes:
        row: the row of the table that counts it.
        name: unique in its row.
        make: what is handed in, made anew for each test; the folder is the test's own.
        refused: the error, or one of the errors. None: a right result.
        plain: what it must equal to the bit; None where nothing plain does.
        pixels: the decoded picture, uint8[H, W, 3], BGR. within: the largest difference to it.
        size: (H, W) that a damaged picture has where it is not refused. None: it is refused.
        persons: how many there are.
        arrays: it goes to functions that take arrays only, too.
    """

    row: str
    name: str
    make: Callable[[Path], Given]
    refused: type[Exception] | None = None
    plain: Callable[[Path], Given] | None = None
    pixels: np.ndarray | None = None
    within: int = 0
    size: tuple[int, int] | None = None
    persons: int = 1
    arrays: bool = True

    def __str__(self) -> str:
        return f"{self.row}: {self.name}"


def always(given: Given) -> Callable[..., Given]:
    """A `make` or `plain` that hands in the same each time."""
    return lambda *_: given
