"""Where BatchNorm is folded, and where it has to stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graftsdk.export.fold import fold_batch_norms
from graftsdk.export.validate import open_part
from graftsdk.plan.onnx_part import IR_VERSION, OPSET, part_from_model

CHANNELS = 4
NORM = ("gamma", "beta", "mean", "variance")


def model(nodes, outputs=("y",), bias: bool = False) -> ir.Model:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(CHANNELS, 3, 3, 3)), **{name: rng.uniform(0.5, 2.0, CHANNELS) for name in NORM}}
    if bias:
        arrays["b"] = rng.normal(size=CHANNELS)
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", CHANNELS, 8, 8]) for name in outputs],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return ir.from_proto(proto)


def conv(output: str, *inputs: str) -> object:
    return helper.make_node("Conv", inputs or ("x", "w"), [output], name=output, pads=[1] * 4)


def norm(source: str, output: str) -> object:
    return helper.make_node("BatchNormalization", [source, *NORM], [output], name=output, epsilon=1e-3)


def relu(source: str, output: str) -> object:
    return helper.make_node("Relu", [source], [output], name=output)


CASES = {
    # name: nodes, outputs, bias, BatchNormalizations left
    "plain": ([conv("c"), norm("c", "y")], ("y",), False, 0),
    "with a bias": ([conv("c", "x", "w", "b"), norm("c", "y")], ("y",), True, 0),
    "read on": ([conv("c"), norm("c", "m"), relu("m", "y")], ("y",), False, 0),
    "read twice": ([conv("c"), norm("c", "m"), helper.make_node("Add", ["m", "c"], ["y"], name="a")], ("y",), False, 1),
    "convolution is an output": ([conv("c"), norm("c", "y")], ("y", "c"), False, 1),
    "something in between": ([conv("c"), relu("c", "r"), norm("r", "y")], ("y",), False, 1),
    "weights read twice": (
        [conv("c"), conv("d"), norm("c", "m"), helper.make_node("Add", ["m", "d"], ["y"], name="a")],
        ("y",),
        False,
        1,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_results_stay_and_what_can_be_folded_is(case: str) -> None:
    nodes, outputs, bias, left = CASES[case]
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    plain, folded = model(nodes, outputs, bias), model(nodes, outputs, bias)
    fold_batch_norms(folded.graph)
    assert sum(node.op_type == "BatchNormalization" for node in folded.graph) == left
    assert [value.name for value in folded.graph.outputs] == list(outputs)
    results = []
    for each in (plain, folded):
        with open_part(part_from_model(each, "branch")) as engine:
            results.append(engine.run({"x": x}))
    for name in outputs:
        np.testing.assert_allclose(results[1][name], results[0][name], rtol=1e-5, atol=1e-5)
