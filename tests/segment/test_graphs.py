"""Small networks with the outputs of each layout, from an ONNX file to people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graftsdk.errors import InputError
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


def mask_rcnn(path: Path, image: list) -> Path:
    """The brighter the image, the more it finds: as many detections as sixths of white, three of them persons."""
    boxes = np.float32([(8, 8, 20, 40), (30, 8, 50, 40), (60, 8, 80, 40), (0, 0, 96, 64), (0, 0, 9, 9), (0, 0, 9, 9)])
    masks = np.zeros((6, 1, HEIGHT, WIDTH), np.float32)
    masks[:5, :, :32] = 0.875  # the upper half; the last one's is empty
    weights = {
        "all_boxes": boxes,
        "all_labels": np.int64([1, 1, 1, 2, 3, 1]),
        "all_scores": np.float32([0.99, 0.9, 0.8, 0.7, 0.6, 0.55]),
        "all_masks": masks,
        "limits": np.arange(1, 7, dtype=np.float32) / 6 - 0.01,
    }
    names = ("boxes", "labels", "scores", "masks")
    nodes = [helper.make_node("Greater", ["mean", "limits"], ["there"])]
    nodes += [helper.make_node("Compress", [f"all_{name}", "there"], [name], axis=0) for name in names]
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT)
    shapes = (["k", 4], ["l"], ["l"], ["m", "c", "h", "w"])  # as torch's exporter leaves them
    return write(path, image, nodes, weights, dict(zip(names, zip(kinds, shapes, strict=True), strict=True)))


@pytest.mark.parametrize("image", [[3, HEIGHT, WIDTH], [1, 3, HEIGHT, WIDTH], [3, "h", "w"]])
def test_mask_rcnn(tmp_path: Path, image: list) -> None:
    size = (HEIGHT, WIDTH) if "h" in image else None
    source = read_segmenter(mask_rcnn(tmp_path / "s.onnx", image), input_size=size)
    check_segmenter(source)
    assert (source.info.family, source.info.person_class, source.info.batched) == ("maskrcnn", 1, len(image) == 4)
    with source.open(device="cpu", cache=False) as segmenter:
        for level, persons in ((0, 0), (50, 1), (100, 2), (150, 3), (255, 3)):
            found = segmenter.find(np.full((2 * HEIGHT, 2 * WIDTH, 3), level, np.uint8))
            assert found.boxes.tolist() == [[16, 16, 40, 80], [60, 16, 100, 80], [120, 16, 160, 80]][:persons]
            areas = [int(found.masks.mask_at(index, 128, 192).sum()) for index in range(persons)]
            assert areas == [24 * 48, 40 * 48, 40 * 48][:persons]


def test_another_class_of_mask_rcnn(tmp_path: Path) -> None:
    path = mask_rcnn(tmp_path / "s.onnx", [3, HEIGHT, WIDTH])
    with read_segmenter(path, person_class=2).open(device="cpu", cache=False) as segmenter:
        found = segmenter.find(np.full((HEIGHT, WIDTH, 3), 255, np.uint8))
    assert found.boxes.tolist() == [[0, 0, 96, 64]]


def test_a_size_that_is_not_the_traced_one(tmp_path: Path) -> None:
    """Nothing in the file contradicts it: a run does."""
    source = read_segmenter(mask_rcnn(tmp_path / "s.onnx", [3, "h", "w"]), input_size=(96, 96))
    with pytest.raises(InputError, match=r"as family 'maskrcnn' .*\[n, 1, 96, 96\], found .*segmenter_size"):
        check_segmenter(source)
