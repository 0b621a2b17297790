"""Segmenters: known by their outputs, with licence, author and person class from their metadata or the caller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graftsdk.errors import InputError, ValidationFailed
from graftsdk.export import export_plan
from graftsdk.export.segmenter import check_segmenter, read_segmenter
from graftsdk.plan import Provenance, load_plan

SIDE, CLASSES = 64, 2
ANCHORS = (SIDE // 8) ** 2 + (SIDE // 16) ** 2 + (SIDE // 32) ** 2


def toy(path: Path, metadata: dict[str, str], value: float = 0.0, rows: int = 4 + CLASSES + 32) -> Path:
    """A network with YOLO's outputs that finds nobody: constants over the mean of its input."""
    outputs = {"output0": (1, rows, ANCHORS), "output1": (1, 32, SIDE // 4, SIDE // 4)}
    nodes = [helper.make_node("ReduceMean", ["images"], ["m4"], keepdims=1, name="m4")]
    nodes.append(helper.make_node("Reshape", ["m4", "three"], ["m3"], name="m3"))
    weights = [numpy_helper.from_array(np.array([1, 1, 1], np.int64), "three")]
    for name, shape in outputs.items():
        weights.append(numpy_helper.from_array(np.full(shape, value, np.float32), f"{name}.base"))
        nodes.append(helper.make_node("Div", [f"{name}.base", "m3" if len(shape) == 3 else "m4"], [name], name=name))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "toy", [image], infos, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


METADATA = {"license": "AGPL-3.0", "author": "Some\none", "names": "{0: 'bag', 1: 'person'}"}


def test_what_the_metadata_says(tmp_path: Path) -> None:
    found = read_segmenter(toy(tmp_path / "s.onnx", METADATA))
    check_segmenter(found)
    assert (found.info.family, found.info.input, found.info.input_size) == ("yolo", "images", (SIDE, SIDE))
    assert (found.info.part, found.info.person_class) == (found.part.name, 1)
    assert (found.provenance.licence, found.provenance.author) == ("AGPL-3.0", "Some one")


def test_what_the_caller_says_comes_first(tmp_path: Path) -> None:
    path = toy(tmp_path / "s.onnx", {**METADATA, "names": "{0: 'bag', 1: 'human'}"})
    with pytest.raises(
        InputError, match=r"s\.onnx: expected a class named 'person', found bag, human; .*--person-class"
    ):
        read_segmenter(path)
    found = read_segmenter(path, licence="bought", author="", person_class=1)
    assert (found.info.person_class, found.provenance.licence, found.provenance.author) == (1, "bought", "")


def test_no_metadata_is_no_licence_and_class_0(tmp_path: Path) -> None:
    found = read_segmenter(toy(tmp_path / "s.onnx", {}))
    assert (found.info.person_class, found.provenance.licence) == (0, "")


def test_unknown_outputs_and_broken_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a known family's shapes"):
        read_segmenter(toy(tmp_path / "a.onnx", {}, rows=20))
    with pytest.raises(ValidationFailed, match=r"b\.onnx: expected finite outputs, found NaN or infinity in 'output0'"):
        check_segmenter(read_segmenter(toy(tmp_path / "b.onnx", {}, value=3e38)))


@pytest.mark.parametrize("text", ["x" * 300, "é" * 300, "a\u202eb", "e\u0301", " a\n\tb "])
def test_any_licence_text_fits_a_manifest(tmp_path: Path, text: str) -> None:
    found = read_segmenter(toy(tmp_path / "s.onnx", {**METADATA, "license": text})).provenance
    assert found.licence and Provenance.from_dict(found.to_dict(), "test") == found


def test_a_plan_with_a_segmenter(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    segmenter = toy(tmp_path / "s.onnx", METADATA)
    export_plan(path, files / "trunk.safetensors", [files / "hat.safetensors"], segmenter, segmenter_licence="bought")
    with load_plan(path) as plan:
        info = plan.manifest.segmenter
        assert info is not None and info.person_class == 1 and plan.parts[info.part].role == "segmenter"
        assert plan.manifest.parts[info.part].provenance == Provenance("bought", "Some one")


def test_the_yolo_of_the_data_folder(shared: Path) -> None:
    found = read_segmenter(shared / "models" / "yolov8n-seg-640.onnx")
    check_segmenter(found)
    assert found.info.person_class == 0 and found.info.input_size == (640, 640)
