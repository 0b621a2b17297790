from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import toys
from onnx.reference import ReferenceEvaluator

from graftsdk.errors import PlanCorrupt
from graftsdk.lifecycle.cutting import BLOCK_INPUT, cut_block
from graftsdk.plan import Part
from graftsdk.plan.onnx_part import model_from_part, part_from_model

TRUNK = toys.trunk()[0]


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(ReferenceEvaluator(ir.to_proto(model)).run(None, feeds))


def test_blocks_in_a_row_are_the_trunk() -> None:
    crops = toys.crops(2)
    taps = run(model_from_part(TRUNK), {"crops": crops})
    value = crops
    for k, tap in enumerate(taps):
        model = cut_block(TRUNK, k)
        assert [each.name for each in model.graph.outputs] == [f"tap_{k}"]
        assert len(list(model.graph)) == 2  # one convolution and its Relu: nothing of the other blocks
        (value,) = run(model, {BLOCK_INPUT if k else "crops": value})
        np.testing.assert_array_equal(value, tap)


def test_block_that_reads_past_its_tap_is_refused() -> None:
    model = model_from_part(TRUNK)
    last = next(node for node in model.graph if node.name == "relu3")
    early = next(node for node in model.graph if node.name == "relu0").outputs[0]
    pooled = ir.node("GlobalAveragePool", [early])
    model.graph.insert_before(last, pooled)
    total = ir.node("ReduceSum", [pooled.outputs[0]])
    model.graph.insert_before(last, total)
    added = ir.node("Add", [last.inputs[0], total.outputs[0]])  # type: ignore[list-item]
    model.graph.insert_before(last, added)
    last.replace_input_with(0, added.outputs[0])
    part: Part = part_from_model(model, "trunk")
    assert [each.name for each in cut_block(part, 2).graph.outputs] == ["tap_2"]
    with pytest.raises(PlanCorrupt, match="expected block 2 to read tap 2 only"):
        cut_block(part, 3)
