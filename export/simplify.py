"""Passes: the exporter's graph without what it needs for tracing only. Each looks at the structure, never at weights.

The exporter's own optimiser is not used: it drops biases that are all zero, so its graphs depend on the weights.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants

__all__ = ["simplify"]


def simplify(model: ir.Model) -> None:
    """Fold constants, drop identities and what nothing reads, fix every shape but the batch, give plain names.

    Requires: values know their shapes. Ensures: constants are initialisers; results are unchanged to the bit; inputs,
    outputs and weights keep their names.
    """
    passes.InlinePass()(model)
    passes.RemoveUnusedNodesPass()(model)  # first: statistics that BatchNorm would give in training need no folding
    fold_constants(model)
    _fix_reshapes(model.graph)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveUnusedOpsetsPass()(model)
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
        tensor = ir.Tensor(np.array([0, *rest], np.int64), name=f"{result.name}.shape")
        shape = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(shape)
        node.replace_input_with(1, shape)
        node.attributes.pop("allowzero", None)  # 0 copies the batch


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
