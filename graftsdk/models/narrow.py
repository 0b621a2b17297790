"""Width: a block of torchvision with fewer channels, its weights cut out of the full block's.

Every value in a block carries which of the full block's channels are left. A convolution keeps the first channels of
its output, a depthwise convolution and everything without weights keep those of their input, a concatenation keeps
the first channels of each of its pieces. The block's graph comes from symbolic tracing, which patches the calls of all
modules while it runs: narrowing is serialised by a lock, and no other thread may run torch modules meanwhile.
"""

from __future__ import annotations

import copy
import math
import operator
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth
from torchvision.ops.misc import SqueezeExcitation

from graftsdk.errors import InputError, UnsupportedOp

__all__ = ["Channels", "check_width", "narrow_block", "narrow_channels"]

MIN_WIDTH = 1e-3  # below it every layer has its least channels anyway
_LOCK = threading.Lock()

_SAME_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.SiLU,
    nn.GELU,
    nn.Sigmoid,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    StochasticDepth,
)
_SAME_FUNCTIONS: frozenset[Any] = frozenset(
    {
        functional.relu,
        functional.relu6,
        functional.hardswish,
        functional.silu,
        functional.avg_pool2d,
        functional.max_pool2d,
        torch.relu,
        torch.max_pool2d,
    }
)
_SUMS: frozenset[Any] = frozenset({operator.add, operator.iadd, torch.add})
_CONCATENATIONS: frozenset[Any] = frozenset({torch.cat, torch.concat})


@dataclass(frozen=True)
class Channels:
    """Which channels of a full value a narrow one holds: `kept`, ascending, of 0..`total`-1."""

    total: int
    kept: tuple[int, ...]

    @classmethod
    def all(cls, total: int) -> Channels:
        return cls(total, tuple(range(total)))

    @classmethod
    def first(cls, count: int, total: int) -> Channels:
        return cls(total, tuple(range(count)))


def check_width(width: float) -> float:
    """`width` as a float, if 0.001 <= width <= 1. Raises InputError."""
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not MIN_WIDTH <= width <= 1.0:
        raise InputError(f"width: expected a number from {MIN_WIDTH} to 1, found {width!r}")
    return float(width)


def narrow_channels(channels: int, width: float) -> int:
    """How many of `channels` are left: all at width 1, else the nearest multiple of 16, at least 16.

    Never more than there are: a layer of fewer than 16 channels keeps them all (MobileNetV3's first squeeze has 8).
    """
    if width == 1.0:
        return channels
    return min(channels, max(16, 16 * math.floor(channels * width / 16 + 0.5)))


def narrow_block(block: nn.Module, inputs: Channels, width: float) -> tuple[nn.Module, Channels]:
    """A narrower copy of `block` and the channels of its output; `block` stays as it is.

    The copy has the block's parameter names. Where a sum's two widths differ (a shortcut from a full tap), the
    shortcut gets a 1x1 convolution `projection` that selects the other side's channels.

    Args:
        block: a stem module or a block, on any device, meta too.
        inputs: the channels that the narrow block is fed with.
        width: of the block's own layers.

    Raises:
        UnsupportedOp: a layer whose channels cannot be followed.
    """
    block = copy.deepcopy(block)
    if _is_leaf(block):
        return _narrow_leaf(block, inputs, width, type(block).__name__)
    with _LOCK:
        graph = _Tracer().trace(block)
    return _Narrowing(block, graph, width).run(inputs)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m)


def _is_leaf(module: nn.Module) -> bool:
    builtin = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
    return builtin or isinstance(module, (SqueezeExcitation, StochasticDepth))


class _Narrowing:
    """One walk over a block's graph, in order; replaces its layers by narrow ones."""

    def __init__(self, block: nn.Module, graph: fx.Graph, width: float) -> None:
        self.block, self.graph, self.width = block, graph, width
        self.channels: dict[fx.Node, Channels] = {}
        self.cut: dict[str, tuple[Channels, Channels]] = {}  # a layer with weights -> its input and output channels
        self.projections = 0

    def run(self, inputs: Channels) -> tuple[nn.Module, Channels]:
        for node in list(self.graph.nodes):
            if node.op == "output":
                result = self.of(node.args[0], node)
                continue
            self.channels[node] = inputs if node.op == "placeholder" else self.follow(node)
        if not self.projections:
            return self.block, result
        self.graph.lint()
        return fx.GraphModule(self.block, self.graph, type(self.block).__name__), result

    def of(self, value: Any, node: fx.Node) -> Channels:
        if not isinstance(value, fx.Node) or value not in self.channels:
            raise self.unsupported(node)
        return self.channels[value]

    def follow(self, node: fx.Node) -> Channels:
        if node.op == "call_module":
            return self.layer(node)
        if node.op == "call_function" and node.target in _SAME_FUNCTIONS:
            return self.of(node.args[0], node)
        if node.op == "call_function" and node.target in _CONCATENATIONS:
            return self.concatenation(node)
        if node.op == "call_function" and node.target in _SUMS:
            return self.sum(node)
        raise self.unsupported(node)

    def layer(self, node: fx.Node) -> Channels:
        name = str(node.target)
        if len(node.args) != 1 or node.kwargs:
            raise self.unsupported(node)
        inputs = self.of(node.args[0], node)
        if name in self.cut:  # one set of weights, called twice
            if self.cut[name][0] != inputs:
                raise self.unsupported(node)
            return self.cut[name][1]
        layer = self.block.get_submodule(name)
        narrow, outputs = _narrow_leaf(layer, inputs, self.width, name)
        if narrow.state_dict():
            self.cut[name] = (inputs, outputs)
            self.block.set_submodule(name, narrow)
        return outputs

    def concatenation(self, node: fx.Node) -> Channels:
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        pieces = node.args[0]
        if axis != 1 or not isinstance(pieces, (list, tuple)):
            raise self.unsupported(node)
        total, kept = 0, list[int]()
        for piece in pieces:
            channels = self.of(piece, node)
            kept.extend(total + index for index in channels.kept)
            total += channels.total
        return Channels(total, tuple(kept))

    def sum(self, node: fx.Node) -> Channels:
        first, second = node.args[0], node.args[1]
        one, two = self.of(first, node), self.of(second, node)
        assert isinstance(first, fx.Node) and isinstance(second, fx.Node)  # `of` refuses others
        if one.total != two.total:
            raise self.unsupported(node)
        if one == two:
            return one
        order = list(self.channels)
        shortcut, other = sorted((first, second), key=order.index)  # the shortcut is what was there first
        self.project(node, shortcut, self.channels[shortcut], self.channels[other])
        return self.channels[other]

    def project(self, node: fx.Node, shortcut: Any, source: Channels, target: Channels) -> None:
        self.projections += 1
        name = "projection" if self.projections == 1 else f"projection_{self.projections}"
        like = next(self.block.parameters())
        layer = nn.Conv2d(len(source.kept), len(target.kept), 1, bias=False, device=like.device, dtype=like.dtype)
        column = {channel: index for index, channel in enumerate(source.kept)}
        with torch.no_grad():
            layer.weight.zero_()
            for row, channel in enumerate(target.kept):
                if channel in column:
                    layer.weight[row, column[channel]] = 1.0
        self.block.add_module(name, layer)
        with self.graph.inserting_before(node):
            projected = self.graph.call_module(name, (shortcut,))
        node.replace_input_with(shortcut, projected)

    def unsupported(self, node: fx.Node) -> UnsupportedOp:
        return UnsupportedOp(
            f"{type(self.block).__name__}: expected layers whose channels can be followed, found "
            f"{node.op} {node.target!s:.80} ({node.name}); use width=1 for this backbone"
        )


def _narrow_leaf(module: nn.Module, inputs: Channels, width: float, name: str) -> tuple[nn.Module, Channels]:
    if isinstance(module, nn.Conv2d):
        return _narrow_convolution(module, inputs, width, name)
    if isinstance(module, nn.BatchNorm2d) and module.num_features == inputs.total:
        return _narrow_norm(module, inputs), inputs
    if isinstance(module, SqueezeExcitation):
        squeeze = Channels.first(narrow_channels(module.fc1.out_channels, width), module.fc1.out_channels)
        module.fc1 = _cut(module.fc1, squeeze, inputs)
        module.fc2 = _cut(module.fc2, inputs, squeeze)
        return module, inputs
    if isinstance(module, _SAME_MODULES):
        return module, inputs
    raise UnsupportedOp(
        f"{name}: expected a layer whose channels can be followed, found {type(module).__name__}; "
        f"use width=1 for this backbone"
    )


def _narrow_convolution(module: nn.Conv2d, inputs: Channels, width: float, name: str) -> tuple[nn.Module, Channels]:
    if module.groups == 1:
        outputs = Channels.first(narrow_channels(module.out_channels, width), module.out_channels)
        return _cut(module, outputs, inputs), outputs
    if module.groups == module.in_channels == module.out_channels:  # depthwise: one filter a channel
        return _cut(module, inputs, Channels.all(1)), inputs
    raise UnsupportedOp(
        f"{name}: expected a dense or depthwise convolution, found {module.groups} groups of "
        f"{module.in_channels} -> {module.out_channels} channels; use width=1 for this backbone"
    )


def _cut(module: nn.Conv2d, outputs: Channels, inputs: Channels) -> nn.Conv2d:
    depthwise = module.groups > 1
    narrow = nn.Conv2d(
        len(outputs.kept) if depthwise else len(inputs.kept),
        len(outputs.kept),
        module.kernel_size,  # type: ignore[arg-type]
        module.stride,  # type: ignore[arg-type]
        module.padding,  # type: ignore[arg-type]
        module.dilation,  # type: ignore[arg-type]
        len(outputs.kept) if depthwise else 1,
        module.bias is not None,
        module.padding_mode,
        device="meta",
    )
    rows, columns = list(outputs.kept), list(inputs.kept)
    narrow.weight = nn.Parameter(module.weight.detach()[rows][:, columns].clone())
    if module.bias is not None:
        narrow.bias = nn.Parameter(module.bias.detach()[rows].clone())
    narrow.train(module.training)
    return narrow


def _narrow_norm(module: nn.BatchNorm2d, inputs: Channels) -> nn.BatchNorm2d:
    rows = list(inputs.kept)
    narrow = copy.deepcopy(module)
    narrow.num_features = len(rows)
    with torch.no_grad():
        for name, parameter in list(narrow.named_parameters(recurse=False)):
            setattr(narrow, name, nn.Parameter(parameter.detach()[rows].clone()))
        for name, buffer in list(narrow.named_buffers(recurse=False)):
            if buffer.ndim == 1:
                setattr(narrow, name, buffer[rows].clone())
    return narrow
