"""Pictures: of a label its ROC curve, its reliability and where its scores lie; the ROC curves of all labels."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftsdk.files import atomic_write
from graftsdk.plan.documents import HISTOGRAM_BINS
from graftsdk.training.curve import check_plot
from graftsdk.training.evaluation.calibration import calibration_error, reliability
from graftsdk.training.evaluation.checks import Bools, Floats
from graftsdk.training.evaluation.counts import Counts
from graftsdk.training.evaluation.judged import Judged, thresholds_of, title
from graftsdk.training.evaluation.ranking import auc, sklearn_metrics
from graftsdk.training.evaluation.tables import LabelRow

__all__ = ["plot_label", "plot_roc_curves"]

_POSITIVE, _NEGATIVE, _CHOSEN = "tab:blue", "tab:gray", "tab:red"


def plot_label(
    path: str | os.PathLike[str], judged: Judged, thresholds: Mapping[str, float], rows: tuple[LabelRow, ...] = ()
) -> None:
    """Draw a label's ROC with the threshold on it, its reliability, and the scores of positives and negatives.

    Args:
        path: .png, .pdf, .svg or .jpg.
        thresholds: class -> threshold, as for `label_rows`.
        rows: that function's answer, for AUC and interval in the legend.

    Raises:
        InputError: another ending, no such folder, or thresholds that do not fit.
        MissingDependency: matplotlib or scikit-learn is not installed.
    """
    found = thresholds_of(judged, thresholds)
    names = judged.judged_classes
    figure = check_plot(path)(figsize=(12, 3.8 * len(names)), dpi=110, layout="constrained")
    told = {row.name: row for row in rows}
    for panels, name in zip(figure.subplots(len(names), 3, squeeze=False), names, strict=True):
        truth, scores = judged.one(name)
        threshold = found.get(name)
        _draw_roc(panels[0], truth, scores, threshold, told.get(name))
        panels[0].set_title(_plain(f"{title(judged.label, name)}: {int(truth.sum())} of {len(truth)} images"))
        panels[1].set_title("calibration")
        panels[2].set_title("scores")
        _draw_reliability(panels[1], truth, scores)
        _draw_scores(panels[2], truth, scores, threshold)
    _save(figure, path)


def plot_roc_curves(path: str | os.PathLike[str], judged: Sequence[Judged], heading: str = "") -> None:
    """Draw the ROC curves of all labels in one picture, as the paper's Figures 4 and 5, the best first.

    Raises:
        InputError: another ending, or no such folder. MissingDependency: matplotlib or scikit-learn is not installed.
    """
    figure = check_plot(path)(figsize=(9, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="lightgray")
    curves = []
    for one in judged:
        for name in one.judged_classes:
            truth, scores = one.one(name)
            area = auc(truth, scores)
            if not math.isnan(area):
                curves.append((area, title(one.label, name), sklearn_metrics().roc_curve(truth, scores)))
    for index, (area, told, (false, right, _)) in enumerate(sorted(curves, key=lambda curve: (-curve[0], curve[1]))):
        style = ("-", "--", ":")[index // 10 % 3]  # ten colours, then again with another line
        axes.plot(false, right, style, color=f"C{index % 10}", label=_plain(f"{told} {area:.4f}"))
    axes.set(xlabel="false-positive rate", ylabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(_plain(heading))
    axes.grid(alpha=0.3)
    if curves:
        figure.legend(loc="outside right upper", fontsize="small", title="AUC")
    _save(figure, path)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a label in a script that the font lacks
        figure.savefig(file, format=Path(path).suffix.lower().removeprefix("."))


def _draw_roc(axes: Any, truth: Bools, scores: Floats, threshold: float | None, row: LabelRow | None) -> None:
    axes.plot([0, 1], [0, 1], ":", color="lightgray")
    if truth.any() and not truth.all():
        false, right, _ = sklearn_metrics().roc_curve(truth, scores)
        axes.plot(false, right, color=_POSITIVE, label=_auc_text(row))
        if threshold is not None:
            counts = Counts.of(truth, scores >= threshold)
            at = counts.fpr, counts.recall
            axes.plot(*at, "o", color=_CHOSEN, label=f"{threshold:.4f}: recall {at[1]:.3f}, FPR {at[0]:.3f}")
        axes.legend(loc="lower right", fontsize="small")
    else:
        axes.text(0.5, 0.5, "one class only", ha="center", va="center")
    axes.set(xlabel="false-positive rate", ylabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)


def _auc_text(row: LabelRow | None) -> str:
    if row is None or math.isnan(row.auc):
        return "ROC"
    bounds = "" if math.isnan(row.auc_low) else f" [{row.auc_low:.3f}, {row.auc_high:.3f}]"
    return f"AUC {row.auc:.4f}{bounds}"


def _draw_reliability(axes: Any, truth: Bools, scores: Floats) -> None:
    points = reliability(truth, scores)
    error = calibration_error(truth, scores)
    axes.plot([0, 1], [0, 1], ":", color="lightgray")
    axes.plot(
        [p.score for p in points], [p.share for p in points], "o-", color=_POSITIVE, label=f"ECE {error:.4f}", ms=4
    )
    axes.set(xlabel="mean score", ylabel="share of positives", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(loc="upper left", fontsize="small")
    axes.grid(alpha=0.3)


def _draw_scores(axes: Any, truth: Bools, scores: Floats, threshold: float | None) -> None:
    """Shares of each class, not counts: of a rare label the positives could not be seen."""
    for some, color, label in ((~truth, _NEGATIVE, "negative"), (truth, _POSITIVE, "positive")):
        if some.any():
            share = np.full(int(some.sum()), 1.0 / int(some.sum()))
            bins = {"bins": HISTOGRAM_BINS, "range": (0.0, 1.0), "weights": share}
            axes.hist(scores[some], **bins, color=color, alpha=0.5, label=f"{label}, {len(share)} images")
    if threshold is not None:
        axes.axvline(threshold, color=_CHOSEN, label=f"threshold {threshold:.4f}")
    axes.set(xlabel="score", ylabel="share of the class", xlim=(-0.02, 1.02))
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper center", fontsize="small")
    axes.grid(alpha=0.3)


def _plain(text: str) -> str:
    """A title that matplotlib takes word by word: a "$" would begin a formula."""
    return text.replace("$", "\\$")
