"""A small YOLO-seg network as an ONNX file: finds the same people in every image that is not black."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
ANCHORS = (SIDE // 8) ** 2 + (SIDE // 16) ** 2 + (SIDE // 32) ** 2
# cx, cy, w, h in pixels of the input, score. The last is too small to be an image of its own in the tests' images.
PEOPLE = (
    (32.3, 30.1, 30.7, 40.2, 0.9),
    (14.2, 37.9, 20.3, 35.1, 0.8),
    (46.0, 29.7, 16.9, 22.2, 0.4),
    (50, 50, 5, 6, 0.6),
)


def write(path: Path) -> Path:
    """The network in a file, whose metadata says that class 0 is the person. Masks are blobs with holes."""
    rng = np.random.default_rng(3)
    people = np.zeros((1, 4 + 1 + 32, ANCHORS), np.float32)
    scores = np.zeros_like(people)
    for place, (*box, score) in enumerate(PEOPLE):
        people[0, :4, place], scores[0, 4, place] = box, score
        people[0, 5:, place] = rng.normal(size=32)
    blobs = rng.normal(size=(1, 32, SIDE // 4, SIDE // 4)).astype(np.float32) + 0.2
    arrays = {
        "people": people,
        "scores": scores,
        "blobs": blobs,
        "zero": np.array(0, np.float32),
        "dark": np.array(0.45, np.float32),
        "flat": np.array([1, 1, 1], np.int64),
    }
    node = helper.make_node
    nodes = [
        # Its brightest pixel, against the grey of the letterbox, which is in every image.
        node("ReduceMax", ["images"], ["bright"], keepdims=1),
        node("Sub", ["bright", "dark"], ["lit"]),
        node("Reshape", ["lit", "flat"], ["line"]),
        node("Ceil", ["line"], ["one"]),
        node("Clip", ["one", "zero"], ["found"]),
        node("Mul", ["scores", "found"], ["sure"]),
        node("Add", ["people", "sure"], ["output0"]),
        node("Mul", ["bright", "zero"], ["nothing"]),
        node("Add", ["blobs", "nothing"], ["output1"]),
    ]
    shapes = {"output0": people.shape, "output1": blobs.shape}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "toy", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": "{0: 'person'}"})
    onnx.save(model, path)
    return path
