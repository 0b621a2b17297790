"""A small tree with the operators of a real one, made without torch: what `doctor` runs to see whether bits are kept.

Blocks as InceptionV3's (1x1, 3x3, 1x7 and 7x1 convolutions, a pooled arm, concatenated), branches with own blocks,
without any, and with bilinear pooling; random weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.plan import (
    BranchDocument,
    CropSpec,
    ExportedBranch,
    ExportedTrunk,
    Part,
    Plan,
    TrunkDocument,
    open_plan,
)
from graftsdk.plan.documents import GOLDEN_COUNT
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import IR_VERSION, OPSET, part_from_model

if TYPE_CHECKING:
    import onnx

__all__ = ["LABELS", "small_plan"]

SIDE = 75
BLOCKS = 3
WIDTH = 64  # channels of every tap: a multiple of 16, so that ONNX Runtime uses its blocked layout
CELLS = 19  # side of every tap
LABELS: dict[str, tuple[int, str]] = {  # label -> its tap and pooling
    "a": (1, "gap"),
    "b": (2, "bilinear"),
    "c": (3, "gap"),
    "d": (2, "gap"),
    "e": (0, "gap"),
}


def small_plan(path: Path) -> Plan:
    """The plan of that tree, written to `path` and opened: input 75x75, three blocks, five labels of two classes."""
    crop = CropSpec((SIDE, SIDE))
    fingerprints = tuple(hashlib.sha256(f"small tree {k}".encode()).hexdigest() for k in range(BLOCKS + 1))
    none = (0,) * (BLOCKS + 1)
    trunk = TrunkDocument("small", 1.0, crop, fingerprints, exported=ExportedTrunk(none, none))
    branches = []
    for seed, (label, (tap, pooling)) in enumerate(LABELS.items(), start=1):
        document = BranchDocument(
            label, ("no", "yes"), "small", 1.0, crop, fingerprints[tap], tap, min(tap + 1, BLOCKS), pooling, 1.0,
            exported=ExportedBranch(0, 0, ((0.5, 0.5),) * GOLDEN_COUNT, 0.0, 0, 0),
        )  # fmt: skip
        branches.append((_branch(seed, own=tap < BLOCKS, bilinear=pooling == "bilinear"), document))
    create_plan(path, (_trunk(), trunk), branches)
    return open_plan(path)


def _trunk() -> Part:
    net = _Net(seed=0)
    value = net.conv("crops", 3, 32, (3, 3), stride=2, pad=False)
    value = net.conv(value, 32, WIDTH, (3, 3))
    value = net.node("MaxPool", [value], "tap_0", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for k in range(BLOCKS):
        value = net.inception(value, f"tap_{k + 1}")
    return net.part("trunk", ("crops", (3, SIDE, SIDE)), [(f"tap_{k}", _TAP) for k in range(BLOCKS + 1)])


def _branch(seed: int, *, own: bool, bilinear: bool) -> Part:
    net = _Net(seed)
    value = net.inception("tap", "own") if own else "tap"
    if bilinear:
        rows = net.node("Reshape", [value, net.constant(np.array([0, WIDTH, -1], np.int64))])
        rows = net.node("Mul", [rows, net.constant(np.float32(1 / CELLS))])
        square = net.node("MatMul", [rows, net.node("Transpose", [rows], perm=[0, 2, 1])])
        root = net.node("Sqrt", [net.node("Add", [square, net.constant(np.float32(1e-5))])])
        features, count = net.node("Flatten", [root]), WIDTH * WIDTH
    else:
        features, count = net.node("Flatten", [net.node("GlobalAveragePool", [value])]), WIDTH
    logits = net.node("Gemm", [features, net.weight((count, 2), 3 * count**-0.5), net.weight((2,), 0.1)])
    net.node("Softmax", [logits], "scores", axis=1)
    return net.part("branch", ("tap", _TAP), [("scores", (2,))])


_TAP = (WIDTH, CELLS, CELLS)


class _Net:
    """An ONNX graph that grows node by node; each method gives the name of what it computes."""

    def __init__(self, seed: int) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._from_array = helper, numpy_helper.from_array
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or f"value_{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, array: Any) -> str:
        name = f"weight_{len(self._weights)}"
        self._weights.append(self._from_array(np.asarray(array), name))
        return name

    def weight(self, shape: tuple[int, ...], scale: float) -> str:
        return self.constant((self._random.normal(size=shape) * scale).astype(np.float32))

    def conv(
        self, value: str, channels: int, width: int, kernel: tuple[int, int], stride: int = 1, *, pad: bool = True
    ) -> str:
        scale = (2 / (channels * kernel[0] * kernel[1])) ** 0.5
        weights = [self.weight((width, channels, *kernel), scale), self.weight((width,), 0.1)]
        sides = [kernel[0] // 2, kernel[1] // 2] * 2 if pad else [0] * 4
        return self.node("Relu", [self.node("Conv", [value, *weights], pads=sides, strides=[stride] * 2)])

    def inception(self, value: str, output: str) -> str:
        quarter = WIDTH // 4
        pooled = self.node("AveragePool", [value], kernel_shape=[3, 3], pads=[1] * 4)
        arms = [
            self.conv(value, WIDTH, quarter, (1, 1)),
            self.conv(self.conv(value, WIDTH, 32, (1, 1)), 32, quarter, (3, 3)),
            self.conv(self.conv(self.conv(value, WIDTH, 32, (1, 1)), 32, 32, (1, 7)), 32, quarter, (7, 1)),
            self.conv(pooled, WIDTH, quarter, (1, 1)),
        ]
        return self.node("Concat", arms, output, axis=1)

    def part(self, role: str, given: tuple[str, tuple[int, ...]], made: Sequence[tuple[str, tuple[int, ...]]]) -> Part:
        import onnx_ir as ir
        from onnx import TensorProto

        def info(name: str, shape: tuple[int, ...]) -> Any:
            return self._helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])

        outputs = [info(*each) for each in made]
        graph = self._helper.make_graph(self._nodes, role, [info(*given)], outputs, self._weights)
        opset = self._helper.make_opsetid("", OPSET)
        model = self._helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        return part_from_model(ir.from_proto(model), role)
