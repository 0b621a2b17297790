"""Small trunks and branches as ONNX parts, made without torch: real graphs, real weights, milliseconds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

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

SIDE = 32
BLOCKS = 3
WIDTHS = (16, 24, 32, 32)  # channels of tap 0..3
CROP = CropSpec(size=(SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def trunk(seed: int = 0, blocks: int = BLOCKS) -> tuple[Part, TrunkDocument]:
    """A stem and `blocks` convolutions, every one followed by a Relu that is a tap."""
    rng = np.random.default_rng(seed)
    nodes, weights, channels = [], [], 3
    value = "crops"
    for k in range(blocks + 1):
        width = WIDTHS[min(k, 3)]
        weights.append(_normal(rng, f"block{k}.weight", (width, channels, 3, 3)))
        weights.append(_normal(rng, f"block{k}.bias", (width,)))
        stride = 2 if k < 2 else 1
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"block{k}.weight", f"block{k}.bias"],
                [f"conv{k}"],
                name=f"conv{k}",
                pads=[1] * 4,
                strides=[stride] * 2,
            )
        )
        nodes.append(helper.make_node("Relu", [f"conv{k}"], [f"tap_{k}"], name=f"relu{k}"))
        value, channels = f"tap_{k}", width
    outputs = [_info(f"tap_{k}", tap_shape(k)) for k in range(blocks + 1)]
    part = _part("trunk", nodes, [_info("crops", (3, SIDE, SIDE))], outputs, weights)
    fingerprints = []
    state = f"toy{seed}"
    for k in range(blocks + 1):
        state = hashlib.sha256(f"{state}/{k}".encode()).hexdigest()
        fingerprints.append(state)
    costs = tuple(1000 * (k + 1) for k in range(blocks + 1))
    document = TrunkDocument("toy", 1.0, CROP, tuple(fingerprints), exported=ExportedTrunk(costs, costs))
    return part, document


def branch(
    label: str,
    tap: int = 1,
    *,
    classes: Sequence[str] = ("no", "yes"),
    seed: int = 1,
    on: TrunkDocument | None = None,
    thresholds: dict[str, float] | None = None,
) -> tuple[Part, BranchDocument]:
    """One convolution, global average pooling and a classifier on a tap."""
    rng = np.random.default_rng(seed)
    channels = WIDTHS[min(tap, 3)]
    weights = [
        _normal(rng, "own.weight", (32, channels, 3, 3)),
        _normal(rng, "fc.weight", (32, len(classes)), gain=3.0),
        _normal(rng, "fc.bias", (len(classes),)),
    ]
    nodes = [
        helper.make_node("Conv", ["tap", "own.weight"], ["own"], name="own", pads=[1] * 4),
        helper.make_node("Relu", ["own"], ["own.relu"], name="own.relu"),
        helper.make_node("GlobalAveragePool", ["own.relu"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], name="fc"),
        helper.make_node("Softmax", ["logits"], ["scores"], name="softmax", axis=1),
    ]
    part = _part("branch", nodes, [_info("tap", tap_shape(tap))], [_info("scores", (len(classes),))], weights)
    document = on or trunk()[1]
    row = (1.0 / len(classes),) * len(classes)
    return part, BranchDocument(
        label,
        tuple(classes),
        "toy",
        1.0,
        CROP,
        document.fingerprints[tap],
        tap,
        min(tap + 1, document.blocks),
        "gap",
        1.0,
        thresholds=thresholds or {},
        exported=ExportedBranch(500, 400, (row,) * GOLDEN_COUNT, 0.0, 0, 0),
    )


def plan(path: Path, labels: Sequence[str] = ("child", "gender", "backpack"), *, seed: int = 0) -> Plan:
    """A plan of one toy tree at `path`, opened: the i-th label on tap i % 4; "gender" has three classes."""
    write(path, labels, seed=seed)
    return open_plan(path)


def write(path: Path, labels: Sequence[str] = ("child", "gender", "backpack"), *, seed: int = 0) -> None:
    """As `plan`, not opened."""
    stock = trunk(seed)
    branches = []
    for index, label in enumerate(labels):
        gender = label == "gender"
        branches.append(
            branch(
                label,
                index % 4,
                classes=("other", "female", "male") if gender else ("no", "yes"),
                seed=index + 1,
                on=stock[1],
                thresholds={"female": 0.4, "male": 0.5} if gender else {},
            )
        )
    create_plan(path, stock, branches)


def crops(count: int, seed: int = 7) -> np.ndarray:
    """float32[count, 3, SIDE, SIDE]"""
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


def tap_shape(k: int) -> tuple[int, int, int]:
    side = SIDE // (2 if k == 0 else 4)
    return WIDTHS[min(k, 3)], side, side


def _normal(rng: np.random.Generator, name: str, shape: tuple[int, ...], gain: float = 1.0) -> TensorProto:
    fan_in = int(np.prod(shape[1:])) or 1
    scale = gain * np.sqrt(2.0 / (fan_in if len(shape) == 4 else shape[0]))
    return numpy_helper.from_array((rng.normal(size=shape) * scale).astype(np.float32), name)


def _info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])


def _part(role, nodes, inputs, outputs, weights) -> Part:  # type: ignore[no-untyped-def]
    graph = helper.make_graph(nodes, role, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return part_from_model(ir.from_proto(model), role)
