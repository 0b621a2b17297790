"""What a training is told is checked in one way, and before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.text import listed

__all__ = ["LOOP_CHOICES", "LOOP_FREE", "LOOP_RANGES", "LOOP_WHOLE", "check_device", "check_options", "lasting_options"]

# Of what every training by `graftsdk.training.run` may be told.
LOOP_WHOLE: Mapping[str, tuple[int, int]] = {
    "seed": (0, 2**31 - 1),
    "warmup": (0, 10**7),
    "workers": (0, 256),
    "steps": (1, 10**9),
    "threads": (1, 1024),
}
LOOP_RANGES: Mapping[str, tuple[float, float]] = {
    "epochs": (1e-6, 1e6),
    "minutes": (1e-4, 1e6),
    "learning_rate": (1e-9, 100.0),
    "weight_decay": (0.0, 1.0),
    "clip": (1e-6, 1e9),
    "ema": (0.0, 0.999999),
    "eval_minutes": (1e-3, 1e6),
    "eval_epochs": (1e-3, 1e6),
    "save_seconds": (0.0, 1e6),
}
LOOP_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "step"),
    "precision": ("float32", "bfloat16", None),
    "device": ("cpu", "cuda"),
}
LOOP_FREE = (
    *("steps", "epochs", "minutes", "eval_minutes", "eval_epochs", "eval_images", "save_seconds"),
    *("workers", "threads", "device"),
)


def check_options(
    options: Any,
    whole: Mapping[str, tuple[int, int]],
    numbers: Mapping[str, tuple[float, float]],
    choices: Mapping[str, Sequence[str | None]],
) -> None:
    """Refuse what no training could use. Values of None are left to the training, `choices` apart.

    Args:
        options: with `steps`, `epochs`, `minutes` and `device`.
        whole: name -> least and greatest integer.
        numbers: name -> least and greatest number.
        choices: name -> allowed values.

    Raises:
        InputError: names the option.
    """
    for name, (least, most) in whole.items():
        if getattr(options, name) is not None:
            whole_number(name, getattr(options, name), least, most)
    if options.steps is None and options.epochs is None and options.minutes is None:
        raise InputError("length of training: expected steps, epochs or minutes, found none of them")
    for name, (low, high) in numbers.items():
        value = getattr(options, name)
        if value is not None and not (isinstance(value, (int, float)) and low <= value <= high):
            raise InputError(f"{name}: expected a number from {low:g} to {high:g}, found {value!r:.80}")
    check_device(options.device)
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            raise InputError(
                f"{name}: expected one of {listed(filter(None, allowed))}, found {getattr(options, name)!r:.80}"
            )


def lasting_options(options: Any, free: Iterable[str]) -> dict[str, Any]:
    """What a resumed run must not change, as JSON types: all fields of the dataclass but the `free` ones."""
    values = asdict(options)
    for name in free:
        del values[name]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def check_device(device: str) -> None:
    """Refuse "cuda" where torch has no GPU. Raises InputError."""
    if device == "cuda" and not _cuda_works():
        raise InputError("device: expected one that works here, found 'cuda' and no GPU that torch can use")


def _cuda_works() -> bool:
    import torch

    return torch.cuda.is_available()
