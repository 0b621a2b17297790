"""Pass: a model as bytes without its weights, and the weights beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.plan.onnx_part import serialise
from graftsdk.plan.part import EXTERNAL_BYTES

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["externalize"]


def externalize(model: ir.Model) -> tuple[bytes, dict[str, np.ndarray[Any, Any]]]:
    """The model's bytes, in which every initialiser of 1 KiB and more is external, and those initialisers.

    Requires: weights that can be viewed as numpy arrays; nothing is copied. Ensures: the model is as before.
    The external location names no file: a runtime is handed the arrays by name.

    Raises:
        PlanCorrupt: a part's graph holds something that cannot be written again.
    """
    import onnx_ir as ir

    weights: dict[str, np.ndarray[Any, Any]] = {}
    kept: dict[str, ir.TensorProtocol] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < EXTERNAL_BYTES:
            continue
        weights[name] = tensor.numpy()
        kept[name] = tensor
        value.const_value = ir.ExternalTensor(
            "weights",
            offset=0,
            length=tensor.nbytes,
            dtype=tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
        )
    try:
        content = serialise(model, "graft")
    finally:
        for name, tensor in kept.items():
            model.graph.initializers[name].const_value = tensor
    return content, weights
