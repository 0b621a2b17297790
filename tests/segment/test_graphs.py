"""Small networks with the outputs of each layout, from an ONNX file to people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graftsdk.export.segmenter import check_segmenter, read_segmenter

HEIGHT, WIDTH = 64, 96
ROWS = 378  # 3 x (8 x 12 + 4 x 6 + 2 x 3)


def write(path: Path, image: list, nodes: list, weights: dict, outputs: dict) -> Path:
    """An ONNX file whose value "mean" is its image's, float32[]."""
    axes = numpy_helper.from_array(np.arange(len(image)), "axes")
    nodes = [helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0), *nodes]
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()]
    stored = [axes, *(numpy_helper.from_array(array, name) for name, array in weights.items())]
    taken = [helper.make_tensor_value_info("images", TensorProto.FLOAT, image)]
    graph = helper.make_graph(nodes, "toy", taken, values, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def yolo(path: Path, predictions: np.ndarray, batch: object = 1) -> Path:
    """Always the same predictions, and a first prototype of ones."""
    prototypes = np.zeros((1, 32, HEIGHT // 4, WIDTH // 4), np.float32)
    prototypes[0, 0] = 1
    weights = {"a": predictions, "b": prototypes, "zero": np.zeros((), np.float32)}
    nodes = [helper.make_node("Mul", ["mean", "zero"], ["none"])]
    nodes += [helper.make_node("Add", [name, "none"], [f"output{at}"]) for at, name in enumerate("ab")]
    shapes = {f"output{at}": (TensorProto.FLOAT, [batch, *weights[name].shape[1:]]) for at, name in enumerate("ab")}
    return write(path, [batch, 3, HEIGHT, WIDTH], nodes, weights, shapes)


V5 = np.zeros((1, ROWS, 5 + 2 + 32), np.float32)
V5[0, :3, :4] = (48, 32, 20, 30)
V5[0, :3, 4:8] = (0.9, 0.8, 0.1, 9), (0.8, 0.8, 0.1, 9), (0.9, 0.1, 0.8, 9)
V8 = np.zeros((1, 4 + 2 + 32, ROWS // 3), np.float32)
V8[0, :4, :3] = V5[0, :3, :4].T
V8[0, 4:7, :3] = np.float32([(0.72, 0.1, 9), (0.64, 0.1, 9), (0.1, 0.8, 9)]).T
DONE = np.zeros((1, 300, 38), np.float32)
DONE[0, :2, :7] = (38, 17, 58, 47, 0.72, 0, 9), (38, 17, 58, 47, 0.8, 1, 9)


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize(("predictions", "iou"), [(V5, 0.45), (V8, 0.7), (DONE, 0.7)])
def test_each_layout_of_yolo(tmp_path: Path, predictions: np.ndarray, iou: float, batch: object) -> None:
    source = read_segmenter(yolo(tmp_path / "s.onnx", predictions, batch))
    check_segmenter(source)
    assert (source.info.family, source.info.person_class, source.info.iou_threshold) == ("yolo", 0, iou)
    with source.open(device="cpu", cache=False) as segmenter:
        found = segmenter.find(np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8))
    assert found.boxes.tolist() == [[76, 34, 116, 94]]
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-6)
    assert found.masks.mask_at(0, 2 * HEIGHT, 2 * WIDTH).sum() == 40 * 60
