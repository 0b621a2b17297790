"""What mining writes: lists of images, a table of the clusters, a plot. No image is moved or removed."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graftsdk.errors import InputError
from graftsdk.files import atomic_write
from graftsdk.text import counted, reason
from graftsdk.training.curve import check_plot
from graftsdk.training.mining.mined import ClusterRow
from graftsdk.training.mining.selection import Decision

__all__ = ["MiningReport", "plot_clusters", "read_list", "write_list", "write_report", "write_table"]

_COLORS = {Decision.KEPT: "#2a7f62", Decision.THINNED: "#9aa5ab", Decision.REVIEW: "#c8553d"}
_MEANING = {Decision.KEPT: "kept whole", Decision.THINNED: "a random share kept", Decision.REVIEW: "for review"}


@dataclass(frozen=True)
class MiningReport:
    """What was mined, and how.

    Attributes:
        folder: what was written lies there.
        label, positive: the sub-dataset, and its class that the others are negatives of.
        fingerprint: of the whole trunk.
        positives, negatives: images of the training split.
        kept, dropped, review: of the negatives.
        clusters: the nearest first.
        floor, floor_spread: EMD between halves of the positives, and its standard deviation.
        sample: images a side of every EMD.
        gamma: of the similarities.
        variance: share of the features' variance that clusters and distances saw.
        options: what was asked for, as JSON types.
    """

    folder: Path
    label: str
    positive: str
    fingerprint: str
    positives: int
    negatives: int
    kept: int
    dropped: int
    review: int
    clusters: tuple[ClusterRow, ...]
    floor: float
    floor_spread: float
    sample: int
    gamma: float
    variance: float
    options: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, without the clusters, which have a table of their own."""
        values = {name: value for name, value in asdict(self).items() if name not in ("folder", "clusters")}
        return values | {"clusters": len(self.clusters)}


def write_list(path: Path, names: Iterable[str]) -> None:
    """One name a line, whole or not at all.

    Raises:
        InputError: a name with a line break. PlanPathError: a path that must not be written.
    """
    lines = list(names)
    for name in lines:
        if len(name.splitlines()) != 1:
            raise InputError(f"file name: expected one without line breaks, found {name!r:.200}; rename the image")
    with atomic_write(path) as file:
        file.write(b"".join(os.fsencode(name) + b"\n" for name in lines))


def read_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names in a list, relative to the label's folder. Raises InputError: no readable file."""
    try:
        return tuple(os.fsdecode(line) for line in Path(path).read_bytes().split(b"\n") if line)
    except OSError as error:
        raise InputError(f"{path}: expected a list of images, found: {reason(error)}") from error


def write_table(path: Path, rows: Sequence[ClusterRow]) -> None:
    """The clusters as CSV, one a row."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(ClusterRow.__dataclass_fields__)
    for row in rows:
        numbers = (f"{value:.6g}" for value in (row.emd, row.spread, row.similarity))
        table.writerow((row.rank, row.cluster, row.size, row.kept, *numbers, row.decision.value))
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def write_report(path: Path, report: MiningReport) -> None:
    """Counts and settings as JSON."""
    with atomic_write(path) as file:
        file.write(json.dumps(report.to_dict(), indent=2, ensure_ascii=False).encode() + b"\n")


def plot_clusters(path: Path, report: MiningReport) -> None:
    """Clusters as bars, the nearest first: as high as their EMD, as wide as their share of the negatives.

    Raises:
        MissingDependency: matplotlib is not installed. InputError: no path of a picture.
    """
    rows = report.clusters
    figure = check_plot(path)(figsize=(9, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    widths = np.array([row.size for row in rows]) / report.negatives
    centres = np.cumsum(widths) - widths / 2
    for decision in Decision:
        some = [number for number, row in enumerate(rows) if row.decision is decision]
        if some:
            axes.bar(
                centres[some],
                [rows[number].emd for number in some],
                widths[some],
                yerr=[rows[number].spread for number in some],
                color=_COLORS[decision],
                edgecolor="white",
                linewidth=0.5,
                error_kw={"linewidth": 0.8},
                label=f"{_MEANING[decision]}: {sum(rows[number].kept for number in some)} "
                f"of {sum(rows[number].size for number in some)}",
            )
    axes.axhline(report.floor, color="black", linestyle="--", label="floor: one half of the positives to the other")
    axes.axhspan(
        report.floor - report.floor_spread, report.floor + report.floor_spread, color="black", alpha=0.12, lw=0
    )
    highest = max(max(row.emd + row.spread for row in rows), report.floor)
    lowest = min(min(row.emd - row.spread for row in rows), report.floor)
    axes.set(
        xlim=(0, 1),
        ylim=(max(0.0, lowest - 0.3 * (highest - lowest)), highest + 0.08 * (highest - lowest)),
        xlabel="share of the negatives, nearest clusters first",
        ylabel="EMD to the positives",
        title=f"{report.label}: {counted(len(rows), 'cluster')} of {counted(report.negatives, 'negative')}, "
        f"{counted(report.positives, 'positive')}; {report.sample} images a side",
    )
    # matplotlib shows what lies between dollar signs as a formula, and fails where it is none.
    axes.title.set_parse_math(False)
    figure.legend(loc="outside lower center", fontsize="small", ncols=2)
    axes.grid(axis="y", alpha=0.3)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.lower().removeprefix("."))
