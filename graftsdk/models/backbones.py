"""Backbones: torchvision's own networks, of which graftsdk only names the stem and the numbered blocks.

Torchvision's module names are kept everywhere, so its weights load as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn
from torchvision import models
from torchvision.models.mobilenetv3 import mobilenet_v3_large, mobilenet_v3_small

from graftsdk.errors import InputError
from graftsdk.plan.documents import MAX_BLOCKS, NAME

__all__ = ["Backbone", "backbone", "register_backbone", "registered_backbones"]


@dataclass(frozen=True)
class Backbone:
    """Where a torchvision network is cut into a stem and blocks 0..B-1.

    Attributes:
        name: the registered name, `arch` in every file.
        build: gives the network with any weights; it is called on the meta device, so no weight is ever drawn.
        stem: names of its modules that come before block 0, in order; they always belong to the trunk.
        blocks: names of the blocks, in order; tap k enters block k.
        nonnegative: whether every tap from 1 on is >= 0 (a block ends in ReLU), as bilinear pooling needs.
        classifier: prefixes of torchvision's weights that are no part of the trunk.
        gain: of random convolution weights: standard deviation x sqrt(fan-in). 1.71 keeps the variance of centred
            filters behind ReLU; a backbone's own value is measured (tests/models/test_trunk.py).
        damped: names of the BatchNorm layers that close a residual branch; random weights start them at 0.5, so that
            a sum over many blocks keeps its scale.
    """

    name: str
    build: Callable[[], nn.Module]
    stem: tuple[str, ...]
    blocks: tuple[str, ...]
    nonnegative: bool
    classifier: tuple[str, ...] = ("fc.", "classifier.", "AuxLogits.")
    gain: float = 1.71
    damped: tuple[str, ...] = ()


_REGISTRY: dict[str, Backbone] = {}


def register_backbone(new: Backbone) -> Backbone:
    """`new`, from now on known by its name to `Trunk.create` and to files that name it.

    Another torchvision network needs its names only:

        >>> from functools import partial
        >>> from torchvision import models
        >>> blocks = tuple(f"layer{i}.{j}" for i, n in enumerate((3, 4, 6, 3), start=1) for j in range(n))
        >>> register_backbone(
        ...     Backbone(
        ...         name="resnet34",
        ...         build=partial(models.resnet34, weights=None),
        ...         stem=("conv1", "bn1", "relu", "maxpool"),
        ...         blocks=blocks,
        ...         nonnegative=True,
        ...         damped=tuple(f"{block}.bn2" for block in blocks),
        ...     )
        ... ).name
        'resnet34'

    Widths below 1 work where every layer is one that `graftsdk.models.narrow` knows.

    Raises:
        InputError: the name is taken by another definition or no valid name, or there are no blocks or too many.
    """
    if re.fullmatch(NAME, new.name, re.ASCII) is None:
        raise InputError(f"backbone name: expected the form {NAME}, found {new.name!r}")
    if not new.stem or not 1 <= len(new.blocks) <= MAX_BLOCKS:
        raise InputError(f"backbone {new.name!r}: expected a stem and 1 to {MAX_BLOCKS} blocks")
    if len(set(new.stem + new.blocks)) != len(new.stem + new.blocks):
        raise InputError(f"backbone {new.name!r}: expected each module once in stem and blocks")
    if _REGISTRY.setdefault(new.name, new) != new:
        raise InputError(f"backbone {new.name!r} is registered already; choose another name")
    return new


def registered_backbones() -> tuple[str, ...]:
    """The known names, sorted."""
    return tuple(sorted(_REGISTRY))


def backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        InputError: it is not registered; the message names those that are.
    """
    found = _REGISTRY.get(name)
    if found is None:
        raise InputError(
            f"arch: expected one of {', '.join(registered_backbones())}, found {name!r}; "
            f"other torchvision networks can be added with register_backbone"
        )
    return found


def _residual_blocks(counts: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"layer{layer}.{index}" for layer, count in enumerate(counts, start=1) for index in range(count))


def _resnet(
    name: str, build: Callable[..., nn.Module], counts: tuple[int, ...], last_norm: str, gain: float = 1.6
) -> Backbone:
    blocks = _residual_blocks(counts)
    return Backbone(
        name=name,
        build=partial(build, weights=None),
        stem=("conv1", "bn1", "relu", "maxpool"),
        blocks=blocks,
        nonnegative=True,
        gain=gain,
        damped=tuple(f"{block}.{last_norm}" for block in blocks),
    )


# aux_logits off: it fails below 299 in train mode and belongs to no tap. transform_input off: it is in the CropSpec.
register_backbone(
    Backbone(
        name="inception_v3",
        build=partial(models.inception_v3, weights=None, aux_logits=False, transform_input=False, init_weights=False),
        stem=(
            "Conv2d_1a_3x3",
            "Conv2d_2a_3x3",
            "Conv2d_2b_3x3",
            "maxpool1",
            "Conv2d_3b_1x1",
            "Conv2d_4a_3x3",
            "maxpool2",
        ),
        blocks=tuple(f"Mixed_{block}" for block in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")),
        nonnegative=True,
        gain=1.85,  # average pooling in front of one of four paths takes what 1.71 would keep
    )
)
register_backbone(_resnet("resnet18", models.resnet18, (2, 2, 2, 2), "bn2"))
register_backbone(_resnet("resnet50", models.resnet50, (3, 4, 6, 3), "bn3"))
register_backbone(_resnet("resnet101", models.resnet101, (3, 4, 23, 3), "bn3", gain=1.5))  # 23 sums grow at 1.6
register_backbone(
    Backbone(
        name="mobilenet_v3_large",
        build=partial(mobilenet_v3_large, weights=None),
        stem=("features.0",),
        blocks=tuple(f"features.{index}" for index in range(1, 17)),
        gain=1.5,
        nonnegative=False,  # hardswish and linear bottlenecks
        damped=(
            "features.1.block.1.1",
            "features.3.block.2.1",
            *(f"features.{index}.block.3.1" for index in (5, 6)),
            *(f"features.{index}.block.2.1" for index in (8, 9, 10)),
            *(f"features.{index}.block.3.1" for index in (12, 14, 15)),
        ),
    )
)
register_backbone(
    Backbone(
        name="mobilenet_v3_small",
        build=partial(mobilenet_v3_small, weights=None),
        stem=("features.0",),
        blocks=tuple(f"features.{index}" for index in range(1, 13)),
        gain=1.7,  # a squeeze in almost every block halves it; the last tap's deviation: 6 at width 1, 0.3 at 0.5
        nonnegative=False,
        damped=(
            "features.3.block.2.1",
            *(f"features.{index}.block.3.1" for index in (5, 6, 8, 10, 11)),
        ),
    )
)
