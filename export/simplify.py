"""Passes: the exporter's graph without what it needs for tracing only. Each looks at the structure, never at weights.

The exporter's own optimiser is not used: it drops biases that are all zero, so its graphs depend on the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants

__all__ = ["simplify"]


def simplify(model: ir.Model) -> None:
    """Fold constants, drop identities and what nothing reads, fix every shape but the batch, give plain names.

    Requires: values know their shapes. Ensures: constants are initialisers; inputs, outputs and weights keep their
    names; results are unchanged to the bit, but for sums that depended on the batch.
    """
    passes.InlinePass()(model)
    passes.RemoveUnusedNodesPass()(model)  # first: statistics that BatchNorm would give in training need no folding
    fold_constants(model)
    _fix_reshapes(model.graph)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveUnusedOpsetsPass()(model)
    _steady_sums(model.graph)
    _steady_shortcuts(model.graph)
    _rename(model.graph)


def _fix_reshapes(graph: ir.Graph) -> None:
    """Reshape computes its shape at run time although only the batch is free: give it a constant, 0 for the batch."""
    for node in list(graph):
        if node.op_type != "Reshape" or node.inputs[1] is None or node.inputs[1].const_value is not None:
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None or source.shape is None or result.shape is None or source.shape[0] != result.shape[0]:
            continue
        rest = list(result.shape)[1:]
        if not all(isinstance(side, int) for side in rest):
            continue
        shape = _constant(graph, f"{result.name}.shape", np.array([0, *rest], np.int64))
        node.replace_input_with(1, shape)
        node.attributes.pop("allowzero", None)  # 0 copies the batch


def _steady_sums(graph: ir.Graph) -> None:
    """Sum over the last axis, or the last but one, by a product of ones with each crop's own matrix.

    ONNX Runtime's ReduceSum adds in an order that depends on the batch (measured with 1.32 on bilinear pooling's sums:
    5e-6 between batch 1 and 8); its products of one matrix a crop do not.
    """
    for node in list(graph):
        source, axis = node.inputs[0], _summed_axis(node)
        if source is None or source.shape is None or axis is None:
            continue
        count = source.shape[axis]
        assert isinstance(count, int)  # _summed_axis looked
        name, last = node.outputs[0].name, axis == len(source.shape) - 1
        nodes: list[ir.Node] = []
        if last:  # [.., C] -> [.., C, 1]
            nodes.append(ir.Node("", "Unsqueeze", [source, _constant(graph, f"{name}.open", np.array([-1], np.int64))]))
        ones = _constant(graph, f"{name}.ones", np.ones((1, count), np.float32))
        nodes.append(
            ir.Node("", "MatMul", [ones, nodes[-1].outputs[0] if last else source])
        )  # [.., 1, 1] or [.., 1, P]
        keep = node.attributes.get("keepdims")
        closed = [-1] if last else []
        if keep is not None and keep.as_int() == 0:
            closed.append(-2)
        if closed:
            axes = _constant(graph, f"{name}.close", np.array(closed, np.int64))
            nodes.append(ir.Node("", "Squeeze", [nodes[-1].outputs[0], axes]))
        nodes[-1].outputs[0].shape, nodes[-1].outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, node.outputs, nodes[-1].outputs)
    for unused in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[unused]


def _summed_axis(node: ir.Node) -> int | None:
    """The axis of a ReduceSum over one of the last two, of fixed length while the batch is another; else None."""
    source, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type != "ReduceSum" or source is None or source.shape is None or axes is None:
        return None
    if axes.const_value is None or axes.const_value.size != 1:
        return None
    rank = len(source.shape)
    axis = int(axes.const_value.numpy().ravel()[0]) % rank
    return axis if axis >= max(1, rank - 2) and isinstance(source.shape[axis], int) else None


def _steady_shortcuts(graph: ir.Graph) -> None:
    """An input that a residual Add reads goes through a maximum over one cell first, which is the input itself.

    ONNX Runtime adds a shortcut inside the convolution before it, in another order, if the shortcut is in its blocked
    layout: a tap is where trunk and branch share a graph, an input of a branch alone is not, so the two differed in
    the last bit (measured with 1.32 on resnet18). Pooling brings either into that layout.
    """
    for source in list(graph.inputs):
        adds = [node for node, _ in source.uses() if node.op_type == "Add"]
        if not adds or source.shape is None or len(source.shape) != 4:
            continue
        pool = ir.node("MaxPool", [source], {"kernel_shape": [1, 1]})
        pool.outputs[0].shape, pool.outputs[0].type = source.shape, source.type
        for node in adds:
            for place, value in enumerate(node.inputs):
                if value is source:
                    node.replace_input_with(place, pool.outputs[0])
        graph.insert_before(graph[0], pool)


def _constant(graph: ir.Graph, name: str, array: np.ndarray[Any, np.dtype[Any]]) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _rename(graph: ir.Graph) -> None:
    """Name nodes and values by operator and position: the exporter's numbers count what else it looked at."""
    outputs = set(graph.outputs)
    for index, node in enumerate(graph):
        node.name = f"{node.op_type}_{index}"
        for place, value in enumerate(node.outputs):
            if value not in outputs:
                value.name = node.name if place == 0 else f"{node.name}:{place}"
    constants = [value for value in graph.initializers.values() if not _is_weight(value)]
    for value in constants:
        del graph.initializers[value.name or ""]
    for index, value in enumerate(constants):
        value.name = f"constant_{index}"
        if value.const_value is not None:
            value.const_value.name = value.name
        graph.initializers.add(value)


def _is_weight(value: ir.Value) -> bool:
    """Whether an initialiser came from the module: the exporter gives those a torch tensor, here without content."""
    return value.const_value is not None and getattr(getattr(value.const_value, "raw", None), "is_meta", False)
