"""The tiny plan whose bytes FORMAT.md and golden.plan fix: literal graphs, exact floats, no library's own order."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from graftsdk.plan import BranchDocument, CropSpec, ExportedBranch, ExportedTrunk, Part, TrunkDocument
from graftsdk.plan.edit import create_plan

EPOCH = "1795600000"  # 2026-11-25T09:46:40Z
FILE = Path(__file__).with_name("golden.plan")


def write(path: Path) -> None:
    """The golden plan; SOURCE_DATE_EPOCH has to be EPOCH."""
    crop = CropSpec(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    weight = ((np.arange(400) % 7 - 3) / 8).astype(np.float32).reshape(4, 4, 5, 5)  # 1600 bytes: beside the graph
    stem = ((np.arange(12) % 5 - 2) / 4).astype(np.float32).reshape(4, 3, 1, 1)  # 48 bytes: inside it
    trunk = Part(
        "trunk",
        graph(
            [
                helper.make_node("Conv", ["crops", "stem"], ["tap_0"]),
                helper.make_node("Conv", ["tap_0", "weight"], ["tap_1"], pads=[2, 2, 2, 2]),
            ],
            {"crops": (3, 8, 8)},
            {"tap_0": (4, 8, 8), "tap_1": (4, 8, 8)},
            {"stem": stem},
        ),
        {"weight": weight},
    )
    branch = Part(
        "branch",
        graph(
            [
                helper.make_node("GlobalAveragePool", ["tap"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["flat"]),
                helper.make_node("MatMul", ["flat", "classifier"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
            ],
            {"tap": (4, 8, 8)},
            {"scores": (2,)},
            {"classifier": (np.arange(8, dtype=np.float32) / 8).reshape(4, 2)},
        ),
        {},
    )
    prints = tuple(hashlib.sha256(f"golden {k}".encode()).hexdigest() for k in range(2))
    trunk_document = TrunkDocument("golden", 1.0, crop, prints, exported=ExportedTrunk((768, 26368), (12, 412)))
    branch_document = BranchDocument(
        label="enfant à vélo",
        classes=("no", "yes"),
        arch="golden",
        trunk_width=1.0,
        crop=crop,
        trunk_fingerprint=prints[1],
        tap=1,
        until=1,
        pooling="gap",
        width=1.0,
        thresholds={"yes": 0.25},
        exported=ExportedBranch(8, 8, ((0.5, 0.5),) * 4, 0.0, 0, 0),
    )
    create_plan(path, (trunk, trunk_document), [(branch, branch_document)])


def graph(nodes, inputs, outputs, weights) -> bytes:  # type: ignore[no-untyped-def]
    made = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString(deterministic=True)


if __name__ == "__main__":  # writes golden.plan anew, after a change of the format that was meant
    write(FILE)
