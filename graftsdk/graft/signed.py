"""Pass: INT8 as ONNX Runtime's quantiser writes it -> INT8 as TensorRT takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.errors import UnsupportedOp
from graftsdk.graft.casts import Names

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["make_signed"]

_Array = np.ndarray[Any, np.dtype[Any]]
_KEEP_SIGN = {"Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape", "Transpose"}


def make_signed(model: ir.Model) -> None:
    """Quantise activations to int8 around 0 where they are uint8 around a zero point; biases become float32.

    An activation's scale becomes max(|lo|, |hi|) / 127 of the range [lo, hi] that it had, so what was 0 to hi has half
    as many steps. Weights, int8 with one scale a channel, stay. A float32 bias is its int32 times its scale, named as
    the value that it was dequantised to.

    Requires: QuantizeLinear and DequantizeLinear with constant scales, one for each activation. Ensures: every zero
    point is int8 and 0; other nodes, and the names of values and weights, stay. Where lo is 0 the quantiser left a Relu
    to the saturation of uint8, and a Relu stands there again; a Clip that it left out at another lower bound is not
    restored. A graph without quantised values is left as it is.

    Raises:
        UnsupportedOp: something else than that form; names the node.
    """
    graph = model.graph
    names = Names(graph)
    pairs: dict[tuple[ir.Value, ir.Value | None], tuple[ir.Value, ir.Value]] = {}
    was_read: dict[ir.Value, None] = {}
    positive: set[ir.Value] = set()  # values that are at least 0
    for node in list(graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            if _stays_positive(node, positive):
                positive.update(node.outputs)
            continue
        was_read.update((value, None) for value in node.inputs if value is not None and value.is_initializer())
        source = node.inputs[0]
        if node.op_type == "DequantizeLinear" and source is not None and source.is_initializer():
            if _content(node, 0).dtype != np.int8:
                _fold(graph, node)
            elif _zero_point(node).any():
                raise _odd(node, "weights around 0", "another zero point")
            continue
        if node.op_type == "QuantizeLinear":
            _check_readers(node)
            if _range(node)[0] == 0 and source not in positive:
                positive.add(_insert_relu(graph, node, names))
            node.outputs[0].dtype = _int8()
        elif source is None or (maker := source.producer()) is None or maker.op_type != "QuantizeLinear":
            raise _odd(node, "what a QuantizeLinear made", "something else")
        if node.inputs[0] in positive:
            positive.update(node.outputs)
        _set_scale(graph, node, pairs, names)
    for value in was_read:
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[value.name or ""]


def _set_scale(
    graph: ir.Graph,
    node: ir.Node,
    pairs: dict[tuple[ir.Value, ir.Value | None], tuple[ir.Value, ir.Value]],
    names: Names,
) -> None:
    """Give a node the signed form of its scale and zero point: one for all nodes that had the same two."""
    scale, point = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert scale is not None  # _range looked, of this node or of the one before it
    if (scale, point) not in pairs:
        low, high = _range(node)
        content = np.array(max(-low, high) / 127, np.float32)
        zero = np.array(0, np.int8)
        pairs[scale, point] = (
            _constant(graph, names.new(f"{scale.name}/signed"), content),
            _constant(graph, names.new(f"{(point or scale).name}/zero"), zero),
        )
    node.resize_inputs(3)
    for place, value in enumerate(pairs[scale, point], start=1):
        node.replace_input_with(place, value)


def _range(node: ir.Node) -> tuple[float, float]:
    """The least and the largest number that a node's quantised values stand for. Raises UnsupportedOp."""
    scale, point = _content(node, 1), _zero_point(node)
    if scale.size != 1 or point.size != 1:
        raise _odd(node, "one scale for an activation", f"{scale.size}")
    if point.dtype not in (np.uint8, np.int8):
        raise _odd(node, "activations in uint8 or int8", f"{point.dtype}")
    limits = np.iinfo(point.dtype)
    step, middle = float(scale.ravel()[0]), int(point.ravel()[0])
    if not 0 < step < np.inf:
        raise _odd(node, "a scale above 0", f"{step}")
    return (limits.min - middle) * step, (limits.max - middle) * step


def _zero_point(node: ir.Node) -> _Array:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return _content(node, 2)
    source = node.inputs[0]
    if node.op_type == "DequantizeLinear" and source is not None and source.const_value is not None:
        return np.zeros(1, source.const_value.numpy().dtype)
    return np.zeros(1, np.uint8)  # the default of QuantizeLinear


def _content(node: ir.Node, place: int) -> _Array:
    value = node.inputs[place]
    if value is None or value.const_value is None:
        raise _odd(node, "constant scales and zero points", "computed ones")
    found: _Array = value.const_value.numpy()
    return found


def _fold(graph: ir.Graph, node: ir.Node) -> None:
    """A constant that is dequantised at run time -> a float32 initialiser of the dequantised value's name."""
    numbers, scale, point = _content(node, 0), _content(node, 1), _zero_point(node)
    if scale.size > 1:
        attribute = node.attributes.get("axis")
        axis = 1 if attribute is None else attribute.as_int()
        if not -numbers.ndim <= axis < numbers.ndim or numbers.shape[axis] != scale.size:
            raise _odd(node, f"a scale for each of {numbers.shape}", f"{scale.size}")
        sides = [1] * numbers.ndim
        sides[axis] = -1
        scale, point = scale.reshape(sides), point.reshape(sides) if point.size > 1 else point
    content = (numbers.astype(np.float64) - point.astype(np.float64)) * scale.astype(np.float64)
    old = node.outputs[0]
    name = old.name or ""
    old.name = f"{name}/dequantised"  # until it is gone
    made = _constant(graph, name, content.reshape(numbers.shape).astype(np.float32))
    old.replace_all_uses_with(made, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _check_readers(node: ir.Node) -> None:
    for use in node.outputs[0].uses():
        if use.node.op_type != "DequantizeLinear":
            raise _odd(use.node, "only DequantizeLinear to read quantised values", use.node.op_type)
    if node.outputs[0].is_graph_output():
        raise _odd(node, "float32 outputs", "a quantised one")


def _stays_positive(node: ir.Node, positive: set[ir.Value]) -> bool:
    """Whether what a node makes is at least 0, as far as that is known."""
    if node.op_type in ("Relu", "Sigmoid", "HardSigmoid"):
        return True
    data = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return node.op_type in _KEEP_SIGN and all(value in positive for value in data)


def _insert_relu(graph: ir.Graph, node: ir.Node, names: Names) -> ir.Value:
    import onnx_ir as ir

    source = node.inputs[0]
    assert source is not None  # QuantizeLinear has one
    name = names.new(f"{source.name}/relu")
    relu = ir.node("Relu", [source], name=name)
    made = relu.outputs[0]
    made.name, made.shape, made.type = name, source.shape, source.type
    node.replace_input_with(0, made)
    graph.insert_before(node, relu)
    return made


def _constant(graph: ir.Graph, name: str, array: _Array) -> ir.Value:
    import onnx_ir as ir

    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _int8() -> ir.DataType:
    import onnx_ir as ir

    return ir.DataType.INT8


def _odd(node: ir.Node, expected: str, found: str) -> UnsupportedOp:
    return UnsupportedOp(
        f"{node.op_type} {node.name}: expected {expected}, found {found}; "
        f"lower the plan again with `graftsdk quantize`, or leave it float32"
    )
