"""Parts in fp16 and bf16: one type a node, casts where types meet, islands in float32, and what becomes of scores."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import toys
from graft.test_graft import run
from graft.typed_graphs import FORMS, Recipe, convolve, evaluate, merged, recipes
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graftsdk.errors import InputError, UnsupportedOp
from graftsdk.graft import externalize, graft
from graftsdk.graft.floats import lower_floats
from graftsdk.plan.onnx_part import IR_VERSION, OPSET

FLOAT = ir.DataType.FLOAT
LOW = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
ISLANDS = {"Abs", "Erf", "Gemm", "MatMul", "ReduceMean", "Softmax", "Sqrt"}
some_forms = st.dictionaries(st.sampled_from("tab"), st.sampled_from(["fp16", "bf16"]), min_size=1)


def proven(model: ir.Model) -> onnx.ModelProto:
    """The model as bytes would hold it, once ONNX's checker and strict inference have nothing against it."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    kinds = {each.name: each.type.tensor_type.elem_type for each in inferred.graph.value_info}
    for node in model.graph:
        for value in node.outputs:
            if value.dtype is not None:  # what is written is what follows from the operators
                assert kinds.get(value.name or "", value.dtype) == value.dtype, value.name
    return proto


def one_part(nodes: Sequence[onnx.NodeProto], **weights: np.ndarray) -> ir.Model:
    """Nodes of one part `p`: `crops` [n, 4, 6, 6] -> `p/scores`; its weights are named `p/<name>`."""
    return small(nodes, {f"p/{name}": array for name, array in weights.items()}, ["p/scores"])


def small(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, np.ndarray], outputs: Sequence[str]) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["n", 4, 6, 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)


def kinds(model: ir.Model) -> dict[str, ir.DataType | None]:
    """Node name without its part -> type of what it makes; casts left out."""
    return {
        (each.name or "").partition("/")[2]: each.outputs[0].dtype for each in model.graph if each.op_type != "Cast"
    }


def casts(model: ir.Model) -> list[str]:
    return [each.name or "" for each in model.graph if each.op_type == "Cast"]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32) * np.float32(0.3)


@given(recipes, some_forms)
def test_any_graft(recipe: Recipe, forms: dict[str, str]) -> None:
    model = merged(recipe)
    before = {each.name: each for each in model.graph}
    inputs = {name: list(each.inputs) for name, each in before.items()}
    lower_floats(model, forms)
    proven(model)
    evaluate(model, {"crops": np.ones((1, 4, 6, 6), np.float32)})  # asserts one type a node
    assert [each.name for each in model.graph if each.op_type != "Cast"] == list(inputs)
    assert {value.name: value.dtype for value in model.graph.outputs} == dict.fromkeys(
        ("t/tap", "a/scores", "b/scores"), FLOAT
    )
    assert [(value.name, value.dtype) for value in model.graph.inputs] == [("crops", FLOAT)]
    made = Counter((each.inputs[0], each.outputs[0].dtype) for each in model.graph if each.op_type == "Cast")
    assert set(made.values()) <= {1}
    if len(set(forms.values())) < 2:  # between two low types there is float32
        assert not any(source.producer() and source.producer().op_type == "Cast" for source, _ in made)
    for name, each in before.items():
        form = forms.get(name[0])
        kind = {value.dtype for value in (*each.inputs, *each.outputs) if value.dtype in (FLOAT, *LOW.values())}
        low = LOW[form] if form else FLOAT
        assert kind in ({FLOAT}, {low})
        if each.op_type in ISLANDS:
            assert kind == {FLOAT}, name
        if each.op_type == "Conv":
            assert kind == {low}, name
    assert all(value.uses() for value in model.graph.initializers.values())


def test_nothing_is_lowered_that_was_not_asked_for(tmp_path: Path) -> None:
    with toys.plan(tmp_path / "p") as plan:
        before = ir.to_proto(graft(plan)).SerializeToString(deterministic=True)
        model = graft(plan)
        lower_floats(model, {})
        assert ir.to_proto(model).SerializeToString(deterministic=True) == before
        lower_floats(model, {"another": "fp16"})
        assert casts(model) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_toy_in_a_low_type(tmp_path: Path, form: str) -> None:
    with toys.plan(tmp_path / "p", ("child", "gender")) as plan:  # its values have no types: they are inferred
        whole, model = graft(plan), graft(plan)
        lower_floats(model, dict.fromkeys(plan.parts, form))
        proven(model)
        assert model.opset_imports[""] == (18 if form == "fp16" else 22)
        by_type = {(each.op_type, each.outputs[0].dtype) for each in model.graph if each.op_type != "Cast"}
        assert by_type == {(op, LOW[form]) for op in ("Conv", "Relu")} | {
            (op, FLOAT) for op in ("GlobalAveragePool", "Flatten", "Gemm", "Softmax")
        }
        assert len(casts(model)) == 1 + 2  # crops, and the last map of each branch
        owners = {(each.name or "").split("/")[0] for each in model.graph}
        assert owners == set(plan.parts) | {"crops"}
        content, weights = externalize(model)
        assert {array.dtype for name, array in weights.items() if ".weight" in name} == {np.dtype(FORMS[form])}
        big = externalize(whole)[1]
        assert [array.nbytes * 2 for array in weights.values()] == [big[name].nbytes for name in weights]
        assert onnx.ModelProto.FromString(content).graph.initializer
        if form == "fp16":
            crops = toys.crops(4)
            exact, lowered = run(whole, {"crops": crops}), run(model, {"crops": crops})
            assert 0 < max(np.abs(lowered[name] - scores).max() for name, scores in exact.items()) < 2e-3


def test_what_is_rounded_written_out() -> None:
    """Convolution, residual sum and Relu by hand; the mean is of the rounded values, in float32."""
    w, b = normal(4, 4, 1, 1), normal(4)
    nodes = [
        node("Conv", ["crops", "p/w", "p/b"], "p/conv"),
        node("MaxPool", ["crops"], "p/same", kernel_shape=[1, 1]),
        node("Add", ["p/conv", "p/same"], "p/sum"),
        node("Relu", ["p/sum"], "p/relu"),
        node("GlobalAveragePool", ["p/relu"], "p/mean"),
        node("Mul", ["p/mean", "p/third"], "p/scores"),
    ]
    model = small(nodes, {"p/w": w, "p/b": b, "p/third": np.float32(1 / 3)}, ["p/relu", "p/scores"])
    crops = normal(2, 4, 6, 6)
    lower_floats(model, {"p": "bf16"})
    proven(model)

    def bf16(array: np.ndarray) -> np.ndarray:
        """Rounded to nearest, ties to even, in the bits."""
        bits = array.astype(np.float32).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)

    x = bf16(crops)
    relu = np.maximum(bf16(bf16(convolve(x, bf16(w), bf16(b))) + x), 0)
    found = evaluate(model, {"crops": crops})
    np.testing.assert_array_equal(found["p/relu"], relu)
    np.testing.assert_array_equal(found["p/scores"], relu.mean((2, 3), keepdims=True) * np.float32(1 / 3))
    assert np.abs(relu - np.maximum(convolve(crops, w, b) + crops, 0)).max() > 1e-3  # the rounding shows
    assert sorted(casts(model)) == ["crops/bf16", "p/relu/float32"]
    assert [name for name, kind in kinds(model).items() if kind == FLOAT] == ["mean", "scores"]


def test_an_output_that_is_read_too_keeps_its_name() -> None:
    nodes = [
        node("Conv", ["crops", "p/w"], "p/tap"),
        node("Conv", ["p/tap", "p/w"], "p/conv"),
        node("GlobalAveragePool", ["p/tap"], "p/mean"),
        node("Mul", ["p/conv", "p/mean"], "p/scores"),
    ]
    model = small(nodes, {"p/w": normal(4, 4, 1, 1)}, ["p/tap", "p/conv", "p/scores"])
    lower_floats(model, {"p": "fp16"})
    proven(model)
    assert [(value.name, value.dtype) for value in model.graph.outputs] == [
        ("p/tap", FLOAT), ("p/conv", FLOAT), ("p/scores", FLOAT)
    ]  # fmt: skip
    assert sorted(casts(model)) == ["crops/fp16", "p/conv/float32", "p/tap/float32"]  # the mean reads the output
    assert [value.name for value in model.graph[1].outputs] == ["p/tap/fp16"]


@pytest.mark.parametrize("form", FORMS)
def test_an_initialiser_that_a_float32_node_reads_too_is_stored_twice(form: str) -> None:
    slopes = normal(4, 1, 1)
    nodes = [
        node("Conv", ["crops", "p/w"], "p/conv"),
        node("Conv", ["p/conv", "p/w"], "p/again"),
        node("PRelu", ["p/again", "p/slopes"], "p/bent"),
        node("Mul", ["p/bent", "p/slopes"], "p/scores"),
    ]
    model = one_part(nodes, w=normal(4, 4, 1, 1), slopes=slopes)
    lower_floats(model, {"p": form})
    proven(model)
    stored = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    assert {name: array.dtype for name, array in stored.items()} == {
        "p/w": FORMS[form], "p/slopes": np.float32, f"p/slopes/{form}": FORMS[form]
    }  # fmt: skip
    np.testing.assert_array_equal(stored["p/slopes"], slopes)


def test_names_that_are_taken() -> None:
    nodes = [
        node("Conv", ["crops", "p/w"], "p/x"),
        node("Conv", ["p/x", "p/w"], "p/x/float32"),
        node("ReduceMax", ["p/x"], "p/most"),
        node("Mul", ["p/x/float32", "p/most"], "p/scores"),
    ]
    model = one_part(nodes, w=normal(4, 4, 1, 1))
    lower_floats(model, {"p": "fp16"})
    proven(model)
    assert sorted(casts(model)) == ["crops/fp16", "p/x/float32.2", "p/x/float32/float32"]


ONE = {
    # operator, further inputs, attributes: which low types it is computed in behind a convolution
    "Relu": ([], {}, "both"),
    "HardSwish": ([], {}, "fp16"),  # the parser of tensorrt_rtx 1.7.1 refuses bf16
    "HardSigmoid": ([], {}, "both"),
    "Sigmoid": ([], {}, "both"),
    "LeakyRelu": ([], {}, "both"),
    "Clip 0 6": (["p/zero", "p/six"], {}, "both"),
    "Clip 1e-12": (["p/tiny"], {}, "none"),  # 0 in fp16, inexact in bf16
    "Clip 2049": (["p/zero", "p/odd"], {}, "none"),
    "Add x": (["p/conv"], {}, "both"),
    "Mul x": (["p/conv"], {}, "both"),
    "Add constant": (["p/six"], {}, "none"),
    "Mul constant": (["p/six"], {}, "none"),
    "Div": (["p/six"], {}, "none"),
    "Pow": (["p/six"], {}, "none"),
    "MaxPool": ([], {"kernel_shape": [2, 2]}, "both"),
    "AveragePool 5": ([], {"kernel_shape": [5, 5]}, "both"),
    "AveragePool 6": ([], {"kernel_shape": [6, 6]}, "none"),  # the mean of a map
    "Concat": (["p/conv"], {"axis": 1}, "both"),
    "Flatten": ([], {}, "both"),
    "Transpose": ([], {"perm": [0, 2, 3, 1]}, "both"),
    "Identity": ([], {}, "both"),
    "Unsqueeze": (["p/axes"], {}, "both"),
    "ReduceMean": (["p/axes"], {}, "none"),
    "ReduceL2": (["p/axes"], {}, "none"),
    "ReduceSum": (["p/axes"], {}, "none"),
    "GlobalAveragePool": ([], {}, "none"),
    "LpNormalization": ([], {}, "none"),
    "Sqrt": ([], {}, "none"),
    "Sign": ([], {}, "none"),
    "Abs": ([], {}, "none"),
    "Exp": ([], {}, "none"),
    "Softmax": ([], {}, "none"),
    "MatMul": (["p/conv"], {}, "none"),
    "Mish": ([], {}, "none"),  # known to no table: float32
    "Celu": ([], {}, "none"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ONE)
def test_each_operator(name: str, form: str) -> None:
    more, attributes, where = ONE[name]
    nodes = [
        node("Conv", ["crops", "p/w"], "p/conv"),
        node(name.split()[0], ["p/conv", *more], "p/op", **attributes),
        node("Neg", ["p/op"], "p/scores"),
    ]
    constants = {
        "zero": np.float32(0), "six": np.float32(6), "tiny": np.float32(1e-12), "odd": np.float32(2049),
        "axes": np.array([1], np.int64),
    }  # fmt: skip
    read = {value for each in nodes for value in each.input}
    model = one_part(nodes, w=normal(4, 4, 1, 1), **{k: v for k, v in constants.items() if f"p/{k}" in read})
    lower_floats(model, {"p": form})
    proven(model)
    lowered = where in ("both", form)
    assert kinds(model) == {"conv": LOW[form], "op": LOW[form] if lowered else FLOAT, "scores": FLOAT}
    assert sorted(casts(model)) == sorted([f"crops/{form}", f"p/{'op' if lowered else 'conv'}/float32"])


def test_what_follows_an_island_is_float32_up_to_the_next_convolution() -> None:
    nodes = [
        node("Conv", ["crops", "p/w"], "p/conv"),
        node("Sqrt", ["p/conv"], "p/root"),
        node("Relu", ["p/root"], "p/relu"),
        node("Add", ["p/relu", "p/conv"], "p/sum"),
        node("Concat", ["p/sum", "p/conv"], "p/both", axis=1),
        node("Conv", ["p/both", "p/wide"], "p/out"),
        node("Add", ["p/out", "p/conv"], "p/end"),
        node("Neg", ["p/end"], "p/scores"),
    ]
    model = one_part(nodes, w=normal(4, 4, 1, 1), wide=normal(4, 8, 1, 1))
    lower_floats(model, {"p": "fp16"})
    proven(model)
    # The sum is of float32 values; what is concatenated is rounded for the convolution in either order.
    low = {name for name, kind in kinds(model).items() if kind != FLOAT}
    assert low == {"conv", "both", "out", "end"}
    assert sorted(casts(model)) == ["crops/fp16", "p/conv/float32", "p/end/float32", "p/sum/fp16"]


def test_the_place_of_the_largest_value_is_found_in_float32() -> None:
    pool = helper.make_node("MaxPool", ["p/conv"], ["p/most", "p/places"], name="p/most", kernel_shape=[2, 2])
    turn = helper.make_node("Cast", ["p/places"], ["p/where"], name="p/where", to=TensorProto.FLOAT)
    nodes = [node("Conv", ["crops", "p/w"], "p/conv"), pool, turn, node("Add", ["p/most", "p/where"], "p/scores")]
    model = one_part(nodes, w=normal(4, 4, 1, 1))
    lower_floats(model, {"p": "fp16"})
    proven(model)
    assert kinds(model) == {"conv": LOW["fp16"], "most": FLOAT, "scores": FLOAT}


def test_a_subgraph_reads_float32() -> None:
    inner = helper.make_graph(
        [node("Neg", ["p/conv"], "p/turned")], "then", [], [helper.make_tensor_value_info("p/turned", 1, None)]
    )
    other = helper.make_graph(
        [node("Abs", ["p/conv"], "p/size")], "else", [], [helper.make_tensor_value_info("p/size", 1, None)]
    )
    nodes = [
        node("Conv", ["crops", "p/w"], "p/conv"),
        node("If", ["p/yes"], "p/choice", then_branch=inner, else_branch=other),
        node("Conv", ["p/conv", "p/w"], "p/scores"),
    ]
    model = one_part([*nodes], w=normal(4, 4, 1, 1), yes=np.array(True))
    lower_floats(model, {"p": "fp16"})
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    inside = model.graph.node("p/choice").attributes["then_branch"].as_graph()
    assert [value.name for each in inside for value in each.inputs] == ["p/conv/float32"]


def test_weights_beyond_fp16_are_refused_by_part_and_name() -> None:
    def model(largest: float) -> ir.Model:
        w = normal(4, 4, 1, 1)
        w[1, 2] = largest
        return one_part([node("Conv", ["crops", "p/w"], "p/conv"), node("Neg", ["p/conv"], "p/scores")], w=w)

    for largest in (65504.0, 65519.0, -65519.0):  # the last that round to 65504
        lower_floats(model(largest), {"p": "fp16"})
    for largest in (65520.0, -1e9):
        with pytest.raises(
            UnsupportedOp, match=re.escape(f"{abs(largest):.6g}; keep this part in float32, or use bf16")
        ):
            lower_floats(model(largest), {"p": "fp16"})
    lower_floats(model(1e38), {"p": "bf16"})
    with pytest.raises(UnsupportedOp, match="part p: weight w: .*bf16"):
        lower_floats(model(3.4e38), {"p": "bf16"})


def test_small_weights_become_0_in_fp16_and_not_in_bf16() -> None:
    for form, expected in (("fp16", [0.0, 2**-24, 1.0]), ("bf16", [2**-26, 2**-24, 1.0])):
        w = np.array([2**-26, 2**-24, 1.0, 1.0], np.float32).reshape(1, 4, 1, 1)
        nodes = [node("Conv", ["crops", "p/w"], "p/conv"), node("Neg", ["p/conv"], "p/scores")]
        model = one_part(nodes, w=w)
        lower_floats(model, {"p": form})
        stored = model.graph.initializers["p/w"].const_value
        assert stored is not None
        assert stored.numpy().astype(np.float32).ravel()[:3].tolist() == expected


def test_an_operator_that_changed_keeps_the_opset() -> None:
    nodes = [
        node("Conv", ["crops", "p/w"], "p/conv"),
        node("GroupNormalization", ["p/conv", "p/ones", "p/ones"], "p/scores", num_groups=2),
    ]
    model = one_part(nodes, w=normal(4, 4, 1, 1), ones=np.ones(2, np.float32))
    lower_floats(model, {"p": "bf16"})
    assert model.opset_imports[""] == 18


@pytest.mark.parametrize("form", ["float32", "int8", "FP16", "half", ""])
def test_other_precisions_are_refused(form: str) -> None:
    with pytest.raises(InputError, match="part p: expected the precision fp16 or bf16"):
        lower_floats(one_part([node("Neg", ["crops"], "p/scores")]), {"p": form})


def test_an_exported_branch() -> None:
    """A residual sum and bilinear pooling, as the exporter writes them."""
    from graftsdk.export.parts import branch_part
    from graftsdk.models import Branch, FewCellsWarning, Trunk
    from graftsdk.plan.onnx_part import model_from_part

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewCellsWarning)
        trunk = Trunk.create("resnet18", (64, 64), width=0.25, seed=3)
        part = branch_part(Branch.create(trunk, "child", tap=5, until=6, pooling="bilinear", seed=1))
    for form in FORMS:
        model = model_from_part(part)
        for each in model.graph:
            each.name = f"p/{each.name}"
        lower_floats(model, {"p": form})
        proven(model)
        nodes = [each for each in model.graph if each.op_type != "Cast"]
        low = [each for each in nodes if each.outputs[0].dtype == LOW[form]]
        assert {each.op_type for each in low} == {"MaxPool", "Conv", "Add", "Relu", "Reshape"}
        pooling = nodes[nodes.index(low[-1]) + 1 :]
        assert low[-1].op_type == "Reshape" and nodes[: len(low)] == low  # nothing is lowered once pooling computes
        assert [each.op_type for each in pooling[:4]] == ["Mul", "Transpose", "MatMul", "Add"]
        assert len(casts(model)) == 2


@pytest.mark.parametrize("form", FORMS)
def test_the_parser_and_the_builder_take_it(tmp_path: Path, form: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from graftsdk.engines.tensorrt import find_library
    from graftsdk.export.tensorrt import Wanted, build_graph

    nodes = [
        node("Conv", ["crops", "t/w"], "t/conv"),
        node("MaxPool", ["crops"], "t/same", kernel_shape=[1, 1]),
        node("Add", ["t/conv", "t/same"], "t/tap"),
        node("HardSwish", ["t/tap"], "p/swish"),
        node("AveragePool", ["p/swish"], "p/mean", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
        node("ReduceMean", ["p/mean", "p/sides"], "p/pool"),
        node("Conv", ["p/pool", "p/w"], "p/inner"),
        node("HardSigmoid", ["p/inner"], "p/gate"),
        node("Mul", ["p/mean", "p/gate"], "p/gated"),
        node("Clip", ["p/gated", "p/zero", "p/six"], "p/clip"),
        node("PRelu", ["p/clip", "p/slopes"], "p/bent"),
        node("Concat", ["p/bent", "t/tap"], "p/both", axis=1),
        node("Conv", ["p/both", "p/wide"], "p/out"),
        node("Sigmoid", ["p/out"], "p/sure"),
        node("LeakyRelu", ["p/sure"], "p/leaky"),
        node("Reshape", ["p/leaky", "p/flat"], "p/vector"),
        node("Gemm", ["p/vector", "p/fc"], "p/logits"),
        node("Softmax", ["p/logits"], "p/scores", axis=1),
    ]
    weights = {
        "t/w": normal(4, 4, 1, 1), "p/w": normal(4, 4, 1, 1), "p/wide": normal(4, 8, 1, 1), "p/fc": normal(144, 2),
        "p/sides": np.array([2, 3], np.int64), "p/flat": np.array([0, 144], np.int64), "p/slopes": normal(4, 1, 1),
        "p/zero": np.float32(0), "p/six": np.float32(6),
    }  # fmt: skip
    model = small(nodes, weights, ["t/tap", "p/scores"])
    lower_floats(model, {"t": form, "p": form})
    proven(model)
    content, tensors = externalize(model)
    pieces: list[bytes] = []
    wanted = Wanted(("8.9",), (1, 4), {}, "the graph")
    built = build_graph(find_library("tensorrt_rtx"), content, tensors, wanted, pieces.append, lambda phase: None)
    assert [port.dtype for port in (*built.inputs, *built.outputs)] == ["float32"] * 3
    assert sum(map(len, pieces)) > 0
