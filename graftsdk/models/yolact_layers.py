"""YOLACT's own layers: where the backbone is tapped, the feature pyramid, the prototypes, the prediction head.

Source: Bolya et al. 2019 and dbolya/yolact 902073d (yolact.py, data/config.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional

from graftsdk.errors import InputError
from graftsdk.models.backbones import Backbone, backbone
from graftsdk.models.random_weights import RandomBits
from graftsdk.models.structure import place, tap_shapes, trunk_modules

__all__ = ["Head", "Prototypes", "Pyramid", "PyramidBackbone", "fill_xavier", "level_sizes", "pyramid_taps"]

STRIDES = (8, 16, 32)  # of C3, C4, C5
_PROBE = 512  # pixels: where the stride of a tap is measured, against twice as many


@lru_cache(maxsize=32)
def pyramid_taps(found: Backbone) -> tuple[int, int, int]:
    """The taps C3, C4, C5: the last ones whose cells are 8, 16 and 32 pixels apart.

    Raises:
        InputError: the backbone has none of one of these strides.
    """
    small, large = (tap_shapes(found, 1.0, (side, side)) for side in (_PROBE, 2 * _PROBE))
    last: dict[float, int] = {}
    for k, (near, far) in enumerate(zip(small, large, strict=True)):
        last[_PROBE / (far[1] - near[1])] = k  # of unpadded layers too: what they lose at the border cancels out
    missing = [stride for stride in STRIDES if stride not in last]
    if missing:
        raise InputError(
            f"arch: expected a backbone with blocks at strides 8, 16 and 32, found {found.name!r} without {missing}"
        )
    return last[8], last[16], last[32]


def level_sizes(arch: str, width: float, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(h, w) of P3..P7 for an input of `size`, (H, W). Raises ImageTooSmall."""
    found = backbone(arch)
    shapes = tap_shapes(found, width, size)
    levels = [shapes[tap][1:] for tap in pyramid_taps(found)]
    for _ in range(2):  # 3x3, stride 2, padding 1
        height, width_ = levels[-1]
        levels.append(((height + 1) // 2, (width_ + 1) // 2))
    return tuple(levels)


def fill_xavier(module: nn.Module, bits: RandomBits) -> nn.Module:
    """`module`, moved from the meta device to the CPU: convolutions Xavier-uniform, biases 0, the same everywhere.

    BatchNorm begins as nothing: factor 1, bias 0, mean 0, variance 1.
    """
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                area = math.prod(layer.kernel_size)
                std = math.sqrt(2.0 / ((layer.in_channels + layer.out_channels) * area))
                layer.weight.copy_(bits.uniform(tuple(layer.weight.shape), std, centred=False))
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()
    return module


def _norms(count: int, channels: int, norm: bool) -> nn.ModuleList:
    """What stands behind so many convolutions: BatchNorm, or nothing, which has no keys in the state dict."""
    return nn.ModuleList(nn.BatchNorm2d(channels) if norm else nn.Identity() for _ in range(count))


class PyramidBackbone(nn.Module):
    """Images [B, 3, H, W] -> C3, C4, C5, each [B, C, h, w]. State-dict keys are torchvision's."""

    def __init__(self, arch: str, width: float) -> None:
        """Built on the meta device. Raises UnsupportedOp, InputError."""
        super().__init__()
        found = backbone(arch)
        self._taps = pyramid_taps(found)
        self._names = found.stem + found.blocks[: self._taps[-1]]
        self._stem = len(found.stem)
        modules = trunk_modules(found, width)
        place(self, {name: modules[name] for name in self._names})

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        levels = []
        for index, name in enumerate(self._names, start=1):
            x = self.get_submodule(name)(x)
            if index - self._stem in self._taps:
                levels.append(x)
        return levels


class Pyramid(nn.Module):
    """C3, C4, C5 -> P3..P7, each [B, channels, h, w], P3..P5 behind ReLU."""

    def __init__(self, inputs: Sequence[int], channels: int, norm: bool) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        self.down = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2))
        self.smooth_norm, self.down_norm = _norms(len(inputs), channels, norm), _norms(2, channels, norm)

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        merged: list[torch.Tensor] = []
        for lateral, level in zip(reversed(self.lateral), reversed(levels), strict=True):
            x = lateral(level)
            if merged:  # to the exact size, which is odd as often as not
                x = x + functional.interpolate(merged[0], x.shape[-2:], mode="bilinear", align_corners=False)
            merged.insert(0, x)
        parts = zip(self.smooth, self.smooth_norm, merged, strict=True)
        found = [functional.relu(norm(smooth(x))) for smooth, norm, x in parts]
        for down, norm in zip(self.down, self.down_norm, strict=True):
            found.append(norm(down(found[-1])))
        return found


class Prototypes(nn.Module):
    """P3 [B, channels, h, w] -> prototypes [B, 2h, 2w, K] behind ReLU."""

    def __init__(self, channels: int, count: int, norm: bool) -> None:
        super().__init__()
        self.coarse = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.coarse_norm, (self.fine_norm,) = _norms(3, channels, norm), _norms(1, channels, norm)
        self.fine = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, count, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, norm in zip(self.coarse, self.coarse_norm, strict=True):
            x = functional.relu(norm(layer(x)))
        height, width = x.shape[-2:]
        x = functional.interpolate(x, (2 * height, 2 * width), mode="bilinear", align_corners=False)
        x = functional.relu(self.fine_norm(self.fine(x)))
        return functional.relu(self.last(x)).permute(0, 2, 3, 1)


class Head(nn.Module):
    """One level [B, channels, h, w] -> loc [B, P, 4], logits [B, P, columns], coefficients [B, P, K] behind tanh.

    P = h * w * ratios, by row, column, aspect ratio. One head for all levels.
    """

    def __init__(self, channels: int, ratios: int, columns: int, prototypes: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(channels, channels, 3, padding=1)
        self.loc = nn.Conv2d(channels, ratios * 4, 3, padding=1)
        self.conf = nn.Conv2d(channels, ratios * columns, 3, padding=1)
        self.mask = nn.Conv2d(channels, ratios * prototypes, 3, padding=1)
        self._ratios = ratios

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = functional.relu(self.shared(x))
        return self._rows(self.loc(x)), self._rows(self.conf(x)), torch.tanh(self._rows(self.mask(x)))

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        count = height * width * self._ratios
        return x.permute(0, 2, 3, 1).reshape(batch, count, channels // self._ratios)
