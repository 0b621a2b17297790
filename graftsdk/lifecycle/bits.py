"""Whether this ONNX Runtime on this CPU keeps the bits that graftsdk promises (design: "The bits")."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graftsdk.engines import Cache, Engine, default_threads, open_engine
from graftsdk.engines.layout import graphs_of, partition
from graftsdk.graft import joints_of, scores_names
from graftsdk.lifecycle.small_tree import LABELS, small_plan
from graftsdk.plan import Plan
from graftsdk.preprocess import golden_crops

__all__ = ["BitsCheck", "check_bits"]

_CROPS = 8
_Scores = Mapping[str, np.ndarray]  # label -> float32[n, 2]


@dataclass(frozen=True)
class BitsCheck:
    """One promise: what was compared, and the greatest difference between the two sides; 0.0 where every bit agrees."""

    promise: str
    holds: bool
    difference: float


def check_bits() -> tuple[BitsCheck, ...]:
    """Run a small tree in several ways on the CPU and compare the scores bit by bit.

    As it is served: compiled, saved and opened again, in a cache of its own that is gone afterwards.

    Raises:
        EngineError: an engine cannot be opened at all.
    """
    with tempfile.TemporaryDirectory(prefix="graftsdk-") as name, ExitStack() as stack:
        plan = stack.enter_context(small_plan(Path(name) / "small.plan"))
        cache = Cache(Path(name) / "cache")
        crops = golden_crops(plan.manifest.crop, count=_CROPS)
        many = default_threads() if default_threads() > 1 else 2

        def scores(labels: Sequence[str], layout: str, threads: int, *, batch: int = _CROPS) -> _Scores:
            groups = partition(joints_of(plan.manifest, labels), layout)
            graphs = graphs_of(plan, groups)
            with open_engine(graphs, device="cpu", threads=threads, cache=cache) as engine:
                return _run(plan, engine, labels, crops, batch)

        every = tuple(LABELS)
        usual = scores(every, "merged", many)
        alone: dict[str, np.ndarray] = {}
        for label in every:
            alone |= scores([label], "merged", many)
        return (
            _compare("a label alone = among many", usual, alone),
            _compare(f"batch 1 = batch {_CROPS}", usual, scores(every, "merged", many, batch=1)),
            _compare(f"1 thread = {many} threads", usual, scores(every, "merged", 1)),
            _compare("layout split = merged", usual, scores(every, "split", many)),
        )


def _run(plan: Plan, engine: Engine, labels: Sequence[str], crops: np.ndarray, batch: int) -> dict[str, np.ndarray]:
    pieces = [engine.run({"crops": crops[at : at + batch]}) for at in range(0, len(crops), batch)]
    names = scores_names(plan.manifest, labels)
    return {label: np.concatenate([piece[name] for piece in pieces]) for label, name in names.items()}


def _compare(promise: str, one: _Scores, other: _Scores) -> BitsCheck:
    holds = all(one[label].tobytes() == other[label].tobytes() for label in one)
    gap = max(float(np.abs(one[label].astype(np.float64) - other[label]).max()) for label in one)
    return BitsCheck(promise, holds, gap)
