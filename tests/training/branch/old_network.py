"""A network of one label as people have it: an ONNX file that tells bright crops from dark ones."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

STEEP, MIDDLE = 60.0, 0.25  # of the mean of a crop: with a disc 0.28 and more, without 0.22


def write_old(path, *, axes=(1, 2, 3), shape=("n", 3, 48, 24), last="Sigmoid", dtype=TensorProto.FLOAT):
    """A classifier by mean brightness: 1 / (1 + exp(-STEEP (mean - MIDDLE)))."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["far"]),
        helper.make_node("Mul", ["far", "steep"], ["logit"]),
        helper.make_node(last, ["logit"], ["score"]),
    ]
    weights = [
        helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes),
        helper.make_tensor("middle", TensorProto.FLOAT, [], [MIDDLE]),
        helper.make_tensor("steep", TensorProto.FLOAT, [], [STEEP]),
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
