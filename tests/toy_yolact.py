"""A small YOLACT-like network: finds the same people in every image, their scores moved a little by its mean grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, GRID, KINDS, PRIORS = 64, 16, 8, 300
# cx, cy, w, h as fractions of the input, score. The last overlaps the first and is suppressed.
PEOPLE = (
    (0.3, 0.5, 0.3, 0.6, 0.9),
    (0.7, 0.5, 0.25, 0.7, 0.6),
    (0.95, 0.2, 0.3, 0.3, 0.5),
    (0.31, 0.5, 0.3, 0.6, 0.4),
)


def write(path: Path) -> Path:
    """The network in a file; class 0 after the background is the person."""
    rng = np.random.default_rng(5)
    loc, priors = rng.normal(size=(1, PRIORS, 4)) * 0.1, rng.random((PRIORS, 4))
    conf = np.full((1, PRIORS, 3), 0.01)
    for place, (*box, score) in enumerate(PEOPLE):
        at = 7 + 40 * place
        priors[at], loc[0, at], conf[0, at, 1:] = box, 0, (score, 0.02)
    arrays = {
        "loc_values": loc.astype(np.float32),
        "conf_values": conf.astype(np.float32),
        "mask_values": np.tanh(rng.normal(size=(1, PRIORS, KINDS))).astype(np.float32),
        "priors_values": priors.astype(np.float32),
        "proto_values": np.maximum(rng.normal(size=(1, GRID, GRID, KINDS)) + 0.3, 0).astype(np.float32),
        "zero": np.array(0, np.float32),
        "little": np.array(0.01, np.float32),
        "flat": np.array([1, 1, 1], np.int64),
        "flatter": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["images"], ["grey"], keepdims=1),
        node("Reshape", ["grey", "flat"], ["line"]),
        node("Reshape", ["grey", "flatter"], ["dot"]),
        node("Mul", ["line", "little"], ["moved"]),
        node("Mul", ["line", "zero"], ["nothing"]),
        node("Mul", ["grey", "zero"], ["nowhere"]),
        node("Mul", ["dot", "zero"], ["none"]),
        node("Add", ["loc_values", "nothing"], ["loc"]),
        node("Add", ["conf_values", "moved"], ["conf"]),
        node("Add", ["mask_values", "nothing"], ["mask"]),
        node("Add", ["priors_values", "none"], ["priors"]),
        node("Add", ["proto_values", "nowhere"], ["proto"]),
    ]
    shapes = {name: arrays[f"{name}_values"].shape for name in ("loc", "conf", "mask", "priors", "proto")}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "toy", [image], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path
