"""What a branch stores of its validation data: temperature, thresholds, figures, histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.training.evaluation.calibration import fit_temperature, histogram
from graftsdk.training.evaluation.judged import Judged
from graftsdk.training.evaluation.resampling import DRAWS
from graftsdk.training.evaluation.tables import label_rows
from graftsdk.training.evaluation.thresholds import DEFAULT_RULE, choose_threshold

__all__ = ["Fitted", "fit"]

_STORED = (
    *("accuracy", "precision", "recall", "fpr", "f1", "auc", "auc_low", "auc_high", "ap", "ece", "brier"),
    *("images", "positives"),
)


@dataclass(frozen=True)
class Fitted:
    """Fields of a branch's document, under their names there.

    Attributes:
        temperature: probabilities are softmax(logits / temperature).
        thresholds: class -> threshold, of two classes the last one's.
        metrics: name -> figure on the validation data, of three classes and more "male.auc"; what is undefined lacks.
        histogram: class -> counts of its score in 20 bins.
    """

    temperature: float
    thresholds: dict[str, float]
    metrics: dict[str, float]
    histogram: dict[str, tuple[int, ...]]


def fit(
    label: str,
    classes: Sequence[str],
    targets: npt.ArrayLike,
    logits: npt.ArrayLike,
    identities: Sequence[str],
    *,
    rule: str | Mapping[str, str] = DEFAULT_RULE,
    seed: int = 0,
    draws: int = DRAWS,
) -> Fitted:
    """Temperature first, then each class's threshold by `rule` on the calibrated scores of the validation data.

    Args:
        targets: int[N]. logits: float[N, C], any prior correction in them (`prior_shift`). identities: N of them.
        rule: see `choose_threshold`; of three classes and more {class: rule} too, "f1" for the others.

    Raises:
        InputError: arrays that do not fit, NaN, a class without images, or a bound that no threshold meets.
    """
    temperature = fit_temperature(logits, targets)
    judged = Judged.from_logits(label, classes, targets, logits, identities, temperature=temperature)
    rules = dict.fromkeys(judged.judged_classes, rule) if isinstance(rule, str) else dict(rule)
    if unknown := [name for name in rules if name not in judged.judged_classes]:
        raise InputError(f"{label!r}: expected rules for classes of {list(judged.judged_classes)}, found {unknown}")
    thresholds = {}
    for name in judged.judged_classes:
        try:
            thresholds[name] = choose_threshold(*judged.one(name), rules.get(name, DEFAULT_RULE))
        except InputError as error:
            raise InputError(f"label {label!r}, class {name!r}: {error}") from error
    metrics: dict[str, float] = {}
    for row in label_rows(judged, thresholds, seed=seed, draws=draws):
        before = "" if len(judged.classes) == 2 else f"{row.name}."
        figures = row.figures()
        metrics |= {f"{before}{name}": figures[name] for name in _STORED if not math.isnan(figures[name])}
    if len(judged.classes) > 2:
        metrics["accuracy"] = float(np.mean(np.argmax(judged.probabilities, axis=1) == judged.targets))
    counts = {name: histogram(judged.one(name)[1]) for name in judged.judged_classes}
    return Fitted(temperature, thresholds, metrics, counts)
