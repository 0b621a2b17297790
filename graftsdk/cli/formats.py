"""How `graftsdk predict` tells what it found: lines to read, JSON lines, CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftsdk.prediction import Prediction
from graftsdk.text import one_line

__all__ = ["Csv", "Format", "json_lines", "told"]

Format = Callable[[Prediction], str]

# What a spreadsheet takes for a formula; a sign before a plain word or number, as in the class "-18", is none.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\w.]*\Z)")


def told(prediction: Prediction) -> str:
    """One line to read: the prediction's own, but with its whole path, as files of two folders may share a name."""
    text = repr(prediction)
    if prediction.source is None:
        return f"{text}\n"
    return f"{one_line(prediction.source)}{text.removeprefix(one_line(Path(prediction.source).name))}\n"


def json_lines(masks: bool) -> Format:
    """One line of JSON; `masks`: with each person's mask, run-length coded."""
    return lambda prediction: f"{prediction.to_json(masks=masks)}\n"


class Csv:
    """One row a person, under a head that stands above the first. Nobody found, no row.

    A text that a spreadsheet would take for a formula (a file's name may be one) gets an apostrophe before it.
    """

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, prediction: Prediction) -> str:
        """The prediction's rows, with the head before those of the first."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)  # ends lines by \r\n, so that it quotes a \r in a name
        if not self._begun:
            writer.writerow(_cell(name) for name in prediction.columns)
            self._begun = True
        writer.writerows([_cell(value) for value in row.values()] for row in prediction.to_rows())
        return text.getvalue().replace("\r\n", "\n")


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
