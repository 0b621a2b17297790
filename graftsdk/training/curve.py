"""A training's curve: rows of a CSV file, and a picture of them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftsdk.errors import InputError, MissingDependency
from graftsdk.files import atomic_write

__all__ = ["CurveKind", "check_plot", "curve_path", "plot_curve", "write_curve"]

PICTURES = (".png", ".pdf", ".svg", ".jpg")


@dataclass(frozen=True)
class CurveKind:
    """What a curve shows.

    Attributes:
        losses: columns of losses, their sum first.
        scores: columns of scores, 0..1, and what the picture calls them; "" is not drawn. The first is black.
        axis: of the scores.
    """

    losses: tuple[str, ...]
    scores: Mapping[str, str]
    axis: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the CSV file."""
        return ("step", "epoch", "minutes", "learning_rate", *self.losses, "ms_a_step", *self.scores)


def curve_path(output: Path) -> Path:
    """Where the curve of the training that writes `output` lies: OUT.curve.csv for OUT.safetensors."""
    return output.with_name(output.name.removesuffix(".safetensors") + ".curve.csv")


def write_curve(path: Path, rows: Sequence[Mapping[str, float]], kind: CurveKind) -> None:
    """All rows, the kind's columns each; what a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, kind.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def check_plot(path: str | os.PathLike[str]) -> Any:
    """The class Figure of matplotlib, before a training begins whose curve could not be drawn.

    Raises:
        MissingDependency: matplotlib is not installed.
        InputError: a name that is no picture's, or a folder that is not there.
    """
    if Path(path).suffix.lower() not in PICTURES or not Path(path).parent.is_dir():
        raise InputError(f"{path}: expected a picture ({', '.join(PICTURES)}) in a folder that is there")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependency(f"a plot needs {error.name}: pip install 'graftsdk[train]'") from error
    return Figure


def plot_curve(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, float]], kind: CurveKind, title: str = ""
) -> None:
    """Losses (left axis, logarithmic) and scores (right axis) over minutes of training, as a picture.

    Raises:
        MissingDependency, InputError: see `check_plot`.
    """
    figure = check_plot(path)(figsize=(8, 4.5), dpi=120, layout="constrained")
    losses = figure.subplots()
    for name in kind.losses:
        some = [row for row in rows if row.get(name, 0.0) > 0]
        width = 2.0 if name == kind.losses[0] else 1.0
        losses.plot([row["minutes"] for row in some], [row[name] for row in some], ".-", label=name, linewidth=width)
    losses.set(xlabel="minutes", ylabel="loss", yscale="log", title=title)
    scores = losses.twinx()
    for place, (name, label) in enumerate(kind.scores.items()):
        some = [row for row in rows if name in row]
        if not label:
            continue
        color, style = ("black", "o-") if place == 0 else ("gray", "s-")
        scores.plot([row["minutes"] for row in some], [row[name] for row in some], style, color=color, label=label)
    scores.set(ylabel=kind.axis, ylim=(0.0, 1.0))
    lines = [*losses.get_lines(), *scores.get_lines()]
    figure.legend(lines, [line.get_label() for line in lines], loc="outside lower center", fontsize="small", ncols=7)
    losses.grid(alpha=0.3)
    suffix = Path(path).suffix.lower().removeprefix(".")
    with atomic_write(path) as file:
        figure.savefig(file, format=suffix)
