"""How commands print: aligned tables, sizes, JSON, help; and what their exit code for an interruption is."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from graftsdk.text import one_line

__all__ = ["INTERRUPTED", "HelpFormatter", "megabytes", "print_json", "print_table"]

INTERRUPTED = 130  # exit code: 128 and the signal's number, as shells have it


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps a description of one line; a text with lines of its own, like an example, stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return super()._fill_text(text if "\n" in text else textwrap.fill(text, width), width, indent)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON types; letters of all scripts stand as they are."""
    print(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def print_table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: str = "") -> None:
    """Print rows as aligned columns, the first row being the head; columns without any content are left out.

    Args:
        rows: head and rows of equal length.
        right: columns of numbers, aligned to the right.
        indent: before every line.
    """
    head, *body = [[one_line(cell) for cell in row] for row in rows]
    columns = [column for column in range(len(head)) if any(row[column] for row in body)]
    widths = {column: max(len(row[column]) for row in (head, *body)) for column in columns}
    for row in (head, ["-" * widths.get(column, 0) for column in range(len(head))], *body):
        cells = [row[c].rjust(widths[c]) if c in right else row[c].ljust(widths[c]) for c in columns]
        print((indent + "  ".join(cells)).rstrip())


def megabytes(nbytes: int) -> str:
    """As "12.3 MB"; below a tenth of a megabyte as "4.2 kB"."""
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"
