"""Side by side, in one interleaved run: the grafted plan against what else one could run. `make bench`.

Random weights: times and bits are real, accuracies mean nothing. Everything float32, the same threads, ONNX Runtime
set up alike on both sides (graftsdk opens every session). Prints minima, medians, ratios, and each target with what
was reached.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # under PYTHONSAFEPATH the folder of the script is not on the path

from measure import Times, interleave, machine, multiply_rate, table  # noqa: E402
from plans import SIZE, Plans, build  # noqa: E402

from graftsdk import Predictor  # noqa: E402
from graftsdk.engines import Engine, Graph, default_threads, open_engine  # noqa: E402
from graftsdk.graft import externalize, graft  # noqa: E402
from graftsdk.plan import open_plan  # noqa: E402
from graftsdk.plan.cost import plan_cost  # noqa: E402
from graftsdk.plan.edit import add_branches  # noqa: E402
from graftsdk.plan.onnx_part import read_onnx_part, write_onnx_part  # noqa: E402
from graftsdk.prediction import reported_labels  # noqa: E402

results: list[tuple[str, str, float, float]] = []  # what, which bound, reached, target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/bench"), help="where the plans are built and kept")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--skip", nargs="*", default=[], choices=("networks", "others", "start", "compile"))
    options = parser.parse_args()
    threads = default_threads()
    print(f"instruction sets: {machine()}; threads: {threads}; float32; {options.rounds} rounds, interleaved")
    plans = build(options.folder)
    with tempfile.TemporaryDirectory(prefix="graftsdk-bench-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        layouts(plans, options.rounds, options.skip)
        new_label(plans)
        adding(plans)
        if "start" not in options.skip:
            start(plans)
    if "others" not in options.skip:
        others(plans, max(5, options.rounds // 2), "compile" not in options.skip)
    floor(plans, threads)
    print(f"\n{'target':72s} {'reached':>9s} {'target':>8s}")
    for what, bound, reached, target in results:
        met = reached >= target if bound == "at least" else reached <= target
        print(f"{what:72s} {reached:9.3f} {bound:>9s} {target:.2f}  {'met' if met else 'MISSED'}")


def layouts(plans: Plans, rounds: int, skip: list[str]) -> None:
    """The grafted plan in both layouts, thin plans, heads only, one network, and one network a label."""
    predictors = {
        "one network": Predictor(plans.one),
        "18 labels, merged": Predictor(plans.full),
        "18 labels, split": Predictor(plans.full, layout="split"),
        "18 labels, width 0.5": Predictor(plans.half),
        "18 labels, width 0.25": Predictor(plans.quarter),
        "18 heads on tap 11": Predictor(plans.heads),
    }
    separate = [] if "networks" in skip else networks(plans, 18)
    with open_plan(plans.full) as plan:
        ratio = plan_cost(plan.manifest, reported_labels).networks
    for batch in (1, 8):
        crops = np.random.default_rng(batch).normal(size=(batch, 3, *SIZE)).astype(np.float32)
        cases: dict[str, Callable[[], object]] = {
            name: partial(predictor.run, crops) for name, predictor in predictors.items()
        }
        if separate:
            cases["18 separate networks"] = partial(_run_all, separate, crops)
        times = interleave(cases, rounds)
        print(f"\nbatch {batch}\n{table(times, 'crop', batch, 'one network')}")
        judge(times, batch, ratio)


def _run_all(engines: list[Engine], crops: np.ndarray) -> None:
    for engine in engines:
        engine.run({"crops": crops})


def judge(times: dict[str, Times], batch: int, ratio: float) -> None:
    one, merged, split = times["one network"], times["18 labels, merged"], times["18 labels, split"]
    if "18 separate networks" in times:
        separate = times["18 separate networks"]
        results.append(
            (f"batch {batch}: times faster than 18 networks (min)", "at least", separate.least / merged.least, 4.2)
        )
        results.append((f"batch {batch}: the same by median", "at least", separate.median / merged.median, 4.2))
    reached = merged.least / (ratio * one.least)
    results.append((f"batch {batch}: 18 labels / ({ratio:.2f} x one network) (min)", "at most", reached, 1.08))
    results.append((f"batch {batch}: split / merged (min)", "at most", split.least / merged.least, 1.05))
    results.append((f"batch {batch}: split / merged (median)", "at most", split.median / merged.median, 1.05))
    for name, target in (("18 labels, width 0.25", 1.35), ("18 labels, width 0.5", 2.1)):
        results.append((f"batch {batch}: {name}, in networks (min)", "at most", times[name].least / one.least, target))


def networks(plans: Plans, count: int) -> list[Engine]:
    """`count` whole networks, each in its own session with its own weights."""
    with open_plan(plans.one) as plan:
        content, weights = externalize(graft(plan))
        outputs = tuple(value.name or "" for value in graft(plan).graph.outputs)
        engines = []
        for index in range(count):
            own = {name: array * np.float32(1 + 1e-4 * index) for name, array in weights.items()}
            graph = Graph(
                key=hashlib.sha256(f"network {index}".encode()).hexdigest(),
                inputs={"crops": "crops"},
                outputs=outputs,
                load=lambda own=own: (content, own),  # type: ignore[misc]
            )
            engines.append(open_engine([graph]))
    return engines


def new_label(plans: Plans) -> None:
    """A 19th label at tap 9, the other 18 warm in `split`: until it answers."""
    crops = np.zeros((1, 3, *SIZE), np.float32)
    with Predictor(plans.nineteen, layout="split", labels=[f"label{i}" for i in range(17)] + ["child"]) as warm:
        warm.run(crops)
    started = time.perf_counter()
    with Predictor(plans.nineteen, layout="split") as predictor:
        predictor.run(crops, labels=["new"])
        spent = time.perf_counter() - started
    results.append(("a 19th label at tap 9 in split, others warm: seconds until it answers", "at most", spent, 1.0))


def adding(plans: Plans) -> None:
    """`graftsdk plan add` of one exported part, against a plain copy of the plan with fsync."""
    part, copy, changed = (plans.full.with_name(name) for name in ("new.onnx", "copy.plan", "changed.plan"))
    with open_plan(plans.nineteen) as plan:
        found = plan.manifest.find("new")
        assert found is not None
        write_onnx_part(part, plan.parts[found[1].part], found[1].document)

    def plain_copy() -> None:
        copy.unlink(missing_ok=True)
        shutil.copyfile(plans.full, copy)
        with copy.open("rb+") as file:
            os.fsync(file.fileno())

    def add() -> None:
        changed.unlink(missing_ok=True)
        add_branches(plans.full, [read_onnx_part(part)], output=changed)  # type: ignore[list-item]

    times = interleave({"plain copy with fsync": plain_copy, "plan add of one part": add}, 7)
    print(f"\n{plans.full.stat().st_size / 1e6:.0f} MB\n{table(times, 'plan', 1, 'plain copy with fsync')}")
    ratio = times["plan add of one part"].least / times["plain copy with fsync"].least
    results.append(("plan add / plain copy with fsync (min)", "at most", ratio, 1.5))
    for path in (part, copy, changed):
        path.unlink()


def start(plans: Plans) -> None:
    """Load time and memory, cold and warm, each in a fresh process; time of `import graftsdk`."""
    print("\nstart, 18 labels at full width (a fresh process each; the cache is warm where it says so)")
    for state in ("cold", "warm", "warm", "warm"):
        with tempfile.TemporaryDirectory(prefix="graftsdk-bench-") as cold:
            environment = {**os.environ, **({"XDG_CACHE_HOME": cold} if state == "cold" else {})}
            text = subprocess.run(
                [sys.executable, str(ROOT / "start.py"), str(plans.full)],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        found = json.loads(text)
        print(f"  {state}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    results.append(("warm load: seconds until ready", "at most", found["ready_s"], 0.3))
    results.append(("warm load: seconds until the first result", "at most", found["first_result_s"], 0.9))
    results.append(("memory after the first result / weights in use", "at most", found["memory_x_weights"], 1.5))

    def python(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    times = interleave({"bare": python("pass"), "graftsdk": python("import graftsdk")}, 15)
    spent = times["graftsdk"].median - times["bare"].median
    results.append(("import graftsdk: seconds over bare Python (median)", "at most", spent, 0.05))


def others(plans: Plans, rounds: int, compile_torch: bool) -> None:
    """OpenVINO on the same grafted graph; torch eager and compiled on the same tree.

    Apart from each other: torch's threads spin for a while after a call and would slow whoever comes next.
    """
    crops = np.random.default_rng(1).normal(size=(1, 3, *SIZE)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="graftsdk-bench-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        predictor = Predictor(plans.full)
    ours: dict[str, Callable[[], object]] = {"graftsdk, merged": partial(predictor.run, crops)}
    from openvino_graph import openvino_runner

    times = interleave({**ours, "OpenVINO, the grafted graph": openvino_runner(plans.full, crops)}, rounds)
    print(f"\nothers, batch 1, 18 labels\n{table(times, 'crop', 1, 'graftsdk, merged')}")
    from torch_tree import torch_runners

    times = interleave({**ours, **torch_runners(crops, compile_torch)}, rounds, pause=0.3)
    print(table(times, "crop", 1, "graftsdk, merged"))


def floor(plans: Plans, threads: int) -> None:
    """The least time that the multiply-adds alone would take at this machine's own matrix-product rate."""
    rate = multiply_rate(threads)
    with open_plan(plans.full) as plan:
        macs = plan_cost(plan.manifest, reported_labels).macs
    least = 1e3 * macs / rate
    print(f"\nfloor: {macs / 1e9:.1f} GMAC a crop at {rate / 1e9:.0f} GMAC/s, the fastest kernel here: {least:.0f} ms")


if __name__ == "__main__":
    main()
