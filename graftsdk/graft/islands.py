"""Which nodes of a graft are computed in a lower type: the one decision behind the casts and behind their emulation.

What is rounded depends on what stands before a node in its own part, never on what follows or on other parts. So a
trunk that is cut at another tap, alone or merged with its branches, rounds the same values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.errors import InputError, UnsupportedOp
from graftsdk.graft.externalize import externalize

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "FORMS",
    "Decision",
    "decide",
    "float_dtype",
    "float_inputs",
    "float_outputs",
    "holds",
    "is_constant",
    "part_of",
    "rounded_weight",
]

FORMS = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}
"""Precision -> the ONNX type's name."""

# Always: the products that the lower type is wanted for. Sums inside are kept in float32 by every engine we know.
_PRODUCTS = {"Conv", "ConvTranspose"}
# Only between values that are rounded already: what stands between convolutions. A pooling's own arithmetic starts
# with a float32 step (a mean, a scale, a product), and everything behind it up to the next convolution stays float32.
_BETWEEN = {"Add", "AveragePool", "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Sigmoid"}
# These choose values and compute none. Rounding commutes with them, so they may stand on either side of a cast.
_MOVES = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "GlobalMaxPool", "Identity", "MaxPool", "Pad", "Relu", "Reshape",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
# Everything else stays float32: Gemm, MatMul, ReduceMean, GlobalAveragePool, Softmax, Sqrt, Div, Exp, the norms, and
# every operator that is not known here. In fp16 an epsilon of 1e-12 is 0, and a mean over a map may pass 65504.
_REFUSED = {"fp16": set[str](), "bf16": {"ConvTranspose", "HardSwish"}}  # tensorrt_rtx 1.7.1 refuses them in bf16
_LARGEST_WINDOW = 25  # cells of an AveragePool; one over more is the mean of a map
_UNITS = {"Add", "Mul"}  # by a constant they scale or shift, as poolings and norms do: float32


@dataclass
class Decision:
    """What happens to the nodes of the parts that are lowered.

    Attributes:
        computed: node -> "fp16" or "bf16": its float inputs and its float outputs are rounded to that type.
        moved: node -> the same, of nodes that only move values: exact in whichever type they run.
        rounded: value -> the type that holds it without a loss, where that follows from the nodes before it.
    """

    computed: dict[ir.Node, str] = field(default_factory=dict)
    moved: dict[ir.Node, str] = field(default_factory=dict)
    rounded: dict[ir.Value, str] = field(default_factory=dict)


def decide(model: ir.Model, forms: Mapping[str, str]) -> Decision:
    """What `forms`, part -> "fp16" or "bf16", means for the model's nodes; nodes are named `<part>/...`.

    Requires: nodes in an order that computes. Ensures: every value whose type can be inferred has it.

    Raises:
        InputError: another precision. PlanCorrupt: the graph cannot be written.
    """
    for part, form in forms.items():
        if form not in FORMS:
            raise InputError(f"part {part}: expected the precision {' or '.join(FORMS)}, found {form!r}")
    found = Decision()
    if not forms:
        return found
    _infer_types(model)
    exact: dict[ir.Value, str] = {}  # value -> the part inside which it has more digits than the lower type
    for node in model.graph:
        part = part_of(node)
        if part not in forms:
            continue
        form = forms[part]
        kind = _kind(node, form)
        comes_in = [value for value in float_inputs(node) if not is_constant(value)]
        precise = any(exact.get(value) == part for value in comes_in)
        if kind == "between" and (precise or not comes_in):
            kind = "float32"
        if kind in ("product", "between"):
            found.computed[node] = form
            found.rounded.update(dict.fromkeys(float_outputs(node), form))
            continue
        if kind == "move":
            found.moved[node] = form
            kept = all(holds(value, form) for value in float_inputs(node) if is_constant(value))
            if kept and comes_in and all(found.rounded.get(value) == form for value in comes_in):
                found.rounded.update(dict.fromkeys(float_outputs(node), form))
            if kept and comes_in and not precise:
                continue
        exact.update(dict.fromkeys(float_outputs(node), part))
    return found


def float_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """The float32 values that a node reads."""
    return (value for value in node.inputs if value is not None and _is_float(value))


def float_outputs(node: ir.Node) -> Iterator[ir.Value]:
    """The float32 values that a node makes."""
    return (value for value in node.outputs if _is_float(value))


def float_dtype(form: str) -> ir.DataType:
    """The onnx_ir type of "fp16" or "bf16"."""
    import onnx_ir as ir

    return ir.DataType[FORMS[form]]


def is_constant(value: ir.Value) -> bool:
    """Whether a value is an initialiser with content."""
    return value.is_initializer() and value.const_value is not None


def part_of(node: ir.Node) -> str:
    """The part that a node came from: its name's first piece."""
    return (node.name or "").partition("/")[0]


def holds(value: ir.Value, form: str) -> bool:
    """Whether the lower type holds an initialiser's values without a loss."""
    assert value.const_value is not None  # asked of initialisers only
    array = value.const_value.numpy()
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array, array.astype(float_dtype(form).numpy()).astype(array.dtype)))


def rounded_weight(value: ir.Value, form: str) -> np.ndarray[Any, Any]:
    """An initialiser in the lower type, rounded to the nearest, ties to even.

    In fp16 numbers below 6.1e-5 lose digits and those below 3e-8 become 0; bf16 has float32's range.

    Raises:
        UnsupportedOp: a weight is beyond the type's range; names the part.
    """
    assert value.const_value is not None  # asked of initialisers only
    array = value.const_value.numpy()
    dtype = float_dtype(form).numpy()
    with np.errstate(over="ignore"):
        lowered = array.astype(dtype)
    if not np.isfinite(lowered).all():
        part, _, name = (value.name or "").partition("/")
        raise UnsupportedOp(
            f"part {part}: weight {name}: expected numbers that {form} can hold, found {np.abs(array).max():.6g}; "
            f"keep this part in float32{', or use bf16' if form == 'fp16' else ''}"
        )
    return lowered


def _kind(node: ir.Node, form: str) -> str:
    """What is done with a node, by the node alone: "product", "between", "move" or "float32"."""
    untyped = any(value.dtype is None for value in node.outputs if value.name)
    if node.domain or untyped or next(float_outputs(node), None) is None:
        return "float32"
    name = node.op_type
    constants = [value for value in float_inputs(node) if is_constant(value)]
    if name in _REFUSED[form]:
        return "float32"
    if name in _PRODUCTS:
        return "product" if next(iter(node.inputs), None) in set(float_inputs(node)) else "float32"
    if name in _MOVES:
        # The place of the largest value depends on digits that rounding takes away.
        several = name == "MaxPool" and len(node.outputs) > 1
        return "float32" if several else "move"
    if name not in _BETWEEN or (name in _UNITS and constants):
        return "float32"
    if name == "AveragePool":
        window = node.attributes.get_ints("kernel_shape")
        return "between" if window and math.prod(window) <= _LARGEST_WINDOW else "float32"
    if name == "Clip":
        bounds = [value for value in node.inputs[1:] if value is not None]
        return "between" if all(is_constant(value) and holds(value, form) for value in bounds) else "float32"
    return "between"


def _is_float(value: ir.Value) -> bool:
    import onnx_ir as ir

    return value.dtype == ir.DataType.FLOAT


def _infer_types(model: ir.Model) -> None:
    """Give every value of the graph its type; ONNX lets them go without. Shapes stay as they are."""
    import onnx
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        if value.dtype is None and value.const_value is not None:
            value.dtype = value.const_value.dtype
    bare = {value.name: value for node in model.graph for value in node.outputs if value.name and value.dtype is None}
    if not bare:
        return
    content, _ = externalize(model)
    try:
        proto = onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(content))
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return  # what has no type is not lowered
    for each in (*proto.graph.value_info, *proto.graph.output):
        kind = each.type.tensor_type.elem_type
        if each.name in bare and kind:
            bare[each.name].dtype = ir.DataType(kind)
