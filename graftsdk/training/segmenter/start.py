"""A segmenter at the beginning of its training, and what it is fed with."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import torch
from torch import nn

from graftsdk.models import Yolact
from graftsdk.segment.demo import named_segmenter
from graftsdk.segment.yolact import MEAN, STD
from graftsdk.text import counted
from graftsdk.training.segmenter.options import NetworkOptions, SegmenterOptions

__all__ = ["freeze_norm", "new_optimizer", "new_segmenter", "normalised"]

LIKELY = 0.01
MOMENTUM = 0.9
BETAS = (0.9, 0.99)  # of AdamW; 0.99: trainings here are thousands of steps, not hundreds of thousands
_logger = logging.getLogger("graftsdk")


def new_segmenter(
    network: NetworkOptions,
    init: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
    focal: bool = False,
) -> Yolact:
    """The network before its first step.

    Args:
        network: what it is.
        init: a segmenter's checkpoint, or "demo"; tensors are taken where names and shapes agree. One line is logged.
        weights: of the backbone, torchvision's, where `init` has none that fit.
        seed: of random weights.
        focal: whether nothing is likely at first: each class has the probability 0.01 at every prior (Lin et al. 2017).

    Raises:
        InputError, PlanError: see `Yolact.create` and `Yolact.load`.
    """
    values: dict[str, Any] = {name: getattr(network, name) for name in NetworkOptions.__dataclass_fields__}
    model = Yolact.create(**values, weights=weights, seed=seed)
    if focal:
        with torch.no_grad():  # background's logit stays 0
            bias = model.head.conf.bias
            assert bias is not None  # the head's convolutions have all one
            bias.view(len(network.aspect_ratios), -1)[:, 1:] = math.log(LIKELY / (1 - LIKELY))
    if init is None:
        return model
    start = Yolact.load(named_segmenter(init))
    own, given = model.state_dict(), start.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    anew = sorted(own.keys() - fitting.keys())
    model.provenance = start.provenance
    _logger.info(
        "%s: %s taken%s",
        init,
        counted(len(fitting), "tensor"),
        f", {len(anew)} of other shapes start anew: {', '.join(anew[:6])}{' ...' if len(anew) > 6 else ''}"
        if anew
        else "",
    )
    return model


def new_optimizer(model: nn.Module, options: SegmenterOptions) -> torch.optim.Optimizer:
    """The optimizer that the options name, over all parameters."""
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), rate, BETAS, weight_decay=decay, foreach=True)
    return torch.optim.SGD(model.parameters(), rate, MOMENTUM, weight_decay=decay, foreach=True)


def freeze_norm(model: nn.Module) -> None:
    """BatchNorm keeps its statistics and its factors, until `model.train()` is called again."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.requires_grad_(False)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """float32[B, 3, H, W], channels last, as the network wants it, of uint8[B, 3, H, W] RGB."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)
