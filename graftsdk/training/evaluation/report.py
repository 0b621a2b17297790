"""Tables that a person reads and a program reads, written whole or not at all."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from graftsdk.files import atomic_write
from graftsdk.text import counted, one_line
from graftsdk.training.evaluation.checks import Integers
from graftsdk.training.evaluation.comparison import Comparison
from graftsdk.training.evaluation.judged import title
from graftsdk.training.evaluation.tables import LabelRow, summary
from graftsdk.training.evaluation.top import TopRow

__all__ = [
    "comparison_markdown",
    "confusion_markdown",
    "markdown",
    "top_markdown",
    "write_csv",
    "write_markdown",
]

_UNDEFINED = "–"


def markdown(rows: Sequence[LabelRow]) -> str:
    """Table 2's columns and more, a row for each label or class; below, the means and the worst row.

    "0.9500 [0.93, 0.97]" is a 95% interval by bootstrap over identities; "–" is undefined.
    """
    cameras = any(row.camera for row in rows)
    head = ["Label", *(["Camera"] if cameras else []), "THR", "Acc.", "Prec.", "Rec.", "FPR", "F1", "MCC", "BA"]
    head += ["AUC [95%]", "AP [95%]", "ECE", "Brier", "Positive", "Images", "IDs"]
    lines = []
    for row in rows:
        figures = row.figures()
        names = ("threshold", "accuracy", "precision", "recall", "fpr", "f1", "mcc", "balanced_accuracy")
        lines.append(
            [
                _cell(title(row.label, row.name)),
                *([_cell(row.camera) or _UNDEFINED] if cameras else []),
                *(_number(figures[name]) for name in names),
                _bounded(row.auc, row.auc_low, row.auc_high),
                _bounded(row.ap, row.ap_low, row.ap_high),
                _number(row.ece),
                _number(row.brier),
                *(str(count) for count in (row.positives, row.images, row.identities)),
            ]
        )
    found = summary(rows)
    text = _table(head, lines, texts=2 if cameras else 1)
    if found.worst is not None:
        where = f" ({_cell(found.worst.camera)})" if found.worst.camera else ""
        text += (
            f"\n{counted(len(rows), 'row')}: mean AUC {found.auc:.4f}, mean AP {found.ap:.4f}, "
            f"mA {_number(found.mean_accuracy)}; "
            f"worst AUC {found.worst.auc:.4f}: {_cell(title(found.worst.label, found.worst.name))}{where}\n"
        )
    return text


def confusion_markdown(classes: Sequence[str], counts: Integers) -> str:
    """The confusion matrix int64[C, C] with recall and precision of each class: rows truth, columns answers."""
    lines = []
    for index, name in enumerate(classes):
        total = int(counts[index].sum())
        recall = counts[index, index] / total if total else math.nan
        lines.append([_cell(name), *(str(count) for count in counts[index]), _number(recall)])
    chosen = counts.sum(axis=0)
    precision = [counts[i, i] / chosen[i] if chosen[i] else math.nan for i in range(len(classes))]
    total = int(counts.sum())
    right = counts.trace() / total if total else math.nan
    lines.append(["Prec.", *(_number(value) for value in precision), _number(right)])
    return _table(["Truth \\ answer", *(_cell(name) for name in classes), "Rec."], lines)


def top_markdown(rows: Sequence[TopRow]) -> str:
    """Table 3: false positives among the top images, heads against the first."""
    head = ["Head", "Top", "False positive", "Share", "Only first right", "Only this right", "McNemar p"]
    lines = []
    for row in rows:
        against = ["", "", ""] if math.isnan(row.p) else [str(row.only_first), str(row.only_this), _chance(row.p)]
        lines.append([_cell(row.head), str(row.top), str(row.false_positives), _number(row.share), *against])
    return _table(head, lines)


def comparison_markdown(comparison: Comparison, first: str, second: str) -> str:
    """The difference of each label with its interval, the mean's, and the sign test.

    Args:
        first, second: what the arms are called.
    """
    lines = [
        [
            _cell(title(row.label, row.name)),
            _number(row.first),
            _number(row.second),
            _bounded(row.delta, row.low, row.high, sign="+"),
        ]
        for row in comparison.rows
    ]
    figure = comparison.figure.upper()
    lines.append(["mean", "", "", _bounded(comparison.mean, comparison.low, comparison.high, sign="+")])
    text = _table(["Label", f"{figure}, {_cell(first)}", f"{figure}, {_cell(second)}", "Difference [95%]"], lines)
    ties = f", {comparison.ties} equal" if comparison.ties else ""
    return (
        f"{text}\n{_cell(second)} is better in {comparison.wins}, worse in {comparison.losses}{ties}: "
        f"sign test p = {_chance(comparison.p)}\n"
    )


def write_markdown(path: str | os.PathLike[str], text: str) -> None:
    """Write a text. Raises PlanPathError: `path` cannot be written."""
    with atomic_write(Path(path)) as file:
        file.write(text.encode())


def write_csv(path: str | os.PathLike[str], rows: Sequence[LabelRow]) -> None:
    """Every figure of every row in full precision; what is undefined stays empty.

    Raises:
        PlanPathError: `path` cannot be written.
    """
    text = io.StringIO()
    figures: list[Mapping[str, object]] = [
        {"label": row.label, "class": row.name, "camera": row.camera, **row.figures()} for row in rows
    ]
    writer = csv.writer(text, lineterminator="\n")
    if figures:
        writer.writerow(figures[0])
    for row in figures:
        writer.writerow(["" if value != value else value for value in row.values()])
    with atomic_write(Path(path)) as file:
        file.write(text.getvalue().encode())


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Markdown, columns aligned; the first `texts` ones to the left, numbers to the right."""
    cells = [list(head), *(list(line) for line in lines)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(head))]

    def told(line: Sequence[str]) -> str:
        found = [
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(found)} |"

    rule = ["-" * width if column < texts else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([told(head), told(rule), *(told(line) for line in lines)]) + "\n"


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")


def _number(value: float, sign: str = "") -> str:
    return _UNDEFINED if math.isnan(value) else f"{value:{sign}.4f}"


def _bounded(value: float, low: float, high: float, sign: str = "") -> str:
    if math.isnan(low) or math.isnan(value):
        return _number(value, sign)
    return f"{_number(value, sign)} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _chance(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
