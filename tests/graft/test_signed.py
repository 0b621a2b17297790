"""INT8 as ONNX Runtime's quantiser writes it becomes what TensorRT takes: around 0, biases in float32."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graft.test_floats import node, normal, proven
from graft.test_graft import run
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from graftsdk.errors import UnsupportedOp
from graftsdk.graft import externalize
from graftsdk.graft.requantise import drop_requantising
from graftsdk.graft.signed import make_signed
from graftsdk.plan.onnx_part import IR_VERSION, OPSET

CROPS = np.random.default_rng(2).normal(size=(8, 4, 6, 6)).astype(np.float32)


class Crops(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = [{"crops": CROPS}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A small net in float32, and as the quantiser writes it: a trunk `t` and a branch `b` whose head is float32."""
    folder = tmp_path_factory.mktemp("int8")
    nodes = [
        node("Conv", ["crops", "t/w", "t/bias"], "t/conv", pads=[1] * 4),
        node("Relu", ["t/conv"], "t/tap"),
        node("MaxPool", ["t/tap"], "b/pool", kernel_shape=[2, 2]),
        node("Conv", ["b/pool", "b/w", "b/bias"], "b/conv", pads=[1] * 4),
        node("Add", ["b/conv", "b/pool"], "b/sum"),
        node("Relu", ["b/sum"], "b/relu"),
        node("Concat", ["b/relu", "b/conv"], "b/both", axis=1),
        node("Conv", ["b/both", "b/wide"], "b/out"),
        node("GlobalAveragePool", ["b/out"], "b/mean"),
        node("Flatten", ["b/mean"], "b/vector"),
        node("Gemm", ["b/vector", "b/fc"], "b/logits"),
        node("Softmax", ["b/logits"], "b/scores", axis=1),
    ]
    weights = {"t/w": normal(4, 4, 3, 3), "t/bias": normal(4), "b/w": normal(4, 4, 3, 3), "b/bias": normal(4) + 1,
               "b/wide": normal(4, 8, 1, 1), "b/fc": normal(4, 2)}  # fmt: skip
    shapes: dict[str, list[int]] = {"t/tap": [4, 6, 6], "b/out": [4, 5, 5], "b/scores": [2]}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("crops", 1, ["n", 4, 6, 6])],
        [helper.make_tensor_value_info(name, 1, ["n", *shape]) for name, shape in shapes.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.save(whole, folder / "whole.onnx")
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            folder / "whole.onnx",
            folder / "int8.onnx",
            Crops(),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Relu", "MaxPool", "Concat"],
        )
    finally:
        logging.disable(logging.NOTSET)
    return whole, onnx.load(folder / "int8.onnx")


def signed(proto: onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(copy.deepcopy(proto))
    model.graph.sort()  # the quantiser leaves its own nodes in no order
    make_signed(model)
    return model


def content(model: ir.Model, value: ir.Value | None) -> np.ndarray:
    assert value is not None and value.const_value is not None, value
    return value.const_value.numpy()


def test_the_form(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    whole, int8 = pair
    model = signed(int8)
    proven(model)
    assert {value.name for value in model.graph.outputs} == {"t/tap", "b/out", "b/scores"}
    for each in model.graph:
        if each.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = content(model, each.inputs[2])
            assert zero.dtype == np.int8 and not zero.any()
            weights = each.op_type == "DequantizeLinear" and each.inputs[0].is_initializer()  # type: ignore[union-attr]
            assert content(model, each.inputs[1]).ndim == (1 if weights else 0)  # a channel, or a tensor
        if each.op_type == "Conv":
            for value in each.inputs[:2]:
                assert value is not None and value.producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]
            if len(each.inputs) > 2:
                assert content(model, each.inputs[2]).dtype == np.float32
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    for name in ("t/bias", "b/bias"):  # under its own name, and what it was but for the quantiser's rounding
        np.testing.assert_allclose(content(model, model.graph.initializers[name]), floats[name], atol=1e-3)
    before = {tensor.name: tensor for tensor in int8.graph.initializer}
    for name in ("t/w", "b/w", "b/wide"):
        kept = content(model, model.graph.initializers[f"{name}_quantized"])
        np.testing.assert_array_equal(kept, numpy_helper.to_array(before[f"{name}_quantized"]))
    assert all(value.uses() for value in model.graph.initializers.values())


def test_ranges_are_those_of_before(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in pair[1].graph.initializer}
    model = signed(pair[1])
    seen = 0
    for each in model.graph:
        if each.op_type == "QuantizeLinear":
            name = (each.inputs[1].name or "").removesuffix("/signed")  # type: ignore[union-attr]
            scale, zero = before[name], before[name.replace("_scale", "_zero_point")].astype(np.float64)
            low, high = (0 - zero) * scale, (255 - zero) * scale
            assert np.isclose(content(model, each.inputs[1]) * 127, max(-low, high), rtol=1e-6)
            if zero == 0:
                assert np.all(content(model, each.inputs[1]) > scale)
            seen += 1
    assert seen >= 5


def test_scores_are_near_those_of_unsigned_int8(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    whole, int8 = pair
    exact, unsigned = (run(ir.from_proto(proto), {"crops": CROPS}) for proto in (whole, int8))
    ours = run(signed(int8), {"crops": CROPS})
    assert ours["t/tap"].min() == 0.0  # the quantiser had left its Relu to uint8
    for name, bound in (("t/tap", 0.02), ("b/out", 0.05), ("b/scores", 0.02)):
        largest = np.abs(exact[name]).max()
        assert np.abs(unsigned[name] - exact[name]).max() < bound * largest
        assert 0 < np.abs(ours[name] - exact[name]).max() < 2 * bound * largest


def test_a_relu_stands_again_only_where_it_is_needed(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    assert "Relu" not in {each.op_type for each in pair[1].graph.node}
    relus = [each.name for each in signed(pair[1]).graph if each.op_type == "Relu"]
    assert len(relus) == 2  # behind t/conv and b/sum; the pooled tap is at least 0 by itself


def quantised(change: Callable[[dict[str, np.ndarray], list[onnx.NodeProto]], object] = lambda w, n: None) -> ir.Model:
    """One convolution between a trunk's dequantised tap and a branch that quantises it with the same numbers."""
    weights: dict[str, np.ndarray] = {
        "t/scale": np.float32(0.02), "t/zero": np.uint8(0), "b/scale": np.float32(0.02), "b/zero": np.uint8(0),
        "b/w": np.arange(-32, 32, dtype=np.int8).reshape(4, 4, 2, 2), "b/w_scale": np.full(4, 0.01, np.float32),
        "b/w_zero": np.zeros(4, np.int8), "b/bias": np.array([1, -2, 300, 4], np.int32),
        "b/bias_scale": np.array([1, 2, 3, 4], np.float32) * np.float32(2e-4), "b/bias_zero": np.zeros(4, np.int32),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["crops", "t/scale", "t/zero"], "t/q"),
        node("DequantizeLinear", ["t/q", "t/scale", "t/zero"], "t/tap"),
        node("QuantizeLinear", ["t/tap", "b/scale", "b/zero"], "b/q"),
        node("DequantizeLinear", ["b/q", "b/scale", "b/zero"], "b/x"),
        node("DequantizeLinear", ["b/w", "b/w_scale", "b/w_zero"], "b/weights", axis=0),
        node("DequantizeLinear", ["b/bias", "b/bias_scale", "b/bias_zero"], "b/b", axis=0),
        node("Conv", ["b/x", "b/weights", "b/b"], "b/scores"),
    ]
    change(weights, nodes)
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("crops", 1, ["n", 4, 6, 6])],
        [helper.make_tensor_value_info(name, 1, None) for name in ("t/tap", "b/scores")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def test_by_hand() -> None:
    model = quantised()
    drop_requantising(model.graph)
    make_signed(model)
    proven(model)
    # The branch reads the trunk's own numbers; nothing is quantised twice.
    assert [each.op_type for each in model.graph].count("QuantizeLinear") == 1
    scale = 255 * np.float32(0.02) / 127
    numbers = np.clip(np.rint(np.maximum(CROPS, 0).astype(np.float64) / scale), -128, 127)
    x = numbers * scale
    w = np.arange(-32, 32).reshape(4, 4, 2, 2) * 0.01
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(2, 3))
    bias = np.array([1, -2, 300, 4]) * np.array([1, 2, 3, 4]) * 2e-4
    expected = np.einsum("nchwij,ocij->nohw", windows, w) + bias[:, None, None]
    found = run(model, {"crops": CROPS})
    np.testing.assert_allclose(found["t/tap"], x, atol=1e-5)
    np.testing.assert_allclose(found["b/scores"], expected, atol=1e-4)


@pytest.mark.parametrize("tap_is_read", [True, False])
@pytest.mark.parametrize(
    "change, left",
    [
        (lambda weights, nodes: None, 1),
        (lambda weights, nodes: weights.update({"b/scale": np.float32(0.03)}), 2),
        (lambda weights, nodes: weights.update({"b/zero": np.uint8(3)}), 2),
        (lambda weights, nodes: weights.update({"b/zero": np.int8(0)}), 2),
    ],
)
def test_what_was_dequantised_is_handed_on(change: Any, left: int, tap_is_read: bool) -> None:
    model = quantised(change)
    if not tap_is_read:
        model.graph.outputs.pop(0)
    before = run(model, {"crops": CROPS})
    drop_requantising(model.graph)
    onnx.checker.check_model(ir.to_proto(model))
    kinds = [each.op_type for each in model.graph]
    assert kinds.count("QuantizeLinear") == left
    assert ("t/tap" in [value.name for each in model.graph for value in each.outputs]) is (tap_is_read or left == 2)
    found = run(model, {"crops": CROPS})
    assert found.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(found[name], value)


def test_other_scales_are_quantised_again() -> None:
    model = quantised(lambda weights, nodes: weights.update({"b/scale": np.float32(0.03)}))
    drop_requantising(model.graph)
    make_signed(model)
    proven(model)
    assert [each.op_type for each in model.graph].count("QuantizeLinear") == 2


def test_one_scale_with_two_zero_points() -> None:
    def change(weights: dict[str, np.ndarray], nodes: list[onnx.NodeProto]) -> None:
        weights["b/zero"] = np.uint8(55)  # type: ignore[assignment]
        nodes[2].input[1] = nodes[3].input[1] = "t/scale"
        del weights["b/scale"]

    model = quantised(change)
    make_signed(model)
    proven(model)
    scales = [content(model, each.inputs[1]) for each in model.graph if each.op_type == "QuantizeLinear"]
    np.testing.assert_allclose(scales, [255 * 0.02 / 127, 200 * 0.02 / 127], rtol=1e-6)


def test_a_graph_in_float32_stays() -> None:
    graph = helper.make_graph(
        [node("Relu", ["crops"], "p/scores")], "g", [helper.make_tensor_value_info("crops", 1, ["n", 4])],
        [helper.make_tensor_value_info("p/scores", 1, ["n", 4])],
    )  # fmt: skip
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    make_signed(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def put(name: str, value: Any) -> Callable[[dict[str, np.ndarray], list[onnx.NodeProto]], object]:
    return lambda weights, nodes: weights.__setitem__(name, value)


@pytest.mark.parametrize(
    "change, message",
    [
        (put("t/scale", np.array([0.02, 0.02], np.float32)), "one scale for an activation, found 2"),
        (put("t/scale", np.float32(0)), "a scale above 0, found 0"),
        (put("t/scale", np.float32(np.nan)), "a scale above 0, found nan"),
        (put("t/zero", np.uint16(0)), "activations in uint8 or int8, found uint16"),
        (put("b/w_zero", np.array([0, 0, 1, 0], np.int8)), "weights around 0, found another zero point"),
        (put("b/bias_scale", np.ones(3, np.float32)), r"a scale for each of \(4,\), found 3"),
        (lambda w, n: n.append(node("Neg", ["t/q"], "b/odd")), "only DequantizeLinear to read quantised values"),
        (lambda w, n: n[0].input.__setitem__(1, "crops"), "constant scales and zero points, found computed ones"),
    ],
)  # fmt: skip
def test_other_forms_are_refused(
    change: Callable[[dict[str, np.ndarray], list[onnx.NodeProto]], object], message: str
) -> None:
    with pytest.raises(UnsupportedOp, match=message):
        make_signed(quantised(change))


def test_the_parser_and_the_builder_take_it(pair: tuple[onnx.ModelProto, onnx.ModelProto], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from graftsdk.engines.tensorrt import find_library
    from graftsdk.errors import EngineBuildError
    from graftsdk.export.tensorrt import Wanted, build_graph

    wanted = Wanted(("8.9",), (1, 4), {}, "the graph")
    library = find_library("tensorrt_rtx")

    def build(model: ir.Model) -> int:
        pieces: list[bytes] = []
        build_graph(library, *externalize(model), wanted, pieces.append, lambda phase: None)
        return sum(map(len, pieces))

    assert build(signed(pair[1])) > 0
    unsigned = ir.from_proto(copy.deepcopy(pair[1]))
    with pytest.raises(EngineBuildError):  # why the pass is there
        build(unsigned)


def test_names(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    before = {value for each in pair[1].graph.node for value in each.output}
    after = {value.name for each in signed(pair[1]).graph for value in each.outputs}
    assert {name for name in before - after if not name.endswith("bias")} == set()
    assert TensorProto.UINT8 not in {value.dtype for each in signed(pair[1]).graph for value in each.outputs}
