"""What a trunk or a branch is made of, without weights: built on the meta device from its description alone.

So a checkpoint's tensors are compared with what they should be before anything is allocated for them, and shapes,
costs and least input sizes need no weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import torch
from torch import nn

from graftsdk.errors import ImageTooSmall, InputError
from graftsdk.models.backbones import Backbone
from graftsdk.models.narrow import Channels, narrow_block
from graftsdk.plan.cropspec import MAX_SIDE, MIN_SIDE

__all__ = ["cells_at", "least_size", "least_square", "narrow_blocks", "place", "tap_shapes", "trunk_modules"]


@lru_cache(maxsize=32)
def _trunk_structure(backbone: Backbone, width: float) -> tuple[tuple[str, nn.Module], ...]:
    with torch.device("meta"):
        network = backbone.build().eval()
    try:
        modules = [(name, network.get_submodule(name)) for name in backbone.stem + backbone.blocks]
    except AttributeError as error:
        raise InputError(
            f"backbone {backbone.name!r}: expected the names of its modules, found that {error}"
        ) from error
    if width == 1.0:
        return tuple(modules)
    channels, narrow = Channels.all(3), []
    for name, module in modules:
        module, channels = narrow_block(module, channels, width)
        narrow.append((name, module))
    return tuple(narrow)


def trunk_modules(backbone: Backbone, width: float) -> dict[str, nn.Module]:
    """Stem and blocks by torchvision name, in order, on the meta device; the caller's own copies.

    Raises:
        UnsupportedOp: width < 1 and a layer cannot be narrowed.
    """
    return {name: copy.deepcopy(module) for name, module in _trunk_structure(backbone, width)}


def narrow_blocks(
    blocks: Mapping[str, nn.Module], taps: tuple[int, int], width: float
) -> tuple[dict[str, nn.Module], int]:
    """Copies of a trunk's blocks for a branch, and the channels that leave the last one.

    As they are at width 1, else narrower; the first one reads the full tap.

    Args:
        blocks: by torchvision name, in order.
        taps: the trunk's channels before the first and after the last of them.
        width: share of the trunk's channels.

    Raises:
        UnsupportedOp: width < 1 and a layer cannot be narrowed.
    """
    if width == 1.0:
        return {name: copy.deepcopy(block) for name, block in blocks.items()}, taps[1]
    flow, narrow = Channels.all(taps[0]), {}
    for name, block in blocks.items():
        narrow[name], flow = narrow_block(block, flow, width)
    return narrow, len(flow.kept)


def place(root: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Hang `modules` into `root` under their dotted names, so that state-dict keys are torchvision's."""
    for name, module in modules.items():
        parent = root
        *path, last = name.split(".")
        for step in path:
            if step not in dict(parent.named_children()):
                parent.add_module(step, nn.Module())
            parent = parent.get_submodule(step)
        parent.add_module(last, module)


def _shapes(modules: Iterable[tuple[str, nn.Module]], stem: int, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    x, shapes = torch.empty(1, 3, *size, device="meta"), []
    with torch.no_grad():
        for index, (_, module) in enumerate(modules):
            x = module(x)
            if 0 in x.shape:
                raise RuntimeError(f"output of shape {tuple(x.shape)}")
            if index >= stem - 1:
                shapes.append((int(x.shape[1]), int(x.shape[2]), int(x.shape[3])))
    return shapes


@lru_cache(maxsize=256)
def tap_shapes(backbone: Backbone, width: float, size: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of taps 0..B for an input of `size` (H, W).

    Raises:
        ImageTooSmall: the input is too small for the backbone; names the least (H, W) that works.
    """
    modules = _trunk_structure(backbone, width)
    try:
        return tuple(_shapes(modules, len(backbone.stem), size))
    except RuntimeError as error:  # torch: "Calculated padded input size per channel ... smaller than kernel"
        least = least_size(backbone)
        if size[0] >= least[0] and size[1] >= least[1]:
            raise
        raise ImageTooSmall(
            f"{backbone.name}: expected an input of at least {least[0]}x{least[1]} (HxW), found {size[0]}x{size[1]}; "
            f"choose a larger input_size"
        ) from error


@lru_cache(maxsize=32)
def least_size(backbone: Backbone) -> tuple[int, int]:
    """The least (H, W) that passes all blocks, each axis searched with the other one large. Width does not matter."""
    return _least_side(backbone, axis=0), _least_side(backbone, axis=1)


def _least_side(backbone: Backbone, axis: int) -> int:
    modules, stem = _trunk_structure(backbone, 1.0), len(backbone.stem)
    return _least(lambda side: bool(_shapes(modules, stem, (side, MAX_SIDE) if axis == 0 else (MAX_SIDE, side))))


def cells_at(backbone: Backbone, size: tuple[int, int], until: int) -> int:
    """P = H * W of tap `until` for an input of `size`. Raises ImageTooSmall."""
    _, height, width = tap_shapes(backbone, 1.0, size)[until]
    return height * width


@lru_cache(maxsize=256)
def least_square(backbone: Backbone, until: int, cells: int) -> int:
    """The least side of a square input whose tap `until` has at least `cells` cells; blocks behind it do not count."""
    modules, stem = _trunk_structure(backbone, 1.0)[: len(backbone.stem) + until], len(backbone.stem)

    def works(side: int) -> bool:
        _, height, width = _shapes(modules, stem, (side, side))[-1]
        return height * width >= cells

    return _least(works)


def _least(works: Callable[[int], bool]) -> int:
    """The least side that works, by doubling and halving: a larger one always does. Torch's RuntimeError is a no."""

    def passes(side: int) -> bool:
        try:
            return works(side)
        except RuntimeError:
            return False

    high = MIN_SIDE
    while not passes(high) and high < MAX_SIDE:  # doubled first: what fails, fails early and costs little
        high = min(2 * high, MAX_SIDE)
    low = max(high // 2, MIN_SIDE)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle + 1, high)
    return high
