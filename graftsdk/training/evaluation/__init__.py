"""How good a label is: figures that can be trusted, on NumPy and scikit-learn, without torch. Paper 4.3."""

from graftsdk.training.evaluation.calibration import fit_temperature, histogram, prior_shift, softmax
from graftsdk.training.evaluation.ranking import auc, auc_interval, average_precision
from graftsdk.training.evaluation.thresholds import RULES, choose_threshold, parse_rule

__all__ = [
    "RULES",
    "auc",
    "auc_interval",
    "average_precision",
    "choose_threshold",
    "fit_temperature",
    "histogram",
    "parse_rule",
    "prior_shift",
    "softmax",
]
