"""INT8 parts, and average pools as convolutions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import toys
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from graftsdk.engines.layout import part_graph
from graftsdk.engines.reference import open_reference
from graftsdk.errors import InputError, UnsupportedOp
from graftsdk.export.opening import open_part
from graftsdk.export.pools import pools_as_convolutions
from graftsdk.export.quantize import METHODS, TapScale, quantizable, quantize_branch, quantize_trunk, tap_scales
from graftsdk.plan import Part, TrunkDocument
from graftsdk.plan.onnx_part import model_from_part, part_from_model

CROPS = toys.crops(7)


def whole(part: Part) -> dict[str, np.ndarray]:
    """The part's outputs node by node: quantised values are dequantised for each convolution, in float32."""
    with open_reference([part_graph(part)]) as engine:
        return engine.run({"crops": CROPS})


@pytest.fixture(scope="module")
def trunk() -> tuple[Part, TrunkDocument]:
    return toys.trunk()


@pytest.fixture(scope="module")
def lowered(trunk: tuple[Part, TrunkDocument]) -> Part:
    return quantize_trunk(*trunk, [CROPS[:4], CROPS[4:]], "percentile")


def test_trunk_form(trunk: tuple[Part, TrunkDocument], lowered: Part) -> None:
    graph = model_from_part(lowered).graph
    assert set(graph.opset_imports) == {""}
    assert lowered.role == "trunk" and lowered.nbytes < trunk[0].nbytes / 2
    for value in graph.outputs:
        assert value.producer().op_type == "DequantizeLinear"
    convolutions = [node for node in graph if node.op_type == "Conv"]
    assert len(convolutions) == 4
    for node in convolutions:
        entry, weight, bias = (value.producer() for value in node.inputs)
        numbers = weight.inputs[0].const_value.numpy()
        assert numbers.dtype == np.int8 and np.abs(numbers).max() <= 64  # one bit less
        assert weight.inputs[1].const_value.size == len(numbers)  # one scale a channel
        assert not weight.inputs[2].const_value.numpy().any()
        assert entry.inputs[1].const_value.size == 1 and entry.inputs[2].const_value.numpy().dtype == np.uint8
        assert bias.inputs[0].const_value.numpy().dtype == np.int32
    assert not [node for node in graph if node.op_type == "Relu"]  # a zero point of 0 saturates


def test_trunk_values(trunk: tuple[Part, TrunkDocument], lowered: Part) -> None:
    plain, slow, scales = whole(trunk[0]), whole(lowered), tap_scales(lowered)
    with open_part(lowered) as engine:
        found = engine.run({"crops": CROPS})
    for k, own in scales.items():
        tap = found[f"tap_{k}"]
        assert own.zero_point == 0
        steps = tap / own.scale
        assert np.abs(steps - steps.round()).max() < 1e-3 and 200 < steps.max() < 255.5
        assert np.abs(tap - slow[f"tap_{k}"]).max() <= 2.01 * own.scale  # roundings at a half, carried on
        assert np.abs(tap - slow[f"tap_{k}"]).mean() <= 0.01 * own.scale
        assert 0 < np.abs(tap - plain[f"tap_{k}"]).mean() < (0.5 + k) * own.scale


def test_branch_reads_the_tap_as_the_trunk_gives_it(trunk: tuple[Part, TrunkDocument], lowered: Part) -> None:
    part, document = toys.branch("child", 2, on=trunk[1])
    scale = tap_scales(lowered)[2]
    with open_part(lowered) as engine:
        taps = engine.run({"crops": CROPS}, ["tap_2"])["tap_2"]
    found = quantize_branch(part, document, [taps], scale)
    nodes = list(model_from_part(found).graph)
    entry = nodes[0]
    assert entry.op_type == "QuantizeLinear" and entry.inputs[0].name == "tap"
    assert float(entry.inputs[1].const_value.numpy()) == np.float32(scale.scale)
    assert int(entry.inputs[2].const_value.numpy()) == scale.zero_point
    kinds = [node.op_type for node in nodes]
    assert kinds[-5:] == ["DequantizeLinear", "GlobalAveragePool", "Flatten", "Gemm", "Softmax"]
    gemm = next(node for node in nodes if node.op_type == "Gemm")
    assert gemm.inputs[1].const_value.numpy().dtype == np.float32
    own = quantize_branch(part, document, [taps * 3])  # a trunk in float32: a range of its own
    assert float(model_from_part(own).graph[0].inputs[1].const_value.numpy()) == pytest.approx(3 * scale.scale, 0.05)


def test_what_is_joined_has_one_scale(trunk: tuple[Part, TrunkDocument]) -> None:
    part, document = toys.branch("child", 1, on=trunk[1])
    model = model_from_part(part)
    relu = next(node for node in model.graph if node.op_type == "Relu")
    pool = next(node for node in model.graph if node.op_type == "GlobalAveragePool")
    gemm = next(node for node in model.graph if node.op_type == "Gemm")
    joined = ir.node("Concat", [relu.outputs[0], model.graph.inputs[0]], {"axis": 1}, name="joined")
    joined.outputs[0].name, joined.outputs[0].type = "joined", relu.outputs[0].type
    model.graph.insert_before(pool, joined)
    pool.replace_input_with(0, joined.outputs[0])
    weight = np.random.default_rng(5).normal(size=(32 + 24, 2)).astype(np.float32)
    gemm.inputs[1].const_value = ir.Tensor(weight, name=gemm.inputs[1].name)
    gemm.inputs[1].shape = ir.Shape(weight.shape)
    taps = np.abs(np.random.default_rng(6).normal(size=(4, 24, 8, 8))).astype(np.float32)
    found = quantize_branch(part_from_model(model, "branch"), document, [taps])
    join = next(node for node in model_from_part(found).graph if node.op_type == "Concat")
    ends = [value.producer() for value in join.inputs] + [use.node for use in join.outputs[0].uses()]
    scales = {float(node.inputs[1].const_value.numpy()) for node in ends}
    assert len(ends) == 3 and len(scales) == 1


@pytest.mark.parametrize("method", METHODS)
def test_same_crops_same_bytes(trunk: tuple[Part, TrunkDocument], lowered: Part, method: str, capsys) -> None:  # type: ignore[no-untyped-def]
    once = quantize_trunk(*trunk, iter([CROPS]), method)  # type: ignore[arg-type]
    assert once.digest == quantize_trunk(*trunk, [CROPS], method).digest  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")


def test_leaves_no_files(trunk: tuple[Part, TrunkDocument], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def stopped():  # type: ignore[no-untyped-def]
        yield CROPS[:1]
        assert list(tmp_path.rglob("*.onnx"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_trunk(*trunk, stopped())
    assert not list(tmp_path.iterdir())


def test_refused(trunk: tuple[Part, TrunkDocument]) -> None:
    with pytest.raises(InputError, match="at least one crop"):
        quantize_trunk(*trunk, [])
    with pytest.raises(InputError, match="method: expected one of entropy, percentile, found 'guess'"):
        quantize_trunk(*trunk, [CROPS], "guess")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedOp, match="tap_0"):
        tap_scales(trunk[0])
    head, document = _head(trunk[1])
    assert not quantizable(head) and quantizable(trunk[0])
    with pytest.raises(InputError, match="label 'child'.*no.* convolutions|label 'child'.*found none"):
        quantize_branch(head, document, [np.zeros((1, 24, 8, 8), np.float32)], TapScale(0.1, 0))


def _head(on: TrunkDocument):  # type: ignore[no-untyped-def]
    part, document = toys.branch("child", 1, on=on)
    model = model_from_part(part)
    for node in list(model.graph):
        if node.op_type == "Conv":
            convolution = node
        if node.op_type == "Relu":
            node.outputs[0].replace_all_uses_with(convolution.inputs[0])
            relu = node
    model.graph.remove([relu, convolution], safe=True)
    return part_from_model(model, "branch"), document


@pytest.mark.parametrize(
    ("attributes", "replaced"),
    [
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, True),
        ({"kernel_shape": [2, 3], "strides": [2, 1]}, True),
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, False),  # counts fewer cells at the border
        ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, False),
        ({"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, False),
    ],
)
def test_pools_as_convolutions(attributes: dict[str, object], replaced: bool) -> None:
    node = helper.make_node("AveragePool", ["x"], ["y"], name="pool", **attributes)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5, None, None]) for name in "xy"]
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = ir.from_proto(proto)
    pools_as_convolutions(model.graph)
    assert [node.op_type for node in model.graph] == ["Conv" if replaced else "AveragePool"]
    x = np.random.default_rng(0).normal(size=(2, 5, 8, 7)).astype(np.float32)
    before, after = (ReferenceEvaluator(each).run(None, {"x": x})[0] for each in (proto, ir.to_proto(model)))
    np.testing.assert_allclose(after, before, atol=1e-6)
