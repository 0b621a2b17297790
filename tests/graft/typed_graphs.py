"""Random small grafts, and a slow reference that computes any typed graph node by node.

A node computes in float32 and rounds once to the type that its output has. What it reads must be of one type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graftsdk.plan.onnx_part import IR_VERSION, OPSET

SHAPE = (4, 6, 6)
FLOATS = {np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)}
FORMS = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
OPS = (
    "conv", "conv", "conv", "relu", "add", "mul", "concat", "same", "maxpool", "meanpool", "widepool", "hardswish",
    "sigmoid", "clip", "epsilon", "prelu", "scale", "root", "erf", "gate", "fold",
)  # fmt: skip
Step = tuple[str, int, int]


@dataclass(frozen=True)
class Recipe:
    """Steps (operator, which earlier values) of a trunk `t` and of two branches, `a` and `b`, on its last value."""

    trunk: Sequence[Step]
    a: Sequence[Step]
    b: Sequence[Step]


steps = st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=7)
recipes = st.builds(Recipe, steps, steps, steps)


class Writer:
    """Writes steps as nodes; every value is [n, *SHAPE]."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def part(self, name: str, steps: Sequence[Step], entry: str, result: str) -> None:
        values = [entry]
        for index, (op, first, second) in enumerate(steps):
            out = f"{name}/{result}" if index == len(steps) - 1 else f"{name}/{index}"
            self._step(name, op, values[first % len(values)], values[second % len(values)], out, first % 2)
            values.append(out)

    def _step(self, part: str, op: str, x: str, y: str, out: str, which: int) -> None:
        def node(kind: str, inputs: Sequence[str], output: str = out, **attributes: Any) -> str:
            self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}.{kind}", **attributes))
            return output

        def weight(name: str, shape: Sequence[int], size: float = 0.3) -> str:
            name = f"{part}/{name}"
            seed = sum(name.encode())
            self.weights[name] = (np.random.default_rng(seed).normal(size=shape) * size).astype(np.float32)
            return name

        def constant(name: str, *values: float, dtype: Any = np.float32) -> str:
            name = f"{part}/{name}"
            self.weights[name] = np.array(values[0] if len(values) == 1 else values, dtype)
            return name

        if op == "conv":
            node("Conv", [x, weight(f"w{which}", (4, 4, 3, 3), 0.2), weight("bias", (4,))], pads=[1] * 4)
        elif op == "concat":
            node("Concat", [x, y], f"{out}.both", axis=1)
            node("Conv", [f"{out}.both", weight("squeeze", (4, 8, 1, 1), 0.4)])
        elif op in ("add", "mul"):
            node(op.capitalize(), [x, y])
        elif op == "same":  # as the exporter writes it before a residual Add
            node("MaxPool", [x], kernel_shape=[1, 1])
        elif op == "maxpool":
            node("MaxPool", [x], kernel_shape=[3, 3], pads=[1] * 4)
        elif op == "meanpool":
            node("AveragePool", [x], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
        elif op == "widepool":
            node("AveragePool", [x], kernel_shape=[7, 7], pads=[3] * 4, count_include_pad=1)
        elif op == "clip":
            node("Clip", [x, constant("zero", 0.0), constant("six", 6.0)])
        elif op == "epsilon":
            node("Clip", [x, constant("tiny", 1e-12)])
        elif op == "prelu":
            node("PRelu", [x, weight("slopes", (4, 1, 1))])
        elif op == "scale":  # by the same numbers as PRelu: one initialiser for a lowered and for a float32 node
            node("Mul", [x, weight("slopes", (4, 1, 1))])
        elif op == "root":
            node("Sqrt", [node("Abs", [x], f"{out}.abs")])
        elif op == "gate":
            mean = node("ReduceMean", [x, constant("sides", 2, 3, dtype=np.int64)], f"{out}.mean", keepdims=1)
            inner = node("Conv", [mean, weight("inner", (4, 4, 1, 1))], f"{out}.inner")
            node("Mul", [x, node("HardSigmoid", [inner], f"{out}.gate")])
        elif op == "fold":
            flat = node("Reshape", [x, constant("flat", 0, 4, 36, dtype=np.int64)], f"{out}.flat")
            turned = node("Transpose", [flat], f"{out}.turned", perm=[0, 2, 1])
            node("Reshape", [turned, constant("map", 0, 4, 6, 6, dtype=np.int64)])
        else:
            node({"relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid", "erf": "Erf"}[op], [x])

    def model(self, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
        def info(name: str) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *SHAPE])

        weights = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, "g", [info(name) for name in inputs], [info(name) for name in outputs],
                                  weights)  # fmt: skip
        return ir.from_proto(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        )


def merged(recipe: Recipe) -> ir.Model:
    """Trunk and branches in one graph: `crops` -> `t/tap`, `a/scores`, `b/scores`."""
    writer = Writer()
    writer.part("t", recipe.trunk, "crops", "tap")
    writer.part("a", recipe.a, "t/tap", "scores")
    writer.part("b", recipe.b, "t/tap", "scores")
    return writer.model(["crops"], ["t/tap", "a/scores", "b/scores"])


def split(recipe: Recipe) -> list[tuple[ir.Model, str, str]]:
    """The same as three graphs, each with the value that it is fed with and the one it gives."""
    found = []
    for name, steps, entry, result in (
        ("t", recipe.trunk, "crops", "tap"), ("a", recipe.a, "a/tap", "scores"), ("b", recipe.b, "b/tap", "scores")
    ):  # fmt: skip
        writer = Writer()
        writer.part(name, steps, entry, result)
        found.append((writer.model([entry], [f"{name}/{result}"]), entry, f"{name}/{result}"))
    return found


def evaluate(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of the graph; asserts that each node reads floats of one type only."""
    values: dict[str, np.ndarray] = dict(feeds)
    for name, value in model.graph.initializers.items():
        values[name] = value.const_value.numpy()  # type: ignore[union-attr]
    for node in model.graph:
        read = [values[value.name or ""] if value is not None else None for value in node.inputs]
        kinds = {array.dtype for array in read if array is not None and array.dtype in FLOATS}
        assert len(kinds) == 1, f"{node.name} reads {kinds}"
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        wide = [array.astype(np.float32) if array is not None and array.dtype in FLOATS else array for array in read]
        with np.errstate(all="ignore"):
            made = _COMPUTE[node.op_type](*wide, **attributes)
            kind = ir.DataType(attributes["to"]).numpy() if node.op_type == "Cast" else kinds.pop()
            assert node.outputs[0].dtype in (None, ir.DataType.from_numpy(kind)), node.name
            values[node.outputs[0].name or ""] = made.astype(kind)
    return {value.name or "": values[value.name or ""] for value in model.graph.outputs}


def _windows(x: np.ndarray, sides: Sequence[int], pads: Sequence[int], filler: float) -> np.ndarray:
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=filler)
    return np.lib.stride_tricks.sliding_window_view(padded, tuple(sides), axis=(2, 3))


def convolve(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, pads: Sequence[int] = (0,) * 4) -> np.ndarray:
    """float32[n, o, h, w] of x[n, c, h, w] and w[o, c, i, j], stride 1."""
    made = np.einsum("nchwij,ocij->nohw", _windows(x, w.shape[2:], pads, 0), w)
    return made if b is None else made + b[:, None, None]


def _pool(reduce: Any, filler: float) -> Callable[..., np.ndarray]:
    def compute(x: np.ndarray, kernel_shape: Sequence[int], pads: Sequence[int] = (0,) * 4, **_: int) -> np.ndarray:
        return reduce(_windows(x, kernel_shape, pads, filler), axis=(4, 5))

    return compute


def _reshape(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x.reshape([x.shape[place] if side == 0 else side for place, side in enumerate(shape)])


_THIRD, _HALF = np.float32(1 / 6), np.float32(0.5)
_COMPUTE: dict[str, Callable[..., np.ndarray]] = {
    "Abs": np.abs,
    "Add": np.add,
    "AveragePool": _pool(np.mean, 0.0),
    "Cast": lambda x, to: x,
    "Clip": lambda x, low=-np.inf, high=np.inf: np.minimum(np.maximum(x, low), high),
    "Concat": lambda *arrays, axis: np.concatenate(arrays, axis),
    "Conv": convolve,
    "Erf": lambda x: np.tanh(x),  # something of one argument: what it is plays no part
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdims=True),
    "HardSigmoid": lambda x: np.clip(np.float32(0.2) * x + _HALF, 0, 1),
    "HardSwish": lambda x: x * np.clip(x * _THIRD + _HALF, 0, 1),
    "MaxPool": _pool(np.max, -np.inf),
    "Mul": np.multiply,
    "PRelu": lambda x, slope: np.where(x < 0, x * slope, x),
    "ReduceMean": lambda x, axes, keepdims: x.mean(tuple(axes), keepdims=True),
    "Relu": lambda x: np.maximum(x, 0),
    "Reshape": _reshape,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Sqrt": np.sqrt,
    "Transpose": lambda x, perm: x.transpose(perm),
}
