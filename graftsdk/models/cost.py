"""Multiply-adds and learned parameters, counted on the meta device: no weight is touched.

Counted are convolutions and matrix products, as in the literature; BatchNorm's gamma and beta count as parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from graftsdk.models.branch import Branch
from graftsdk.models.structure import tap_shapes, trunk_modules
from graftsdk.models.trunk import Trunk

__all__ = ["branch_cost", "trunk_cost"]


def trunk_cost(trunk: Trunk) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(macs, parameters), each cumulative for taps 0..B: what one crop of the trunk's input size costs up to there."""
    found = trunk.backbone
    modules = trunk_modules(found, trunk.width)
    x = torch.empty(1, 3, *trunk.input_size, device="meta")
    macs, parameters = [0], [0]
    for index, module in enumerate(modules.values()):
        x, count = _count(module, x)
        if len(found.stem) <= index:
            macs.append(macs[-1])
            parameters.append(parameters[-1])
        macs[-1] += count
        parameters[-1] += _parameters(module)
    return tuple(macs), tuple(parameters)


def branch_cost(branch: Branch) -> tuple[int, int]:
    """(macs, parameters) of the branch's own blocks, pooling and classifier, for one crop."""
    shapes = tap_shapes(branch.backbone, branch.trunk_width, branch.crop.size)
    _, macs = _count(branch.skeleton(), torch.empty(1, *shapes[branch.tap], device="meta"))
    return macs, _parameters(branch)


def _count(module: Callable[..., Any], x: torch.Tensor) -> tuple[torch.Tensor, int]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        y = module(x)
    return y, counter.get_total_flops() // 2


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
