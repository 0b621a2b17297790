"""Parts whose graphs are not what their plan says: refused while they are grafted, with every digest right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import toys
from graft.test_graft import output, run
from onnx import TensorProto, helper, numpy_helper

from graftsdk.errors import PlanCorrupt, PlanError, PlanVersionError
from graftsdk.graft import externalize, graft
from graftsdk.plan import Part, load_plan
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import part_from_model

Change = Callable[[onnx.ModelProto], object]


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if each.name == name)


def cycle(model: onnx.ModelProto) -> None:
    node(model, "own").input[0] = "own.relu"


def swap(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    model.graph.ClearField("node")
    model.graph.node.extend(reversed(nodes))


def side(values: object, index: int, size: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        value = getattr(model.graph, str(values))[0]
        value.type.tensor_type.shape.dim[index].Clear()
        value.type.tensor_type.shape.dim[index].dim_value = size

    return change


BRANCHES: dict[str, tuple[Change, type[PlanError]]] = {
    "a cycle": (cycle, PlanCorrupt),
    "nodes in the wrong order": (swap, PlanCorrupt),
    "a value that nothing makes": (lambda m: node(m, "own").input.__setitem__(0, "nothing"), PlanCorrupt),
    "a value made twice": (lambda m: m.graph.node.append(node(m, "own")), PlanCorrupt),
    "no scores": (lambda m: setattr(m.graph.output[0], "name", "pooled"), PlanCorrupt),
    "scores that nothing makes": (lambda m: node(m, "softmax").output.__setitem__(0, "other"), PlanCorrupt),
    "one output more": (lambda m: m.graph.output.append(helper.make_tensor_value_info("own", 1, ["n"])), PlanCorrupt),
    "another input": (lambda m: setattr(m.graph.input[0], "name", "x"), PlanCorrupt),
    "one input more": (lambda m: m.graph.input.append(helper.make_tensor_value_info("x", 1, ["n"])), PlanCorrupt),
    "no input": (lambda m: m.graph.ClearField("input"), PlanCorrupt),
    "an input with a default": (
        lambda m: m.graph.initializer.append(numpy_helper.from_array(np.ones((1, 24, 2, 2), np.float32), "tap")),
        PlanCorrupt),
    "a tap of other channels": (side("input", 1, 99), PlanCorrupt),
    "a tap of another height": (side("input", 2, 99), PlanCorrupt),
    "another number of classes": (side("output", 1, 3), PlanCorrupt),
    "opset 17": (lambda m: setattr(m.opset_import[0], "version", 17), PlanVersionError),
    "opset 21": (lambda m: setattr(m.opset_import[0], "version", 21), PlanVersionError),
    "another domain": (lambda m: m.opset_import.add(domain="com.microsoft", version=1), PlanVersionError),
    "IR 14": (lambda m: setattr(m, "ir_version", 14), PlanVersionError),
    "a small weight with too few bytes": (
        lambda m: setattr(next(t for t in m.graph.initializer if t.name == "fc.bias"), "raw_data", b"1"), PlanCorrupt),
    "a small weight of 2**50 values": (
        lambda m: next(t for t in m.graph.initializer if t.name == "fc.bias").dims.__setitem__(0, 2**50), PlanCorrupt),
    "no ONNX at all": (lambda m: None, PlanCorrupt),
    "an attribute without a type": (lambda m: node(m, "own").attribute[0].ClearField("type"), PlanCorrupt),
    "an operator in not UTF-8": (lambda m: None, PlanCorrupt),
    "a value in not UTF-8": (lambda m: None, PlanCorrupt),
    "an output without a name": (lambda m: setattr(m.graph.output[0], "name", ""), PlanCorrupt),
}  # fmt: skip


@pytest.mark.parametrize("case", BRANCHES)
def test_hostile_branches(tmp_path: Path, case: str) -> None:
    change, leaf = BRANCHES[case]
    part, document = toys.branch("child", 1)
    proto = onnx.ModelProto.FromString(part.graph)
    change(proto)
    graph = proto.SerializeToString()
    if case == "no ONNX at all":
        graph = b"\xff" * 64
    elif case.endswith("not UTF-8"):  # found by fuzzing: the graph could be read, but not written again
        graph = graph.replace(
            b"Softmax" if "operator" in case else b"pooled", b"Soft\x80ax" if "operator" in case else b"poo\x80ed"
        )
    other = toys.branch("gender", 2, seed=4)
    create_plan(tmp_path / "p", toys.trunk(), [(Part("branch", graph, part.tensors), document), other])
    with load_plan(tmp_path / "p") as plan:
        with pytest.raises(PlanError) as caught:
            externalize(graft(plan))
        assert type(caught.value) is leaf, caught.value
        assert run(graft(plan, ["gender"]), {"crops": toys.crops(1)})  # the other label is not touched by it


TRUNKS: dict[str, Change] = {
    "a tap missing": lambda m: m.graph.output.pop(),
    "a tap too many": lambda m: m.graph.output.append(helper.make_tensor_value_info("conv0", 1, ["n"])),
    "another size of crop": lambda m: side("input", 2, 64)(m),
    "one channel": lambda m: side("input", 1, 1)(m),
    "another name of the input": lambda m: setattr(m.graph.input[0], "name", "x"),
    "a cycle": lambda m: node(m, "conv0").input.__setitem__(0, "tap_1"),
}


@pytest.mark.parametrize("case", TRUNKS)
def test_hostile_trunks(tmp_path: Path, case: str) -> None:
    part, document = toys.trunk()
    proto = onnx.ModelProto.FromString(part.graph)
    TRUNKS[case](proto)
    stock = Part("trunk", proto.SerializeToString(), part.tensors)
    create_plan(tmp_path / "p", (stock, document), [toys.branch("child", 1)])
    with load_plan(tmp_path / "p") as plan, pytest.raises(PlanCorrupt):
        graft(plan)


def with_subgraphs() -> Part:
    """A branch that decides by an If, in whose arms stand a Loop, weights of their own, and values of the outside."""
    info = helper.make_tensor_value_info
    floats, one = TensorProto.FLOAT, numpy_helper.from_array
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["state", "factor"], ["scaled"], name="mul"),
            helper.make_node("Add", ["scaled", "bias"], ["next"], name="add"),
            helper.make_node("Identity", ["go"], ["on"], name="id"),
        ],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("state", floats, None)],
        [info("on", TensorProto.BOOL, []), info("next", floats, None)],
        [one(np.array(0.5, np.float32), "factor")],
    )
    then = helper.make_graph(
        [helper.make_node("Loop", ["trips", "", "logits"], ["looped"], name="loop", body=body)],
        "then",
        [],
        [info("looped", floats, None)],
        [one(np.array(3, np.int64), "trips")],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["logits"], ["negative"], name="neg")], "else", [], [info("negative", floats, None)]
    )
    rng = np.random.default_rng(3)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["tap"], ["pooled"], name="pool"),
            helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"], name="fc"),
            helper.make_node("ReduceSum", ["logits"], ["sum"], name="sum", keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["positive"], name="greater"),
            helper.make_node("If", ["positive"], ["chosen"], name="if", then_branch=then, else_branch=other),
            helper.make_node("Softmax", ["chosen"], ["scores"], name="softmax", axis=1),
        ],
        "branch",
        [info("tap", floats, ["n", *toys.tap_shape(1)])],
        [info("scores", floats, ["n", 2])],
        [
            one(rng.normal(size=(toys.WIDTHS[1], 2)).astype(np.float32), "weight"),
            one(np.array([0.1, -0.2], np.float32), "bias"),
            one(np.array(0, np.float32), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return part_from_model(ir.from_proto(model), "branch")


def test_subgraphs_keep_their_meaning(tmp_path: Path) -> None:
    part = with_subgraphs()
    other = toys.branch("gender", 2, seed=4)
    create_plan(tmp_path / "p", toys.trunk(), [(part, toys.branch("child", 1)[1]), other])
    with load_plan(tmp_path / "p") as plan:
        model = graft(plan)
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto)
        inner = [each.name for each in model.graph.all_nodes() if each.op_type in ("Loop", "Mul", "Add", "Neg")]
        assert sorted(inner) == sorted(f"{part.name}/{name}" for name in ("loop", "mul", "add", "neg"))
        arms = node(proto, f"{part.name}/if").attribute
        assert [tensor.name for arm in arms for tensor in arm.g.initializer] == [f"{part.name}/trips"]
        for seed in range(6):  # both arms are taken
            crops = toys.crops(2, seed)
            taps = run(ir.from_proto(_alone(plan.parts[plan.manifest.trees[0].trunk])), {"crops": crops})
            alone = run(ir.from_proto(_alone(part)), {"tap": taps["tap_1"]})
            ours = run(model, {"crops": crops})
            assert ours[output(plan, "child")].tobytes() == alone["scores"].tobytes()


def _alone(part: Part) -> onnx.ModelProto:
    proto = onnx.ModelProto.FromString(part.graph)
    for name, array in part.tensors.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def test_scores_that_are_a_weight(tmp_path: Path) -> None:
    """Found by reading: pruning dropped a weight that is itself the output, and the graph had a hole."""
    graph = helper.make_graph(
        [],
        "branch",
        [helper.make_tensor_value_info("tap", TensorProto.FLOAT, ["n", *toys.tap_shape(1)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.array([[0.25, 0.75]], np.float32), "scores")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    part = Part("branch", model.SerializeToString(), {})
    create_plan(tmp_path / "p", toys.trunk(), [(part, toys.branch("child", 1)[1])])
    with load_plan(tmp_path / "p") as plan:
        try:
            found = graft(plan)
        except PlanCorrupt:
            return
        assert f"{part.name}/scores" in found.graph.initializers
