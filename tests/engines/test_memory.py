"""A warm engine maps its weights: other processes share the pages, and they are resident once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import numpy as np
import pytest
from engine_graphs import crops, graph, model, value
from onnx import helper, numpy_helper

from graftsdk.engines import Graph, open_engine

CHANNELS, CONVS, GEMMS = 512, 5, 8


def heavy() -> Graph:
    """64 MB of weights in convolutions and matrices."""
    rng = np.random.default_rng(0)
    shapes = [(CHANNELS, 3, 3, 3), *[(CHANNELS, CHANNELS, 3, 3)] * CONVS]
    weights, nodes, last = [], [], "crops"
    for i, shape in enumerate(shapes):
        weights.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.01, f"w{i}"))
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        last = f"r{i}"
    nodes += [helper.make_node("GlobalAveragePool", [last], ["p"]), helper.make_node("Flatten", ["p"], ["g"])]
    last = "g"
    for i in range(GEMMS):
        shape = (2 * CHANNELS, 2 * CHANNELS) if 0 < i < GEMMS - 1 else (CHANNELS, 2 * CHANNELS)[:: -1 if i else 1]
        weights.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.03, f"m{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"m{i}"], [f"y{i}"]))
        last = f"y{i}"
    nodes.append(helper.make_node("Softmax", [last], ["scores"]))
    return graph(model(nodes, [value("crops", "n", 3, 12, 12)], [value("scores", "n", CHANNELS)], weights))


MEASURE = """
import os
from graftsdk.engines import Graph, open_engine
from graftsdk.engines.onnxruntime import version
import numpy as np
version()
def resident(kind):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))
def load():
    raise AssertionError("loaded")
total, mapped = resident("VmRSS"), resident("RssFile")
engine = open_engine([Graph({key!r}, {{"crops": "crops"}}, ("scores",), load)], device="cpu", threads=2)
engine.run({{"crops": np.ones((1, 3, 12, 12), np.float32)}})
print(resident("VmRSS") - total, resident("RssFile") - mapped)
"""


def test_resident_memory_after_the_first_result(python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    heavy_graph = heavy()
    weights = sum(array.nbytes for array in heavy_graph.load()[1].values())
    conv_weights = CONVS * CHANNELS * CHANNELS * 9 * 4
    open_engine([heavy_graph], device="cpu").close()
    growth, mapped = map(int, python(MEASURE.format(key=heavy_graph.key)).stdout.split())
    assert growth <= 1.5 * weights
    assert mapped >= 0.9 * conv_weights, "the weights of convolutions are not mapped"


@pytest.mark.parametrize("count", [1, 3])
def test_mapped_weights_give_the_bits_of_those_in_memory(count: int) -> None:
    heavy_graph = heavy()
    with (
        open_engine([heavy_graph], device="cpu") as mapped,
        open_engine([heavy_graph], device="cpu", cache=False) as own,
    ):
        one, other = (engine.run({"crops": crops(count)})["scores"] for engine in (mapped, own))
    assert one.tobytes() == other.tobytes()
