"""What a finished file holds, counted from the file itself: what was done in earlier runs counts too."""

from __future__ import annotations

import os
from dataclasses import dataclass

from graftsdk.offline.packages import parquet

__all__ = ["Summary", "summarise"]

_TOLD = 1000  # errors that are kept with their text; the file has them all


@dataclass(frozen=True)
class Summary:
    """What a file says, in numbers.

    Attributes:
        images: rows. persons: of all of them. failed: images that could not be used.
        failures: (image, error) of the first 1000 of those.
    """

    images: int
    persons: int
    failed: int
    failures: tuple[tuple[str, str], ...]


def summarise(path: str | os.PathLike[str]) -> Summary:
    """Count a file, one row group at a time."""
    images = persons = failed = 0
    failures: list[tuple[str, str]] = []
    with parquet().ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, ["image", "persons.list.element.score", "error"])
            images += table.num_rows
            persons += sum(len(found) for found in table["persons"].to_pylist() if found is not None)
            told = zip(table["image"].to_pylist(), table["error"].to_pylist(), strict=True)
            bad = [(image, error) for image, error in told if error is not None]
            failed += len(bad)
            failures += bad[: _TOLD - len(failures)]
    return Summary(images, persons, failed, tuple(failures))
