"""Pass: parts of a graft in fp16 or bf16, with casts where types meet; what is lowered, `islands` decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graftsdk.graft.casts import Names, cast_behind, hand_out, set_weight
from graftsdk.graft.islands import (
    Decision,
    decide,
    float_dtype,
    float_inputs,
    float_outputs,
    holds,
    is_constant,
    part_of,
    rounded_weight,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["lower_floats"]

# The first opset whose Conv and pools know bfloat16. TensorRT takes bf16 at 18 too, but no checker and no strict type
# inference does, so nothing could be proven of such a model. From 18 to 22 one operator changed its meaning.
_BF16_OPSET = 22
_CHANGED = "GroupNormalization"


def lower_floats(model: ir.Model, forms: Mapping[str, str]) -> None:
    """Compute the parts that `forms` names, part -> "fp16" or "bf16", in that type, but for islands in float32.

    Requires: nodes, values and initialisers named `<part>/...`, as `graft_group` does. Ensures: inputs and outputs of
    the graph keep their names and float32; a value is cast at most once to each type; the cast is named
    `<value>/fp16`, `<value>/bf16` or `<value>/float32`, as is a lowered output before its cast; weights of lowered
    nodes are stored lowered, under their own names unless a float32 node reads them too. A graph with bf16 inside is
    of opset 22.

    Raises:
        InputError: another precision. UnsupportedOp: a weight that the type cannot hold; names the part.
    """
    import onnx_ir as ir

    graph = model.graph
    decision = decide(model, forms)
    low, held = _types(graph, decision)
    inputs = [
        (node, place, value, low.get(node))
        for node in graph
        for place, value in enumerate(node.inputs)
        if value is not None and value in set(float_inputs(node)) and low.get(node) != held.get(value)
    ]
    for value in held:  # what a subgraph reads from outside
        inputs += [(use.node, use.idx, value, None) for use in value.uses() if use.node.graph is not graph]
    for value, form in held.items():
        value.dtype = float_dtype(form)
    names = Names(graph)
    made: dict[tuple[ir.Value, str | None], ir.Value] = {}

    def converted(value: ir.Value, form: str | None) -> ir.Value:
        """The value in a type, by way of float32 from one low type to another."""
        if held.get(value) == form:
            return value
        if (value, form) not in made:
            if is_constant(value) and form is not None:
                whole = all(low.get(use.node) == form for use in value.uses())
                made[value, form] = set_weight(graph, value, rounded_weight(value, form), names, form, whole=whole)
            else:
                source = value if form is None else converted(value, None)
                dtype = ir.DataType.FLOAT if form is None else float_dtype(form)
                made[value, form] = cast_behind(graph, source, dtype, names.new(f"{value.name}/{form or 'float32'}"))
        return made[value, form]

    for value in list(graph.outputs):
        if value in held:
            hand_out(graph, value, converted(value, None), names, held[value])
    for node, place, value, wanted in inputs:
        node.replace_input_with(place, converted(value, wanted))
    if "bf16" in low.values() and all(node.op_type != _CHANGED for node in graph.all_nodes()):
        graph.opset_imports[""] = max(graph.opset_imports[""], _BF16_OPSET)


def _types(graph: ir.Graph, decision: Decision) -> tuple[dict[ir.Node, str], dict[ir.Value, str]]:
    """The nodes that run in a low type, and the values that are then of that type.

    A node that only moves values runs low where its inputs are, or where everything behind it rounds them anyhow and
    at least one of them is low or comes from outside its part: so that no cast is needed on either side.
    """
    rounds = _rounded_behind(graph, decision)
    low = dict(decision.computed)
    held: dict[ir.Value, str] = {}
    for node in graph:
        if node in decision.moved:
            form = decision.moved[node]
            data = [value for value in float_inputs(node) if not is_constant(value)]
            kept = all(holds(value, form) for value in float_inputs(node) if is_constant(value))
            near = any(held.get(value) == form or _comes_from_outside(value, node) for value in data)
            behind = all(rounds.get(value) == form for value in float_outputs(node))
            if (data and kept and all(held.get(value) == form for value in data)) or (behind and near):
                low[node] = form
        if node in low:
            held.update(dict.fromkeys(float_outputs(node), low[node]))
    return low, held


def _comes_from_outside(value: ir.Value, node: ir.Node) -> bool:
    maker = value.producer()
    return maker is None or part_of(maker) != part_of(node)


def _rounded_behind(graph: ir.Graph, decision: Decision) -> dict[ir.Value, str]:
    """Values that everything which reads them rounds to one type, and that type."""
    found: dict[ir.Value, str] = {}
    for node in reversed(graph):
        for value in node.outputs:
            forms = {_rounds_to(use.node, decision, found) for use in value.uses()}
            form = forms.pop() if len(forms) == 1 and not value.is_graph_output() else None
            if form is not None:
                found[value] = form
    return found


def _rounds_to(node: ir.Node, decision: Decision, found: dict[ir.Value, str]) -> str | None:
    """The type that a node, or everything behind it where it only moves values, rounds its inputs to."""
    form = decision.moved.get(node)
    if form is None:
        return decision.computed.get(node)
    return form if all(found.get(value) == form for value in float_outputs(node)) else None
