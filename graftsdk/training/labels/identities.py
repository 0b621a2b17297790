"""`identities.csv`: who is on which image of a label, and from which camera it came."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from graftsdk.errors import InputError
from graftsdk.files import atomic_write
from graftsdk.text import reason

__all__ = ["IDENTITIES", "read_identities", "write_identities"]

IDENTITIES = "identities.csv"
_COLUMNS = ("file", "identity", "camera")


def read_identities(folder: Path) -> dict[str, tuple[str, str]] | None:
    """File -> (identity, camera) of a label's folder; None where it has no such file.

    The columns are file, identity and, where cameras are known, camera ("" elsewhere). A file is a path relative to
    the folder, with "/" as its separator.

    Raises:
        InputError: not UTF-8, another head, a row with more or fewer cells, a file named twice, an empty identity;
            names the line.
    """
    path = folder / IDENTITIES
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable CSV in UTF-8, found: {reason(error)}") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[str, tuple[str, str]] = {}
    try:
        head = [cell.strip() for cell in next(rows, [])]
        if tuple(head) not in (_COLUMNS, _COLUMNS[:2]):
            raise InputError(f"{path}: expected the columns file,identity or file,identity,camera, found {head[:5]}")
        for row in rows:
            if not row:
                continue
            if len(row) != len(head):
                raise InputError(f"{path}, line {rows.line_num}: expected {len(head)} cells, found {len(row)}")
            name, identity = row[0], row[1].strip()
            if not identity:
                raise InputError(f"{path}, line {rows.line_num}: expected an identity, found none for {name!r}")
            if name in found:
                raise InputError(f"{path}, line {rows.line_num}: expected every file once, found {name!r} again")
            found[name] = (identity, row[2].strip() if len(row) > 2 else "")
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: expected CSV, found: {error}") from error
    return found


def write_identities(folder: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write `identities.csv` of (file, identity, camera) into a label's folder.

    Raises:
        OSError: the disk is full or fails.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    with atomic_write(folder / IDENTITIES) as file:
        file.write(text.getvalue().encode())
