"""Interleaved timing: every case once a round, in a shuffled order, so that a noisy minute hits all of them."""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from graftsdk import _native
from graftsdk.engines import Graph, open_engine
from graftsdk.graft import externalize

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


def interleave(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    pause: float = PAUSE,
    before: Callable[[], object] | None = None,
) -> dict[str, Times]:
    """Times of each case over `rounds` rounds, after one untimed call of each; `pause` seconds before each call.

    `before` is called right before each case, untimed: what comes before it in use.
    """
    found: dict[str, list[float]] = {name: [] for name in cases}
    for run in cases.values():
        run()
    order = list(cases)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            time.sleep(pause)
            if before is not None:
                before()
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
    """Multiply-adds a second of the fastest float32 kernel found here: the floor's denominator.

    The best of a large matrix product and of two of InceptionV3's own kinds of convolution, large and alone.
    """
    return max(
        _rate("MatMul", (2048, 2048), (2048, 2048), 2048**3, threads),
        _rate("Conv", (8, 256, 34, 34), (256, 256, 3, 3), 8 * 256 * 256 * 9 * 32 * 32, threads),
        _rate("Conv", (8, 768, 17, 17), (192, 768, 1, 1), 8 * 768 * 192 * 17 * 17, threads),
    )


def _rate(kind: str, shape: tuple[int, ...], weights: tuple[int, ...], macs: int, threads: int) -> float:
    import onnx_ir as ir

    x = np.full(shape, 0.5, np.float32)
    value = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(name="w", const_value=ir.tensor(np.full(weights, 0.5, np.float32), name="w"))
    node = ir.node(kind, [value, weight])
    node.outputs[0].name = "y"
    graph = ir.Graph([value], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 18}, name="rate")
    model = ir.Model(graph, ir_version=10)
    key = hashlib.sha256(f"{kind} {shape} {weights}".encode()).hexdigest()
    load = partial(externalize, model)
    with open_engine([Graph(key, {"x": "x"}, ("y",), load)], threads=threads, cache=False) as engine:
        times = interleave({"rate": lambda: engine.run({"x": x})}, 9)["rate"]
    return macs / times.least
