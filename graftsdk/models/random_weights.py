"""Random weights that are the same on every machine and leave the global generators alone.

The bits come from PCG64's raw stream, which NumPy guarantees never to change, and become weights by exact integer
sums and single IEEE operations. `torch.randn` promises neither: its logarithms and cosines differ between CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from torch import nn

from graftsdk.errors import InputError

__all__ = ["RandomBits", "fill_randomly"]

_BITS = 24


class RandomBits:
    """One seeded stream of weights."""

    def __init__(self, seed: int) -> None:
        """Raises InputError: `seed` is no integer from 0 to 2**63 - 1."""
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"seed: expected an integer from 0 to 2**63 - 1, found {seed!r}")
        self._source = np.random.PCG64(seed)

    def uniform(self, shape: tuple[int, ...], std: float, *, centred: bool) -> torch.Tensor:
        """float32[shape], uniform around 0 with standard deviation `std`.

        Args:
            shape: the first axis counts rows (filters).
            std: standard deviation of a weight.
            centred: give every row the sum 0, so that what all its inputs have in common (the mean of activations
                behind ReLU) does not drown what differs between two crops.
        """
        rows, columns = shape[0], math.prod(shape[1:])
        raw = (self._source.random_raw(rows * columns) >> np.uint64(64 - _BITS)).astype(np.int64).reshape(rows, columns)
        if centred and columns > 1:
            offset = raw * columns - raw.sum(axis=1, keepdims=True)  # below 2**50: exact in float64
            unit = std * math.sqrt(12.0) / (2.0**_BITS * columns)
        else:
            offset = 2 * raw - (2**_BITS - 1)
            unit = std * math.sqrt(12.0) / 2.0 ** (_BITS + 1)
        return torch.from_numpy((offset.astype(np.float64) * unit).astype(np.float32).reshape(shape))


def fill_randomly(module: nn.Module, bits: RandomBits, gain: float, damped: Collection[str] = ()) -> nn.Module:
    """`module`, moved from the meta device to the CPU with random weights.

    Convolutions: uniform, standard deviation gain / sqrt(fan-in), filters centred unless they read the crop's three
    channels or are depthwise; biases 0. BatchNorm: statistics 0 and 1, gamma 1 (0.5 where `damped` names it).
    """
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d):
                fan_in = math.prod(layer.weight.shape[1:])
                centred = layer.in_channels > 3 and layer.groups == 1
                # A projection stands on a shortcut: no activation behind it, so it keeps the variance by itself.
                scale = 1.0 if name.split(".")[-1].startswith("projection") else gain
                layer.weight.copy_(bits.uniform(tuple(layer.weight.shape), scale / math.sqrt(fan_in), centred=centred))
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()
                if name in damped:
                    layer.weight.fill_(0.5)
            elif next(layer.parameters(recurse=False), None) is not None:
                raise InputError(
                    f"{name}: random weights are known for convolutions and BatchNorm, found {type(layer)}"
                )
    return module
