"""A training's curve: rows of a CSV file, and a picture of them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftsdk.errors import InputError, MissingDependency
from graftsdk.files import atomic_write

__all__ = ["COLUMNS", "check_plot", "curve_path", "plot_curve", "write_curve"]

COLUMNS = (
    *("step", "epoch", "minutes", "learning_rate", "loss", "box", "confidence", "mask", "semantic"),
    *("ms_a_step", "ap", "ap50", "ap75"),
)
PICTURES = (".png", ".pdf", ".svg", ".jpg")


def curve_path(output: Path) -> Path:
    """Where the curve of the training that writes `output` lies: OUT.curve.csv for OUT.safetensors."""
    return output.with_name(output.name.removesuffix(".safetensors") + ".curve.csv")


def write_curve(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """All rows, `COLUMNS` each; what a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
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


def plot_curve(path: str | os.PathLike[str], rows: Sequence[Mapping[str, float]], title: str = "") -> None:
    """Losses (left axis, logarithmic) and AP (right axis) over minutes of training, as a picture.

    Raises:
        MissingDependency, InputError: see `check_plot`.
    """
    figure = check_plot(path)(figsize=(8, 4.5), dpi=120, layout="constrained")
    losses = figure.subplots()
    for name in ("loss", "box", "confidence", "mask", "semantic"):
        some = [row for row in rows if row.get(name, 0.0) > 0]
        width = 2.0 if name == "loss" else 1.0
        losses.plot([row["minutes"] for row in some], [row[name] for row in some], ".-", label=name, linewidth=width)
    losses.set(xlabel="minutes", ylabel="loss", yscale="log", title=title)
    scores = losses.twinx()
    for name, label, style in (("ap50", "mask AP50", "o-"), ("ap", "mask AP", "s-")):
        some = [row for row in rows if name in row]
        color = "black" if name == "ap50" else "gray"
        scores.plot([row["minutes"] for row in some], [row[name] for row in some], style, color=color, label=label)
    scores.set(ylabel="AP", ylim=(0.0, 1.0))
    lines = [*losses.get_lines(), *scores.get_lines()]
    figure.legend(lines, [line.get_label() for line in lines], loc="outside lower center", fontsize="small", ncols=7)
    losses.grid(alpha=0.3)
    kind = Path(path).suffix.lower().removeprefix(".")
    with atomic_write(path) as file:
        figure.savefig(file, format=kind)
