"""An evaluation as files in a folder: tables for people and programs, a picture of each label."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from graftsdk.errors import InputError, PlanPathError
from graftsdk.text import file_names, listed, one_line, reason
from graftsdk.training.curve import check_plot
from graftsdk.training.evaluation.judged import Judged, confusion
from graftsdk.training.evaluation.plots import plot_label, plot_roc_curves
from graftsdk.training.evaluation.report import confusion_markdown, markdown, write_csv, write_markdown
from graftsdk.training.evaluation.resampling import DRAWS
from graftsdk.training.evaluation.tables import LabelRow, camera_rows, label_rows

__all__ = ["evaluation_text", "write_evaluation"]


def evaluation_text(
    judged: Sequence[Judged],
    thresholds: Mapping[str, Mapping[str, float]],
    *,
    heading: str = "Evaluation",
    by_camera: bool = False,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[str, tuple[LabelRow, ...]]:
    """All tables as Markdown, and their rows, those of cameras last.

    Args:
        thresholds: label -> class -> threshold, chosen on other images than these; as a branch or a plan has them.
        by_camera: a second table with a row for each camera.
        seed, draws: of the bootstrap over identities.

    Raises:
        InputError: no label, one twice, or thresholds of other labels or classes.
    """
    _check_labels(judged, thresholds)
    rows = [row for one in judged for row in label_rows(one, thresholds.get(one.label, {}), seed=seed, draws=draws)]
    text = f"# {one_line(heading)}\n\n{markdown(rows)}"
    if draws:
        text += f"\nIn brackets: 95% intervals, bootstrap over identities, {draws} draws, seed {seed}.\n"
    for one in judged:
        if len(one.classes) > 2:
            counts = confusion(one, thresholds.get(one.label, {}))
            text += f"\n## {one_line(one.label)}: confusion\n\n{confusion_markdown(one.classes, counts)}"
    if by_camera:
        parts = [
            row for one in judged for row in camera_rows(one, thresholds.get(one.label, {}), seed=seed, draws=draws)
        ]
        text += f"\n## By camera\n\n{markdown(parts)}"
        rows += parts
    return text, tuple(rows)


def write_evaluation(
    folder: str | os.PathLike[str],
    judged: Sequence[Judged],
    thresholds: Mapping[str, Mapping[str, float]],
    *,
    heading: str = "Evaluation",
    by_camera: bool = False,
    plots: bool = True,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Path, ...]:
    """Write evaluation.md, evaluation.csv, roc.png and a picture of each label; the paths of what was written.

    Args:
        folder: is made where it is missing; files of these names are replaced, others stay. The rest as
            `evaluation_text` has it.

    Raises:
        InputError: see `evaluation_text`. PlanPathError: the folder cannot be written.
        MissingDependency: matplotlib is not installed and `plots` are wanted.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise PlanPathError(f"{target}: expected a folder or none, found: {reason(error)}; name another") from error
    if plots:
        check_plot(target / "roc.png")
    text, rows = evaluation_text(judged, thresholds, heading=heading, by_camera=by_camera, seed=seed, draws=draws)
    written = [target / "evaluation.md", target / "evaluation.csv"]
    write_markdown(written[0], text)
    write_csv(written[1], rows)
    if plots:
        written.append(target / "roc.png")
        plot_roc_curves(written[-1], judged, heading)
        for one, name in zip(judged, file_names([one.label for one in judged], ["roc"]), strict=True):
            own = tuple(row for row in rows if row.label == one.label and not row.camera)
            written.append(target / f"{name}.png")
            plot_label(written[-1], one, thresholds.get(one.label, {}), own)
    return tuple(written)


def _check_labels(judged: Sequence[Judged], thresholds: Mapping[str, Mapping[str, float]]) -> None:
    labels = [one.label for one in judged]
    if not labels or len(set(labels)) != len(labels):
        raise InputError(f"expected one or more different labels, found {listed(labels)}")
    if unknown := [label for label in thresholds if label not in labels]:
        raise InputError(f"thresholds: expected labels of {labels}, found {unknown}")
