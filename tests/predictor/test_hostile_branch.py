"""A branch that computes something else than it declares: one clear error that names it, and the others answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import toys
from onnx import TensorProto, helper, numpy_helper

from graftsdk import Predictor
from graftsdk.errors import EngineError, GraftError, NonFiniteOutput, PlanCorrupt
from graftsdk.plan.documents import BranchDocument
from graftsdk.plan.edit import create_plan
from graftsdk.plan.part import Part


def constant(name: str, *values: float, dtype: type = np.float32) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, dtype), name))


def hostile(tail: list[onnx.NodeProto], kind: int = TensorProto.FLOAT) -> tuple[Part, BranchDocument]:
    """A branch "bad" on tap 1 that declares `scores` [n, 2]; `mean` is [n, 24]."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["tap"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        *tail,
    ]
    output = helper.make_tensor_value_info("scores", kind, ["n", 2])
    part = toys._part("branch", nodes, [toys._info("tap", toys.tap_shape(1))], [output], [])
    return part, toys.branch("bad", 1)[1]


# Shapes that only a run can know: the runtime cannot see through a shape that is computed.
OTHER_WIDTH = [
    helper.make_node("Shape", ["mean"], ["size"]),
    constant("one", 1, dtype=np.int64),
    constant("zero", 0, dtype=np.int64),
    helper.make_node("Gather", ["size", "zero"], ["rows"]),
    constant("three", 3, dtype=np.int64),
    helper.make_node("Concat", ["rows", "three"], ["target"], axis=0),
    constant("third", 1 / 3),
    helper.make_node("Expand", ["third", "target"], ["scores"]),
]
ONE_ROW = [
    helper.make_node("ReduceMean", ["mean"], ["total"], keepdims=0),
    helper.make_node("Sub", ["total", "total"], ["nil"]),
    helper.make_node("Shape", ["nil"], ["empty"]),
    constant("front", 1, 2, dtype=np.int64),
    helper.make_node("Concat", ["front", "empty"], ["target"], axis=0),
    constant("half", 0.5),
    helper.make_node("Expand", ["half", "target"], ["scores"]),
]
TWO = [constant("first", 0, dtype=np.int64), constant("second", 2, dtype=np.int64), constant("axis", 1, dtype=np.int64)]
LOGITS = [*TWO, helper.make_node("Slice", ["mean", "first", "second", "axis"], ["logits"])]
CASES = {
    "another width": (OTHER_WIDTH, (PlanCorrupt, EngineError)),
    "one row for all": (ONE_ROW, (PlanCorrupt, EngineError)),
    "logits": (
        [*LOGITS, constant("ten", 10), helper.make_node("Mul", ["logits", "ten"], ["scores"])],
        (PlanCorrupt,),
    ),
    "negative": (
        [*LOGITS, constant("low", -0.5, 1.5), helper.make_node("Mul", ["logits", "low"], ["a"]),
         helper.make_node("Sub", ["a", "a"], ["b"]), helper.make_node("Add", ["b", "low"], ["scores"])],
        (PlanCorrupt,),
    ),
    "softmax over the batch": ([*LOGITS, helper.make_node("Softmax", ["logits"], ["scores"], axis=0)], (PlanCorrupt,)),
    "not a number": (
        [*LOGITS, constant("minus", -1), helper.make_node("Abs", ["logits"], ["a"]),
         helper.make_node("Sub", ["minus", "a"], ["b"]), helper.make_node("Sqrt", ["b"], ["scores"])],
        (NonFiniteOutput,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["merged", "split"])
@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("name", CASES)
def test_it_is_named_and_the_others_answer(tmp_path: Path, name: str, count: int, layout: str) -> None:
    tail, kinds = CASES[name]
    crops = toys.crops(count)
    create_plan(tmp_path / "alone", toys.trunk(), [toys.branch("child", 1)])
    create_plan(tmp_path / "p", toys.trunk(), [toys.branch("child", 1), hostile(tail)])
    with Predictor(tmp_path / "alone") as alone:
        expected = alone.run(crops)["child"]
    try:
        predictor = Predictor(tmp_path / "p", layout=layout)
    except GraftError as error:  # where the runtime sees it while it compiles
        assert isinstance(error, kinds)
        return
    with predictor:
        with pytest.raises(GraftError, match=r"expected") as caught:
            predictor.run(crops)
        assert isinstance(caught.value, kinds)
        part = predictor.plan.manifest.find("bad")[1].part  # type: ignore[index]
        assert "'bad'" in str(caught.value) or part in str(caught.value)
        assert predictor.run(crops, ["child"])["child"].tobytes() == expected.tobytes()


@pytest.mark.parametrize("names", [[], ["twice", "twice", "twice.2", "", ""]])
def test_nodes_may_lack_names_or_share_them(tmp_path: Path, names: list[str]) -> None:
    part, document = hostile([*LOGITS, helper.make_node("Softmax", ["logits"], ["scores"], axis=1)])
    model = onnx.ModelProto.FromString(part.graph)
    for node, name in zip(model.graph.node, names, strict=False):
        node.name = name
    part = Part("branch", model.SerializeToString(), part.tensors)
    create_plan(tmp_path / "p", toys.trunk(), [toys.branch("child", 1), (part, document)])
    with Predictor(tmp_path / "p") as merged, Predictor(tmp_path / "p", layout="split") as split:
        found = merged.run(toys.crops(2))
        assert all(scores.tobytes() == found[label].tobytes() for label, scores in split.run(toys.crops(2)).items())


def test_scores_of_another_dtype(tmp_path: Path) -> None:
    tail = [
        *LOGITS,
        helper.make_node("Softmax", ["logits"], ["narrow"], axis=1),
        helper.make_node("Cast", ["narrow"], ["scores"], to=TensorProto.DOUBLE),
    ]
    create_plan(tmp_path / "p", toys.trunk(), [hostile(tail, TensorProto.DOUBLE)])
    with Predictor(tmp_path / "p") as predictor, pytest.raises(PlanCorrupt, match=r"'bad'.*float32.*float64"):
        predictor.run(toys.crops(2))


def test_a_message_names_image_and_person(tmp_path: Path) -> None:
    toys.write(tmp_path / "p", ["child"])
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with Predictor(tmp_path / "p") as predictor:
        run = predictor._loaded.engine.run

        def spoilt(feeds, outputs=None):  # type: ignore[no-untyped-def]
            found = run(feeds, outputs)
            if len(feeds["crops"]) < 32:
                found[outputs[0]][-1] = np.nan
            return found

        predictor._loaded.engine.run = spoilt  # type: ignore[method-assign]
        boxes = [[0, 0, 20, 20]]
        with pytest.raises(NonFiniteOutput, match=r"'child': expected finite scores, person 32 got"):
            predictor.predict(image, boxes=boxes * 33)
        with pytest.raises(NonFiniteOutput, match=r"image 2: label .child.: expected finite scores, person 4 got"):
            predictor.predict([image] * 3, boxes=[boxes * 2, [], boxes * 5])
