"""What a trunk's training may be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from graftsdk.plan import CropSpec
from graftsdk.training.crops.augment import Augmentation
from graftsdk.training.option_checks import (
    LOOP_CHOICES,
    LOOP_FREE,
    LOOP_RANGES,
    LOOP_WHOLE,
    check_options,
    lasting_options,
)

__all__ = ["SGD", "TrunkNetwork", "TrunkOptions"]

SGD: dict[str, Any] = {"learning_rate": 0.03, "weight_decay": 5e-4}  # what that optimizer wants in place of AdamW's


@dataclass(frozen=True)
class TrunkNetwork:
    """The network, see `Trunk.create`; by default the paper's.

    Attributes:
        arch: a registered backbone.
        width: share of its channels.
        crop: what it sees; None: 299 x 299. Persons are 1:2 to 1:3, so 192 x 96 and 160 x 80 waste less.
    """

    arch: str = "inception_v3"
    width: float = 1.0
    crop: CropSpec | None = None


@dataclass(frozen=True)
class TrunkOptions:
    """How a trunk is trained. Training ends at what comes first of `steps`, `epochs` and `minutes`.

    Attributes:
        batch: crops a step, of all its sub-batches and processes together.
        tasks: sub-datasets a step draws, a sub-batch of each; 1 is the paper's. More of them, at most as many as there
            are, mix their domains inside the statistics of BatchNorm.
        alpha: a sub-dataset of N training crops is drawn with a probability in proportion to N ** alpha: 1 starves the
            small ones, 0 goes through them too often.
        least_share: of each class in what is drawn from a sub-dataset, whatever its share there (1:3 by default); with
            n classes at most 1/n. 0 keeps the sub-dataset's own shares, 0.5 balances two classes.
        steps, epochs, minutes: length. An epoch has as many crops as all sub-datasets together; minutes count training
            and evaluation, over all resumed runs.
        optimizer: "adamw" (betas 0.9 and 0.99), or "sgd" with Nesterov's momentum 0.9, which wants a rate of about
            0.03.
        learning_rate: after warm-up.
        schedule: "cosine" (to 1% of the rate) or "step" (x 0.1 at 35, 75, 87.5 and 93.75% of the length).
        warmup: steps, from a tenth of the rate on, linearly; at most a tenth of the length.
        weight_decay: of the weights of convolutions and heads; not of BatchNorm and biases.
        clip: greatest norm of the gradient.
        ema: greatest decay of the averaged weights, which are the ones judged and saved; 0 averages nothing.
        label_smoothing: of the trunk's heads only; a branch's calibration would suffer from it.
        norm_momentum: of BatchNorm's statistics while it trains; None: 0.01 where a step draws one sub-dataset, for
            0.1 remembers the last 10 to 20 batches only, else 0.1.
        norm_images: crops by which BatchNorm's statistics are measured at the end.
        augmentation: of training crops.
        precision: "bfloat16" runs the trunk's forward pass in it (autocast). None: bfloat16 on CPUs with AMX and on
            GPUs, float32 elsewhere.
        seed: of weights, order and augmentation.
        eval_minutes: between evaluations on validation crops, in minutes of training; the last one is after the end.
        eval_epochs: between evaluations, in epochs; where given, `eval_minutes` is of no effect.
        eval_images: at most so many crops of each label on the way; all at the end.
        save_seconds: between two writings of the training state.
        workers: processes that augment crops, for each training process; 0: that one itself.
        threads: of torch, and those that decode images; None: torch's own choice, shared by a machine's processes.
        device: "cpu" or "cuda".
        devices: training processes on each machine, each with a share of every batch's crops and, with "cuda", a GPU of
            its own. More than one process in all needs lightning-fabric.
        nodes: machines, which share the folders of data, cache and output.
    """

    batch: int = 64
    tasks: int = 4
    alpha: float = 0.5
    least_share: float = 0.25
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 0.001
    schedule: Literal["cosine", "step"] = "cosine"
    warmup: int = 300
    weight_decay: float = 0.02
    clip: float = 5.0
    ema: float = 0.998
    label_smoothing: float = 0.05
    norm_momentum: float | None = None
    norm_images: int = 5000
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Literal["float32", "bfloat16"] | None = None
    seed: int = 0
    eval_minutes: float = 5.0
    eval_epochs: float | None = None
    eval_images: int = 500
    save_seconds: float = 120.0
    workers: int = 1
    threads: int | None = None
    device: str = "cpu"
    devices: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        check_options(self, _WHOLE, _RANGES, LOOP_CHOICES)

    def momentum(self, tasks: int) -> float:
        """Of BatchNorm, where a step draws so many sub-datasets."""
        if self.norm_momentum is not None:
            return self.norm_momentum
        return 0.01 if tasks == 1 else 0.1

    def lasting(self) -> dict[str, Any]:
        """What a resumed run must not change, as JSON types: weights would differ from those of one whole run.

        Of `devices` and `nodes` it is their product, the processes that share a batch: each has statistics of its own
        in BatchNorm. One process is not mentioned.
        """
        world = self.devices * self.nodes
        return lasting_options(self, _FREE) | ({"processes": world} if world > 1 else {})


_WHOLE = {
    **LOOP_WHOLE,
    "batch": (2, 65536),
    "tasks": (1, 4096),
    "norm_images": (2, 10**7),
    "eval_images": (2, 10**7),
    "devices": (1, 1024),
    "nodes": (1, 4096),
}
_RANGES = {
    **LOOP_RANGES,
    "alpha": (0.0, 4.0),
    "least_share": (0.0, 0.5),
    "label_smoothing": (0.0, 0.5),
    "norm_momentum": (1e-6, 1.0),
}
# norm_images: nothing but the checkpoint's own statistics follows from it.
_FREE = (*LOOP_FREE, "norm_images", "devices", "nodes")
