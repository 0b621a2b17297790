"""What each part of a plan costs in time on this machine, measured through the engine that serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from graftsdk._native import cpu_features
from graftsdk.engines import Engine, default_threads, open_engine
from graftsdk.engines.layout import graphs_of, partition
from graftsdk.graft import joints_of, scores_name, tap_name
from graftsdk.lifecycle.turns import Spread, in_turns, spread
from graftsdk.plan import Plan
from graftsdk.preprocess import golden_crops

__all__ = ["PlanTiming", "time_plan"]


@dataclass(frozen=True)
class PlanTiming:
    """Measured at batch 1, on the parts of layout "split": a part's time is its own alone.

    Attributes:
        trunks: part name -> time of the trunk up to its deepest tap in use, for one crop. labels: label -> time of
            its branch, likewise.
        device: "cpu" or "cuda". threads: per stage. repeats: how often each was run. cpu: instruction sets.
    """

    trunks: Mapping[str, Spread]
    labels: Mapping[str, Spread]
    device: str
    threads: int
    repeats: int
    cpu: tuple[str, ...]


def time_plan(plan: Plan, *, repeats: int = 9, device: str = "auto", threads: int | None = None) -> PlanTiming:
    """The time of every trunk and of every label's branch, in turns, so that a busy moment does not hit one alone.

    Each branch is fed with a real activation, because zeros can be faster. The engines are those of layout "split":
    they are taken from the engine cache, or compiled into it.

    Raises:
        InputError: the plan has no labels, or `threads` cannot be used. EngineError: an engine cannot be opened.
    """
    joints = joints_of(plan.manifest)
    groups = partition(joints, "split")
    crops = golden_crops(plan.manifest.crop, count=1)
    with ExitStack() as stack:

        def opened(index: int) -> Engine:
            graphs = graphs_of(plan, groups[index : index + 1])
            return stack.enter_context(open_engine(graphs, device=device, threads=threads))

        engines = [opened(index) for index in range(len(groups))]
        values: dict[str, np.ndarray] = {"crops": crops}
        runs: dict[str, Callable[[], object]] = {}
        for group, engine in zip(groups, engines, strict=True):
            feeds = {value: values[value] for value in group.inputs.values()}
            values.update(engine.run(feeds))
            if group.trunks:
                deepest = tap_name(*group.taps[-1])
                runs[group.trunks[0]] = _run(engine, feeds, deepest)
            else:
                runs[group.loose[0].name] = _run(engine, feeds, scores_name(group.loose[0]))
        spent = _in_turns(runs, repeats)
        used = engines[0].device
    trunks = {group.trunks[0]: spent[group.trunks[0]] for group in groups if group.trunks}
    labels = {label: spent[joint.name] for label, joint in joints.items()}
    return PlanTiming(trunks, labels, used, threads or default_threads(), repeats, tuple(cpu_features()))


def _run(engine: Engine, feeds: Mapping[str, np.ndarray], output: str) -> Callable[[], object]:
    return lambda: engine.run(feeds, [output])


def _in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Spread]:
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for name, spent, _ in in_turns(runs, repeats=repeats):
        taken[name].append(spent)
    return {name: spread(each) for name, each in taken.items()}
