"""How commands print: aligned tables, sizes, JSON, help, what is wrong with their words; the code of interruptions."""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from graftsdk.text import one_line

__all__ = ["INTERRUPTED", "HelpFormatter", "Parser", "megabytes", "print_json", "print_table", "problem"]

INTERRUPTED = 130  # exit code: 128 and the signal's number, as shells have it


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps a description of one line; a text with lines of its own, like an example, stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return super()._fill_text(text if "\n" in text else textwrap.fill(text, width), width, indent)


class Parser(argparse.ArgumentParser):
    """Says of an unknown option how this very command is used, and of a missing word which option took it."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does; but what a subcommand does not know is its own error, not that of the command above."""
        self._words = sys.argv[1:] if args is None else list(args)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {one_line(' '.join(unknown))}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Print usage and message; exit code 2."""
        if "are required" in message:
            message += "".join(self._greedy())
        super().error(message)

    def _greedy(self) -> Iterator[str]:
        """Of the options that are there and take many words, what to do about it."""
        for action in self._actions:
            if action.nargs == "+" and any(option in self._words for option in action.option_strings):
                option = action.option_strings[-1]
                alone = f", or write {option}=child,gender" if action.metavar == "LABEL" else ""
                yield f"; {option} takes every word after it: put it last{alone}"


def problem(name: str, text: str) -> str:
    """What is wrong with a source, in one line that begins with its name, without advice on calls in Python."""
    told = re.sub(r"; Predictor\.\w+ .*\Z", "", one_line(text).removeprefix("image: "))
    return told if told.startswith(name) else f"{name}: {told}"


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
