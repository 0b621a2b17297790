"""Interleaved timing: every case once a round, in a shuffled order, so that a noisy minute hits all of them."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graftsdk import _native

PAUSE = 0.02  # seconds before a timed call: threads of the call before it come to rest


@dataclass(frozen=True)
class Times:
    """Seconds of one case."""

    all: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.all)

    @property
    def median(self) -> float:
        return statistics.median(self.all)


def interleave(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Times of each case over `rounds` rounds, after one untimed call of each."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for run in cases.values():
        run()
    order = list(cases)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            time.sleep(PAUSE)
            started = time.perf_counter()
            cases[name]()
            found[name].append(time.perf_counter() - started)
    return {name: Times(tuple(values)) for name, values in found.items()}


def table(times: Mapping[str, Times], unit: str, per: int, base: str) -> str:
    """Milliseconds (divided by `per`) and the ratio to `base`, by minimum and by median."""
    lines = [f"{'':34s} {'min ms':>9s} {'median':>9s} {'x ' + base:>22s} (min / median), a {unit}"]
    for name, value in times.items():
        least, median = value.least / times[base].least, value.median / times[base].median
        lines.append(
            f"{name:34s} {1e3 * value.least / per:9.2f} {1e3 * value.median / per:9.2f} {least:12.3f} / {median:.3f}"
        )
    return "\n".join(lines)


def machine() -> str:
    """The CPU's instruction sets: a figure without them says nothing."""
    return " ".join(_native.cpu_features())


def multiply_rate(threads: int) -> float:
    """Multiply-adds a second of the best large float32 matrix product here: the floor's denominator."""
    import onnxruntime
    from onnx import TensorProto, helper

    side = 2048
    weights = helper.make_tensor("w", TensorProto.FLOAT, (side, side), np.ones(side * side, np.float32).tobytes(), True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "rate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (side, side))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (side, side))],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.ones((side, side), np.float32)
    times = interleave({"product": lambda: session.run(None, {"x": x})}, 7)["product"]
    return float(side**3 / times.least)
