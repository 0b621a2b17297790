"""What a segmenter's training may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from graftsdk.training.option_checks import (
    LOOP_CHOICES,
    LOOP_FREE,
    LOOP_RANGES,
    LOOP_WHOLE,
    check_options,
    lasting_options,
)

__all__ = ["YOLACT_PRESET", "NetworkOptions", "SegmenterOptions"]


@dataclass(frozen=True)
class NetworkOptions:
    """The network: by default a small one that finds persons on a CPU.

    Attributes: as `Yolact.create` has them; aspect_ratios are w/h, square_priors the original's h = w. The scales lie
        close together, where people in front of a camera are, whatever the strides: on drawn scenes a person has seven
        priors of IoU 0.5 and more (median) with them, two with scales of 2.5 strides.
    """

    arch: str = "resnet18"
    width: float = 0.35
    channels: int = 64
    prototypes: int = 32
    input_size: tuple[int, int] = (192, 320)
    classes: tuple[str, ...] = ("person",)
    scales: tuple[float, ...] | None = (30.0, 60.0, 90.0, 120.0, 160.0)
    aspect_ratios: tuple[float, ...] = (0.35, 0.6, 1.0)
    square_priors: bool = False
    norm: bool = True


# yolact_resnet50 of the original, but for its 80 classes: --classes asks for them.
YOLACT_PRESET = NetworkOptions("resnet50", 1.0, 256, 32, (550, 550), ("person",), None, (1.0, 0.5, 2.0), True, False)


@dataclass(frozen=True)
class SegmenterOptions:
    """How a segmenter is trained. Training ends at what comes first of `steps`, `epochs` and `minutes`.

    Attributes:
        network: what is trained.
        batch: images a step.
        steps, epochs, minutes: length; minutes count training and evaluation, over all resumed runs.
        optimizer: "adamw" (betas 0.9 and 0.99), which from random weights was ahead (AP50 0.27 against 0.22 after 4.5
            minutes); or "sgd" with momentum 0.9, the paper's, which wants a rate of about 0.01, or 0.001 from
            pretrained weights, and a weight decay of about 5e-4.
        learning_rate: after warm-up.
        schedule: "cosine" (to 1% of the rate) or "step" (x 0.1 at 35, 75, 87.5 and 93.75% of the length, the
            original's 280, 600, 700 and 750 of 800 thousand).
        warmup: steps, from a tenth of the rate on, linearly; at most a tenth of the length.
        weight_decay: of all parameters, as in the original.
        clip: greatest norm of the gradient.
        ema: greatest decay of the averaged weights, which are the ones evaluated and saved; 0 averages nothing.
        confidence: "ohem", the paper's cross entropy over the hardest background priors; or "focal", over all priors,
            for a network that starts from random weights: any prior may be the hardest then, and OHEM keeps all of
            them at one score for thousands of steps.
        copy_paste: probability that instances of another image are put in front.
        mixed_sizes: each batch takes one of four sizes around the input's, multiples of 32 apart; else always the same.
        freeze_norm: BatchNorm keeps its statistics and factors; None: where weights are given and a batch has less than
            6 images, as the original does.
        precision: "bfloat16" runs the network's forward pass in it (autocast): nearly twice as fast on CPUs with AMX
            (ResNet-18 of width 0.35, 16 images of 192x320, 2 threads: 290 ms a step, 530 in float32). None: bfloat16
            on such CPUs and on GPUs, float32 elsewhere.
        seed: of weights, order and augmentation.
        eval_minutes: between evaluations, in minutes of training; the last one is after the end.
        eval_epochs: between evaluations, in epochs; where given, `eval_minutes` is of no effect.
        eval_images: at most so many of the validation images on the way, of all sets; all at the end.
        save_seconds: between two writings of the training state.
        workers: processes that load images; 0: the training process itself.
        threads: of torch; None: torch's own choice.
        device: "cpu" or "cuda".
    """

    network: NetworkOptions = field(default_factory=NetworkOptions)
    batch: int = 16
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 0.001
    schedule: Literal["cosine", "step"] = "cosine"
    warmup: int = 300
    weight_decay: float = 0.02
    clip: float = 10.0
    ema: float = 0.998
    confidence: Literal["ohem", "focal"] = "focal"
    copy_paste: float = 0.3
    mixed_sizes: bool = True
    freeze_norm: bool | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    seed: int = 0
    eval_minutes: float = 5.0
    eval_epochs: float | None = None
    eval_images: int = 200
    save_seconds: float = 120.0
    workers: int = 1
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_options(self, _WHOLE, _RANGES, _CHOICES)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) that batches are drawn at; the network's input first."""
        height, width = self.network.input_size
        if not self.mixed_sizes:
            return ((height, width),)
        steps = [max(32, round(s * height / 32) * 32) for s in (0.85, 1.15, 1.3)]
        around = [(side, max(32, round(side / height * width / 32) * 32)) for side in steps]
        return ((height, width), *(size for size in dict.fromkeys(around) if size != (height, width)))

    def lasting(self) -> dict[str, Any]:
        """What a resumed run must not change, as JSON types: weights would differ from those of one whole run."""
        return lasting_options(self, LOOP_FREE)


_WHOLE = {**LOOP_WHOLE, "batch": (1, 4096), "eval_images": (1, 10**7)}
_RANGES = {**LOOP_RANGES, "copy_paste": (0.0, 1.0)}
_CHOICES: Mapping[str, tuple[str | None, ...]] = {**LOOP_CHOICES, "confidence": ("ohem", "focal")}
