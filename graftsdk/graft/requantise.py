"""Pass: what a trunk dequantised and a branch quantises again, with the same scale, is handed on as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["drop_requantising"]


def drop_requantising(graph: ir.Graph) -> None:
    """Remove every QuantizeLinear of what was dequantised with its own scale and zero point.

    An INT8 branch quantises its tap with the trunk's own scale, so a graft holds one such pair for each branch, and a
    runtime keeps it, since the tap may be read by others. The numbers stay the same to the bit: (q - z) s / s, each
    step rounded to float32, is closer than 1/2 to q - z, which has 8 bits.

    Ensures: values keep their names; what nothing reads any more is gone.
    """
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        maker = None if source is None else source.producer()
        if node.op_type != "QuantizeLinear" or maker is None or maker.op_type != "DequantizeLinear":
            continue
        quantised = maker.inputs[0]
        if quantised is None or not _same(node, maker) or node.outputs[0].is_graph_output():
            continue
        node.outputs[0].replace_all_uses_with(quantised)
        graph.remove(node, safe=True)
        if not source.uses() and not source.is_graph_output():  # type: ignore[union-attr]
            graph.remove(maker, safe=True)


def _same(node: ir.Node, maker: ir.Node) -> bool:
    """Whether scale and zero point of the two are constants, and equal."""
    if len(node.inputs) != 3 or len(maker.inputs) != 3:
        return False
    for own, other in zip(node.inputs[1:], maker.inputs[1:], strict=True):
        if own is None or other is None or own.const_value is None or other.const_value is None:
            return False
        mine, theirs = own.const_value.numpy(), other.const_value.numpy()
        if mine.dtype != theirs.dtype or not np.array_equal(mine, theirs):
            return False
    return True
