"""Averaged weights: what a training evaluates and saves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["averaged_model"]


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential average of the model's parameters and buffers, BatchNorm's statistics among them.

    The decay grows to `decay` as (1 + n) / (10 + n) over n steps, so that random weights are soon forgotten.
    """

    def update(averaged: Any, current: Any, count: torch.Tensor | int) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, count)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
