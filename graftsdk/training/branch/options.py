"""What a branch's training may be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.text import listed
from graftsdk.training.evaluation import parse_rule

__all__ = ["AUTO", "BranchOptions"]

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class BranchOptions:
    """How a branch is made and trained.

    Attributes:
        tap: the first own block; "auto" searches from tap B (head only) downwards for the cheapest branch whose
            validation AUC lies within `tolerance` of the best.
        until: own blocks are tap..until-1; None is B.
        pooling: "gap", "bilinear" or another registered one.
        width: of the own blocks; "auto" searches among 1, 0.5 and 0.25 at each tap.
        init: own blocks start as the trunk's (paper 3.2) or "random".
        tolerance: of the search, in AUC.
        search_taps: taps that "auto" tries; None is B, B-1, B-2, B-3, B-5 and B-7, where they are.
        views: of each training image: the first as serving cuts it, the others augmented.
        cache: keep features on disk; False sends every batch through the trunk.
        precision: of the features on disk.
        epochs: as many draws as there are training images make one.
        batch: images a step.
        balance: classes in a batch: "balanced" draws all equally often, "1:3" the positive (last) class in a quarter
            of the draws and the others by their share, "natural" every image once an epoch. The classifier's bias is
            put right afterwards by log(share drawn / true share), so that probabilities are those of the data.
        learning_rate: of AdamW after warm-up, along a cosine.
        first_rate: factor on the rate of the first own block, whose weights are the trunk's and fit its features.
        weight_decay: of weights; not of biases and BatchNorm.
        warmup: share of the steps.
        clip: greatest norm of the gradient.
        ema: greatest decay of the averaged weights, which are the ones judged and kept; 0 averages nothing.
        patience: epochs without a better validation AUC that end it early; None goes on to the last.
        soft_weight: distillation: share of the loss that the full-width branch's answers have.
        soft_temperature: distillation: of the softened answers (Hinton et al. 2015).
        threshold: rule for the thresholds, on validation data; see `graftsdk.training.evaluation.choose_threshold`.
        seed: of weights, order, draws and views.
        threads: of torch; None: torch's own choice.
        device: "cpu" or "cuda".
    """

    tap: int | Literal["auto"] = AUTO
    until: int | None = None
    pooling: str = "gap"
    width: float | Literal["auto"] = 1.0
    init: Literal["trunk", "random"] = "trunk"
    tolerance: float = 0.002
    search_taps: tuple[int, ...] | None = None
    views: int = 4
    cache: bool = True
    precision: Literal["float16", "float32"] = "float16"
    epochs: int = 20
    batch: int = 64
    balance: Literal["balanced", "1:3", "natural"] = "balanced"
    learning_rate: float = 1e-3
    first_rate: float = 0.3
    weight_decay: float = 0.02
    warmup: float = 0.05
    clip: float = 5.0
    ema: float = 0.99
    patience: int | None = None
    soft_weight: float = 0.7
    soft_temperature: float = 2.0
    threshold: str = "f1"
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, low, high in _INTEGERS:
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), low, high)
        if self.tap != AUTO:
            whole_number("tap", self.tap, 0, 256)
        for name, smallest, largest in _NUMBERS:
            value = getattr(self, name)
            if not (name == "width" and value == AUTO) and not (
                isinstance(value, (int, float)) and not isinstance(value, bool) and smallest <= value <= largest
            ):
                raise InputError(f"{name}: expected a number from {smallest:g} to {largest:g}, found {value!r:.80}")
        parse_rule(self.threshold)
        for name, allowed in _CHOICES:
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}: expected one of {listed(allowed)}, found {getattr(self, name)!r:.80}")


_INTEGERS: Sequence[tuple[str, int, int]] = (
    ("until", 0, 256),
    ("views", 1, 64),
    ("epochs", 1, 100_000),
    ("batch", 2, 65_536),
    ("patience", 1, 100_000),
    ("seed", 0, 2**31 - 1),
    ("threads", 1, 1024),
)
_NUMBERS: Sequence[tuple[str, float, float]] = (
    ("width", 1e-3, 1.0),
    ("tolerance", 0.0, 1.0),
    ("learning_rate", 1e-9, 100.0),
    ("first_rate", 0.0, 100.0),
    ("weight_decay", 0.0, 1.0),
    ("warmup", 0.0, 1.0),
    ("clip", 1e-6, 1e9),
    ("ema", 0.0, 0.999999),
    ("soft_weight", 0.0, 1.0),
    ("soft_temperature", 1e-2, 100.0),
)
_CHOICES: Sequence[tuple[str, tuple[str, ...]]] = (
    ("init", ("trunk", "random")),
    ("precision", ("float16", "float32")),
    ("balance", ("balanced", "1:3", "natural")),
    ("device", ("cpu", "cuda")),
)
