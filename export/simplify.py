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
    """Sum over the last axis but one by a product with ones.

    ONNX Runtime's ReduceSum over a middle axis adds in an order that depends on the batch (measured with 1.32, 5e-6 of
    bilinear pooling's sums at batch 1 against 8); its matrix product and its sums over last axes do not.
    """
    for node in list(graph):
        source, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
        if node.op_type != "ReduceSum" or source is None or source.shape is None or axes is None:
            continue
        rank, constant = len(source.shape), axes.const_value
        if rank < 3 or constant is None or [int(axis) % rank for axis in constant.numpy().ravel()] != [rank - 2]:
            continue
        count, keep = source.shape[rank - 2], node.attributes.get("keepdims")
        if not isinstance(count, int):
            continue
        ones = _constant(graph, f"{node.outputs[0].name}.ones", np.ones((1, count), np.float32))
        nodes = [ir.Node("", "MatMul", [ones, source])]
        if keep is not None and keep.as_int() == 0:
            axis = _constant(graph, f"{node.outputs[0].name}.axis", np.array([-2], np.int64))
            nodes.append(ir.Node("", "Squeeze", [nodes[0].outputs[0], axis]))
        nodes[-1].outputs[0].shape, nodes[-1].outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, node.outputs, nodes[-1].outputs)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


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
