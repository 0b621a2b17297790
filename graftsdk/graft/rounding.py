"""Pass: what `floats` would compute, in float32: for engines that have no such type, and to know what rounding costs.

ONNX Runtime's CPU provider has no bf16 convolution, and its fp16 is float32 throughout: it takes the casts between
two nodes away, so that nothing is rounded (1.32).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from graftsdk.graft.casts import Names, cast_behind, hand_out, set_weight
from graftsdk.graft.islands import decide, float_dtype, float_inputs, float_outputs, is_constant, rounded_weight

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["round_floats"]


def round_floats(model: ir.Model, forms: Mapping[str, str]) -> None:
    """Round weights, inputs and outputs of the nodes that `lower_floats` would lower, and leave all of it float32.

    Each node then computes what it computes in the lower type with sums in float32, which is what GPUs do. Arguments,
    requirements and errors as `lower_floats`. Ensures: inputs, outputs, their names and the opset are unchanged; a
    value is rounded by a Cast there and one back, named `<value>/fp16` and `<value>/float32`.
    """
    import onnx_ir as ir

    graph = model.graph
    decision = decide(model, forms)
    names = Names(graph)
    made: dict[tuple[ir.Value, str], ir.Value] = {}

    def rounded(value: ir.Value, form: str) -> ir.Value:
        if (value, form) not in made:
            if is_constant(value):
                array = rounded_weight(value, form).astype(np.float32)
                whole = all(decision.computed.get(use.node) == form for use in value.uses())
                made[value, form] = set_weight(graph, value, array, names, form, whole=whole)
            else:
                low = cast_behind(graph, value, float_dtype(form), names.new(f"{value.name}/{form}"))
                name = names.new(f"{value.name}/float32")
                made[value, form] = cast_behind(graph, low, ir.DataType.FLOAT, name)
        return made[value, form]

    for node, form in decision.computed.items():
        for place, value in enumerate(node.inputs):
            if value is not None and value in set(float_inputs(node)) and decision.rounded.get(value) != form:
                node.replace_input_with(place, rounded(value, form))
    for node, form in decision.computed.items():
        for value in float_outputs(node):
            _round_output(graph, _behind_relu(value, decision.moved), form, names)


def _round_output(graph: ir.Graph, value: ir.Value, form: str, names: Names) -> None:
    """Whatever reads the value reads it rounded; so does the graph's caller."""
    import onnx_ir as ir

    readers = value.uses()
    low = cast_behind(graph, value, float_dtype(form), names.new(f"{value.name}/{form}"))
    back = cast_behind(graph, low, ir.DataType.FLOAT, names.new(f"{value.name}/float32"))
    for use in readers:
        use.node.replace_input_with(use.idx, back)
    if value.is_graph_output():
        hand_out(graph, value, back, names, "exact")


def _behind_relu(value: ir.Value, moved: Mapping[ir.Node, str]) -> ir.Value:
    """The Relu's output where a Relu alone reads the value: rounding there is the same, and engines fuse the two."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != "Relu" or uses[0].node not in moved:
        return value
    return uses[0].node.outputs[0]
