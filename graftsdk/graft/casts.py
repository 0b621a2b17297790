"""Casts in a graph, and weights in another type: what the passes over types share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Names", "cast_behind", "hand_out", "set_weight"]


class Names:
    """Names that no value and no node of a graph has yet."""

    def __init__(self, graph: ir.Graph) -> None:
        self._taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
        for node in graph.all_nodes():
            self._taken |= {node.name, *(value.name for value in node.outputs)}

    def new(self, name: str) -> str:
        """`name`, or where that is taken, `name` with a number behind it; taken from now on."""
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}.{count}"
        self._taken.add(found)
        return found


def cast_behind(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
    """`value` in another type, by a Cast that stands right behind what makes it; node and value are named `name`."""
    import onnx_ir as ir

    node = ir.node("Cast", [value], {"to": int(dtype)}, name=name)
    made = node.outputs[0]
    made.name, made.dtype, made.shape = name, dtype, value.shape
    maker = value.producer()
    if maker is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(maker, node)
    return made


def hand_out(graph: ir.Graph, old: ir.Value, new: ir.Value, names: Names, ending: str) -> None:
    """Make `new` the output that `old` was, under its name; `old` is named `<name>/<ending>` from now on."""
    name = old.name or ""
    old.name = names.new(f"{name}/{ending}")
    new.name = name
    for place, value in enumerate(graph.outputs):
        if value is old:
            graph.outputs[place] = new


def set_weight(
    graph: ir.Graph, value: ir.Value, array: np.ndarray[Any, Any], names: Names, ending: str, *, whole: bool
) -> ir.Value:
    """An initialiser with the content of `array` instead.

    Args:
        ending: what its name ends in where it cannot take the place of `value`.
        whole: whether everything that reads `value` is to read the new one.
    """
    import onnx_ir as ir

    if whole and not value.is_graph_output():
        value.const_value = ir.Tensor(array, name=value.name)
        value.dtype = value.const_value.dtype
        return value
    name = names.new(f"{value.name}/{ending}")
    tensor = ir.Tensor(array, name=name)
    made = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(made)
    return made
