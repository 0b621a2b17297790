"""Small graphs for engines: a trunk with two taps, branches on them, the same merged; a segmenter with priors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graftsdk.engines import Graph

HERE = Path(__file__).parent
SIDE = 12
Model = onnx.ModelProto


def crops(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any]) -> Model:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _weight(name: str, *shape: int) -> onnx.TensorProto:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    scale = 1 / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else shape[0])
    return numpy_helper.from_array(
        (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32), name
    )


def trunk_nodes() -> tuple[list[Any], list[Any]]:
    weights = [_weight("t/w1", 16, 3, 3, 3), _weight("t/b1", 16), _weight("t/w2", 32, 16, 3, 3), _weight("t/b2", 32)]
    nodes = [
        helper.make_node("Conv", ["crops", "t/w1", "t/b1"], ["t/c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["t/c1"], ["t/tap_1"]),
        helper.make_node("Conv", ["t/tap_1", "t/w2", "t/b2"], ["t/c2"], strides=[2, 2]),
        helper.make_node("Relu", ["t/c2"], ["t/tap_2"]),
    ]
    return nodes, weights


def branch_nodes(name: str, tap: str, channels: int, classes: int = 2) -> tuple[list[Any], list[Any]]:
    weights = [
        _weight(f"{name}/w", 32, channels, 3, 3), _weight(f"{name}/b", 32),
        _weight(f"{name}/fc", classes, 32), _weight(f"{name}/fb", classes),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Conv", [tap, f"{name}/w", f"{name}/b"], [f"{name}/c"]),
        helper.make_node("Relu", [f"{name}/c"], [f"{name}/r"]),
        helper.make_node("GlobalAveragePool", [f"{name}/r"], [f"{name}/p"]),
        helper.make_node("Flatten", [f"{name}/p"], [f"{name}/f"]),
        helper.make_node("Gemm", [f"{name}/f", f"{name}/fc", f"{name}/fb"], [f"{name}/l"], transB=1),
        helper.make_node("Softmax", [f"{name}/l"], [f"{name}/scores"]),
    ]
    return nodes, weights


CROPS = value("crops", "n", 3, SIDE, SIDE)
TAPS = {"t/tap_1": (16, SIDE), "t/tap_2": (32, (SIDE - 3) // 2 + 1)}


def trunk_model() -> Model:
    nodes, weights = trunk_nodes()
    return model(nodes, [CROPS], [value(tap, "n", c, side, side) for tap, (c, side) in TAPS.items()], weights)


def branch_model(name: str, tap: str) -> Model:
    channels, side = TAPS[tap]
    nodes, weights = branch_nodes(name, f"{name}/tap", channels)
    return model(nodes, [value(f"{name}/tap", "n", channels, side, side)], [value(f"{name}/scores", "n", 2)], weights)


def merged_model(branches: dict[str, str]) -> Model:
    nodes, weights = trunk_nodes()
    for name, tap in branches.items():
        more_nodes, more_weights = branch_nodes(name, tap, TAPS[tap][0])
        nodes, weights = nodes + more_nodes, weights + more_weights
    return model(nodes, [CROPS], [value(f"{name}/scores", "n", 2) for name in branches], weights)


def segmenter_model(batch: int = 1) -> Model:
    """A fixed batch; one output with a row each, and priors, the same for all."""
    priors = numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(5, 4), "priors_w")
    nodes = [
        helper.make_node("ReduceMean", ["frames"], ["means"], keepdims=0),
        helper.make_node("Relu", ["frames"], ["rows"]),
        helper.make_node("Add", ["priors_w", "means"], ["priors"]),
    ]
    return model(
        nodes, [value("frames", batch, 3, 4, 4)], [value("rows", batch, 3, 4, 4), value("priors", 5, 4)], [priors]
    )


def reference(onnx_model: Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(out) for out in ReferenceEvaluator(onnx_model).run(None, feeds)]  # type: ignore[union-attr]


def graph(
    onnx_model: Model, inputs: dict[str, str] | None = None, *, on_load: Callable[[], object] = lambda: None
) -> Graph:
    """The model as an engine takes it; its key is the digest of its bytes. `on_load` is called with each load."""
    source = onnx_model.SerializeToString(deterministic=True)

    def load() -> tuple[bytes, dict[str, np.ndarray]]:
        on_load()
        return externalize(source)

    return Graph(
        key=hashlib.sha256(source).hexdigest(),
        inputs=inputs or {port.name: port.name for port in onnx_model.graph.input},
        outputs=tuple(port.name for port in onnx_model.graph.output),
        load=load,
    )


def externalize(source: bytes) -> tuple[bytes, dict[str, np.ndarray]]:
    found, tensors = onnx.ModelProto.FromString(source), {}
    for tensor in found.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes >= 1024:
            array.flags.writeable = False  # as the plan's mapped arrays are
            tensors[tensor.name] = array
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, text in (("location", "none"), ("offset", "0"), ("length", str(array.nbytes))):
                tensor.external_data.add(key=key, value=text)
    return found.SerializeToString(), tensors


BRANCHES = {"a": "t/tap_1", "b": "t/tap_2"}


def merged(on_load: Callable[[], object] = lambda: None) -> Graph:
    return graph(merged_model(BRANCHES), on_load=on_load)


def split() -> list[Graph]:
    branches = [graph(branch_model(name, tap), {f"{name}/tap": tap}) for name, tap in BRANCHES.items()]
    return [graph(trunk_model()), *branches]
