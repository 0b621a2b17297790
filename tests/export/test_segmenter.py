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


def toy(
    path: Path, metadata: dict[str, str], value: float = 0.0, rows: int = 4 + CLASSES + 32, told: bool = True
) -> Path:
    """A network with YOLO's outputs that finds nobody: constants over the mean of its input.

    `told=False` leaves every shape in the file open.
    """
    outputs = {"output0": (1, rows, ANCHORS), "output1": (1, 32, SIDE // 4, SIDE // 4)}
    nodes = [helper.make_node("ReduceMean", ["images"], ["m4"], keepdims=1, name="m4")]
    nodes.append(helper.make_node("Reshape", ["m4", "three"], ["m3"], name="m3"))
    weights = [numpy_helper.from_array(np.array([1, 1, 1], np.int64), "three")]
    for name, shape in outputs.items():
        weights.append(numpy_helper.from_array(np.full(shape, value, np.float32), f"{name}.base"))
        nodes.append(helper.make_node("Div", [f"{name}.base", "m3" if len(shape) == 3 else "m4"], [name], name=name))
    infos = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, shape if told else [f"{name}_{k}" for k in range(len(shape))]
        )
        for name, shape in outputs.items()
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *([SIDE, SIDE] if told else ["h", "w"])])
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


OPTIONS = {
    "person_class": 1,
    "score_threshold": 0.5,
    "iou_threshold": np.float32(0.5),
    "max_persons": 20,
}


def test_how_it_is_decoded_is_said_by_the_caller(tmp_path: Path) -> None:
    path = toy(tmp_path / "s.onnx", {})
    info = read_segmenter(path).info
    assert (info.person_class, info.score_threshold, info.iou_threshold, info.max_persons) == (0, 0.25, 0.7, 300)
    info = read_segmenter(path, **OPTIONS).info
    assert (info.person_class, info.score_threshold, info.iou_threshold, info.max_persons) == (1, 0.5, 0.5, 20)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("person_class", -1, "expected an integer from 0 to 65535, found -1"),
        ("person_class", True, "expected an integer from 0 to 65535, found True"),
        ("score_threshold", 1.5, "expected a number from 0 to 1, found 1.5"),
        ("score_threshold", float("nan"), "expected a number from 0 to 1, found nan"),
        ("iou_threshold", "0.5", "expected a number from 0 to 1, found '0.5'"),
        ("max_persons", 0, "expected an integer from 1 to 1000, found 0"),
        ("max_persons", 1001, "expected an integer from 1 to 1000, found 1001"),
        ("max_persons", 2.0, "expected an integer from 1 to 1000, found 2.0"),
        ("input_size", 640, r"segmenter_size: expected \(H, W\), found 640"),
        ("input_size", (640, 16), "segmenter_size: expected an integer from 32 to 8192, found 16"),
        ("input_size", (320, 320), "expected a known family's shapes at .320, 320., found inputs"),
        ("family", "ssd", "expected a family among 'yolo', 'yolact', 'maskrcnn', found 'ssd'"),
    ],
)
def test_what_the_caller_may_not_say(tmp_path: Path, option: str, value: object, expected: str) -> None:
    path = toy(tmp_path / "s.onnx", {})
    with pytest.raises(InputError, match=expected):
        read_segmenter(path, **{option: value})  # type: ignore[arg-type]


def test_shapes_that_tell_nothing_are_asked_for_and_then_checked(tmp_path: Path) -> None:
    path = toy(tmp_path / "s.onnx", METADATA, told=False)
    with pytest.raises(InputError, match=r"s\.onnx: segmenter: .*; known: yolo .*say so: .*--segmenter-family yolo"):
        read_segmenter(path)
    found = read_segmenter(path, family="yolo", input_size=(SIDE, SIDE))
    check_segmenter(found)
    assert (found.info.input_size, found.info.outputs) == ((SIDE, SIDE), ("output0", "output1"))
    wrong = read_segmenter(path, family="yolo", input_size=(2 * SIDE, SIDE))  # nothing in the file contradicts it
    with pytest.raises(InputError, match=r"s\.onnx: as family 'yolo' .*expected \[1, 4 .*; look at .*segmenter_size"):
        check_segmenter(wrong)
    wrong = read_segmenter(path, family="yolo", input_size=(SIDE, SIDE), person_class=CLASSES)
    with pytest.raises(InputError, match=r"with person class 2: .*with more than 2 classes.*person_class"):
        check_segmenter(wrong)


def test_no_metadata_is_no_licence_and_class_0(tmp_path: Path) -> None:
    found = read_segmenter(toy(tmp_path / "s.onnx", {}))
    assert (found.info.person_class, found.provenance.licence) == (0, "")


def test_unknown_outputs_and_broken_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a known family's shapes"):
        read_segmenter(toy(tmp_path / "a.onnx", {}, rows=20))
    with pytest.raises(ValidationFailed, match=r"b\.onnx: expected finite outputs .*'output0'.*found NaN or infinity"):
        check_segmenter(read_segmenter(toy(tmp_path / "b.onnx", {}, value=3e38)))


@pytest.mark.parametrize("text", ["x" * 300, "é" * 300, "a\u202eb", "e\u0301", " a\n\tb "])
def test_any_licence_text_fits_a_manifest(tmp_path: Path, text: str) -> None:
    found = read_segmenter(toy(tmp_path / "s.onnx", {**METADATA, "license": text})).provenance
    assert found.licence and Provenance.from_dict(found.to_dict(), "test") == found


def test_a_plan_with_a_segmenter(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    segmenter = toy(tmp_path / "s.onnx", METADATA)
    trunk, hat = files / "trunk.safetensors", files / "hat.safetensors"
    size = (SIDE, SIDE)
    said = {"segmenter_licence": "bought", "segmenter_family": "yolo", "segmenter_size": size, **OPTIONS}
    export_plan(path, trunk, [hat], segmenter, **said)  # type: ignore[arg-type]
    with load_plan(path) as plan:
        info = plan.manifest.segmenter
        assert info is not None and plan.parts[info.part].role == "segmenter"
        assert (info.family, info.input_size) == ("yolo", size)
        assert {name: getattr(info, name) for name in OPTIONS} == OPTIONS
        assert plan.manifest.parts[info.part].provenance == Provenance("bought", "Some one")


def test_the_yolo_of_the_data_folder(shared: Path) -> None:
    found = read_segmenter(shared / "models" / "yolov8n-seg-640.onnx")
    check_segmenter(found)
    assert found.info.person_class == 0 and found.info.input_size == (640, 640)
