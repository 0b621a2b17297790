"""What a branch stores of the images it was judged on: validation sets its thresholds, test only reports."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.models import Branch
from graftsdk.training.evaluation.fitted import fit
from graftsdk.training.evaluation.judged import Judged
from graftsdk.training.evaluation.tables import label_rows
from graftsdk.training.evaluation.thresholds import DEFAULT_RULE

__all__ = ["figures_on_test", "settle"]

REPORTED = ("accuracy", "precision", "recall", "fpr", "f1", "auc", "auc_low", "auc_high", "ap", "images", "positives")
_logger = logging.getLogger("graftsdk")

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


def settle(branch: Branch, logits: _Floats, targets: _Integers, identities: Sequence[str], rule: str) -> str:
    """Set the branch's temperature, thresholds, metrics and histogram by validation data; the rule that was followed.

    A bound that no threshold meets is no reason to lose a trained branch: "f1" takes its place, and a log line says so.

    Raises:
        InputError: a class without validation images.
    """
    try:
        found, followed = fit(branch.label, branch.classes, targets, logits, identities, rule=rule), rule
    except InputError as error:
        if rule == DEFAULT_RULE:
            raise
        found, followed = fit(branch.label, branch.classes, targets, logits, identities), DEFAULT_RULE
        _logger.warning("%s: thresholds follow %r in place of %r: %s", branch.label, DEFAULT_RULE, rule, error)
    branch.temperature, branch.thresholds = found.temperature, found.thresholds
    branch.metrics, branch.histogram = found.metrics, found.histogram
    return followed


def figures_on_test(branch: Branch, logits: _Floats, targets: _Integers, identities: Sequence[str]) -> dict[str, float]:
    """Figures on test data at the thresholds that validation set: "test.auc", of more classes "test.male.auc".

    What is not defined on these images (a class that is not there, one identity only) is left out.
    """
    judged = Judged.from_logits(
        branch.label, branch.classes, targets, logits, identities, temperature=branch.temperature
    )
    found: dict[str, float] = {}
    for row in label_rows(judged, branch.thresholds):
        before = "test." if len(branch.classes) == 2 else f"test.{row.name}."
        figures = row.figures()
        found |= {f"{before}{name}": float(figures[name]) for name in REPORTED}
    return {name: value for name, value in found.items() if math.isfinite(value)}
