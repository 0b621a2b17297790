"""Pooling: from a map of features to the vector that a branch's classifier reads.

A pooling is an `nn.Module` made as `cls(channels, nonnegative)`. Its `forward` gives
`(features[N, D], scale[N, 1] | None)`, and the classifier computes `features @ W.T / scale + b`: a norm is one scalar
an image after the product, never a pass over D values.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from graftsdk.errors import InputError
from graftsdk.plan.documents import NAME

__all__ = [
    "BilinearPooling",
    "FewCellsWarning",
    "GlobalAveragePooling",
    "Pooling",
    "pooling",
    "register_pooling",
    "registered_poolings",
]

EPS = 1e-5  # 1e-8 underflows in float16, and makes the square root's slope 5000 at 0
REDUCED = 256  # channels that signed features are reduced to
ADVISED_CELLS = 100  # rank(X X^T) <= H * W: with few cells bilinear pooling holds little beyond the mean


class FewCellsWarning(UserWarning):
    """Bilinear pooling over fewer than 100 cells."""


class Pooling(nn.Module):
    """Base of poolings.

    Attributes:
        features: D.
        scaled: whether `forward` gives a scale, so that features / scale has norm 1.
        least_cells: the least H * W of the map that it makes sense for; fewer are refused.
        advised_cells: below it `Branch.create` warns.
    """

    scaled = False
    least_cells = 1
    advised_cells = 1

    def __init__(self, channels: int, nonnegative: bool) -> None:
        """Args: channels, nonnegative: of the features that come in."""
        super().__init__()
        self.features = channels

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(features[N, D], scale[N, 1] or None) of x[N, C, H, W]."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class GlobalAveragePooling(Pooling):
    """The mean of every channel (`gap`, paper 3.3)."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return x.mean((2, 3)), None


class BilinearPooling(Pooling):
    """Products of all pairs of channels (`bilinear`, paper 3.6; Lin et al. 2015), square root and norm.

    For features x >= 0 with P = H * W cells, B = x x^T / P:

        features = vec(sqrt(B + eps)),   scale = ||features|| = sqrt(sum_p (sum_c x_cp)^2 / P + C^2 eps)

    The term C^2 eps keeps a crop that is all background finite. The factor P^-0.5 comes before the product, whose
    sums of 289 squares would pass float16's 65504. Signed features (MobileNetV3) first go through a 1x1 convolution to
    at most 256 channels and ReLU (`pool.reduce`).
    """

    scaled = True
    least_cells = 2  # one cell holds nothing beyond the pooled vector itself
    advised_cells = ADVISED_CELLS

    def __init__(self, channels: int, nonnegative: bool) -> None:
        super().__init__(channels, nonnegative)
        self.reduce = None if nonnegative else nn.Conv2d(channels, min(channels, REDUCED), 1)
        self.channels = channels if self.reduce is None else self.reduce.out_channels
        self.features = self.channels**2

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.reduce is not None:
            x = torch.relu(self.reduce(x))
        x = x.flatten(2) * (x.shape[2] * x.shape[3]) ** -0.5  # [N, C, P]
        y = torch.sqrt(torch.matmul(x, x.transpose(1, 2)) + EPS)  # [N, C, C]
        sums = x.sum(1)  # [N, P]
        square = (sums * sums).sum(1, keepdim=True) + self.channels**2 * EPS  # [N, 1]
        return y.flatten(1), torch.sqrt(square)


_REGISTRY: dict[str, type[Pooling]] = {}


def register_pooling(name: str, cls: type[Pooling]) -> type[Pooling]:
    """`cls`, from now on known as `pooling=name` to `Branch.create` and to files that name it.

        >>> class MaxPooling(Pooling):
        ...     def forward(self, x):
        ...         return x.amax((2, 3)), None
        >>> register_pooling("max", MaxPooling).__name__
        'MaxPooling'

    Its layers with weights must be convolutions or BatchNorm (random weights are known for these), and everything in
    it must have an exact form in ONNX opset 18.

    Raises:
        InputError: the name is taken by another class or no valid name, or `cls` is no Pooling.
    """
    if re.fullmatch(NAME, name, re.ASCII) is None:
        raise InputError(f"pooling name: expected the form {NAME}, found {name!r}")
    if not isinstance(cls, type) or not issubclass(cls, Pooling):
        raise InputError(f"pooling {name!r}: expected a subclass of Pooling, found {cls!r}")
    if _REGISTRY.setdefault(name, cls) is not cls:
        raise InputError(f"pooling {name!r} is registered already; choose another name")
    return cls


def registered_poolings() -> tuple[str, ...]:
    """The known names, sorted."""
    return tuple(sorted(_REGISTRY))


def pooling(name: str) -> type[Pooling]:
    """The pooling of that name. Raises InputError, naming those that are known."""
    found = _REGISTRY.get(name)
    if found is None:
        raise InputError(f"pooling: expected one of {', '.join(registered_poolings())}, found {name!r}")
    return found


register_pooling("gap", GlobalAveragePooling)
register_pooling("bilinear", BilinearPooling)
