"""How good a label is: figures that can be trusted, on NumPy and scikit-learn, without torch. Paper 4.3."""

from graftsdk.training.evaluation.calibration import (
    ReliabilityPoint,
    brier,
    calibration_error,
    fit_temperature,
    histogram,
    prior_shift,
    reliability,
    softmax,
)
from graftsdk.training.evaluation.comparison import Comparison, Delta, compare
from graftsdk.training.evaluation.counts import Counts
from graftsdk.training.evaluation.exact_tests import mcnemar, sign_test
from graftsdk.training.evaluation.fitted import Fitted, fit
from graftsdk.training.evaluation.judged import Judged, confusion, decided, thresholds_of
from graftsdk.training.evaluation.plots import plot_label, plot_roc_curves
from graftsdk.training.evaluation.ranking import auc, auc_interval, average_precision
from graftsdk.training.evaluation.report import (
    comparison_markdown,
    confusion_markdown,
    markdown,
    top_markdown,
    write_csv,
    write_markdown,
)
from graftsdk.training.evaluation.tables import LabelRow, Summary, camera_rows, label_rows, summary
from graftsdk.training.evaluation.thresholds import RULES, choose_threshold, parse_rule
from graftsdk.training.evaluation.top import TopRow, top_rows
from graftsdk.training.evaluation.written import evaluation_text, write_evaluation

__all__ = [
    "RULES",
    "Comparison",
    "Counts",
    "Delta",
    "Fitted",
    "Judged",
    "LabelRow",
    "ReliabilityPoint",
    "Summary",
    "TopRow",
    "auc",
    "auc_interval",
    "average_precision",
    "brier",
    "calibration_error",
    "camera_rows",
    "choose_threshold",
    "compare",
    "comparison_markdown",
    "confusion",
    "confusion_markdown",
    "decided",
    "evaluation_text",
    "fit",
    "fit_temperature",
    "histogram",
    "label_rows",
    "markdown",
    "mcnemar",
    "parse_rule",
    "plot_label",
    "plot_roc_curves",
    "prior_shift",
    "reliability",
    "sign_test",
    "softmax",
    "summary",
    "thresholds_of",
    "top_markdown",
    "top_rows",
    "write_csv",
    "write_evaluation",
    "write_markdown",
]
