"""Pass: a BatchNormalization behind a convolution becomes part of the convolution's weights and bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["fold_batch_norms"]

_Array = np.ndarray[Any, np.dtype[Any]]


def fold_batch_norms(graph: ir.Graph) -> None:
    """Fold every BatchNormalization whose input is a convolution that nothing else reads.

    y = (conv(x) + b - mean) * s + beta with s = gamma / sqrt(variance + epsilon) is a convolution with the weights
    W * s and the bias (b - mean) * s + beta, computed in float64 and rounded once.

    Requires: initialisers with values. Ensures: a new bias is named `<convolution>.bias`; any other
    BatchNormalization stays as it is, which is exact too.
    """
    for norm in list(graph):
        if norm.op_type == "BatchNormalization":
            _fold(graph, norm)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def _fold(graph: ir.Graph, norm: ir.Node) -> None:
    joint = norm.inputs[0]
    convolution = None if joint is None else joint.producer()
    if joint is None or convolution is None or convolution.op_type != "Conv":
        return
    weight = convolution.inputs[1]
    if len(joint.uses()) != 1 or joint.is_graph_output() or weight is None or len(weight.uses()) != 1:
        return
    inputs = (weight, *convolution.inputs[2:3], *norm.inputs[1:5])
    if any(value is None or value.const_value is None for value in inputs):
        return
    with np.errstate(all="ignore"):  # an overflow becomes an infinity, which is refused by name
        folded, bias = _folded(convolution, norm)
    weight.const_value = ir.Tensor(folded, name=weight.name)
    _set_bias(graph, convolution, (weight.name or "").removesuffix("weight") + "bias", bias)
    norm.outputs[0].replace_all_uses_with(joint, replace_graph_outputs=True)
    name = norm.outputs[0].name
    graph.remove(norm, safe=True)
    joint.name = name


def _folded(convolution: ir.Node, norm: ir.Node) -> tuple[_Array, _Array]:
    """float32: the convolution's new weights and bias."""
    weight = _wide(convolution.inputs[1])
    gamma, beta, mean, variance = (_wide(value) for value in norm.inputs[1:5])
    attribute = norm.attributes.get("epsilon")
    scale = gamma / np.sqrt(variance + (1e-5 if attribute is None else attribute.as_float()))
    before = _wide(convolution.inputs[2]) if len(convolution.inputs) > 2 else np.zeros(len(scale))
    wide = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return wide.astype(np.float32), ((before - mean) * scale + beta).astype(np.float32)


def _set_bias(graph: ir.Graph, convolution: ir.Node, name: str, array: _Array) -> None:
    while name in graph.initializers:  # its old bias, or one that another convolution reads too
        name += ".folded"
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.initializers.add(value)
    convolution.resize_inputs(3)
    convolution.replace_input_with(2, value)


def _wide(value: ir.Value | None) -> _Array:
    """float64: an initialiser's content."""
    assert value is not None and value.const_value is not None  # checked by _fold
    wide: _Array = value.const_value.numpy().astype(np.float64)
    return wide
