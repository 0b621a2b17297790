"""INT8 against float32 on the CPU, side by side in one interleaved run: 18 labels at tap 9, and one whole network.

Random weights and drawn crops: times and bits are real, accuracies mean nothing, so every part is lowered whatever it
does to a score. Prints the instruction sets, minima, medians, the operators of the compiled graphs, and each target
with what was reached, in both units: one network in float32 and one in INT8.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # under PYTHONSAFEPATH the folder of the script is not on the path

from measure import Times, interleave, machine, table  # noqa: E402
from plans import SIZE  # noqa: E402

from graftsdk import Predictor  # noqa: E402
from graftsdk._native import cpu_features  # noqa: E402
from graftsdk.engines import default_threads  # noqa: E402
from graftsdk.export import export_plan, pools, quantize  # noqa: E402
from graftsdk.lifecycle.lowering import lower_plan  # noqa: E402
from graftsdk.models import Branch, Trunk  # noqa: E402

WIDTHS = {"width 1": 1.0, "width 0.5": 0.5, "width 0.25": 0.25}
ONE = "one network"
TARGETS = {"width 1": 1.4, "width 0.5": 0.85, "width 0.25": 0.65}  # one network in float32 = 1, where the CPU has VNNI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/bench"), help="where the plans are built and kept")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    vnni = any("vnni" in name for name in cpu_features())
    print(f"instruction sets: {machine()}; threads: {default_threads()}; {options.rounds} rounds, interleaved")
    plans = build(options.folder)
    with tempfile.TemporaryDirectory(prefix="graftsdk-bench-") as cache, ExitStack() as stack:
        os.environ["XDG_CACHE_HOME"] = cache
        predictors = {
            f"{name}, {precision}": stack.enter_context(Predictor(path, precision=precision))  # type: ignore[arg-type]
            for name, path in plans.items()
            for precision in ("float32", "int8")
        }
        split = Predictor(plans["width 0.25"], precision="int8", layout="split")
        predictors["width 0.25, int8, split"] = stack.enter_context(split)
        operators(Path(cache))
        same_bits(predictors)
        for batch in options.batch:
            crops = np.random.default_rng(batch).normal(size=(batch, 3, *SIZE)).astype(np.float32)
            cases: dict[str, Callable[[], object]] = {
                name: partial(predictor.run, crops) for name, predictor in predictors.items()
            }
            times = interleave(cases, options.rounds)
            print(f"\nbatch {batch}\n{table(times, 'crop', batch, f'{ONE}, float32')}")
            judge(times, batch, vnni)


def build(folder: Path) -> dict[str, Path]:
    """The plans, in float32 with INT8 parts beside; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (*WIDTHS, ONE)
    found = {name: folder / f"int8-{name.replace(' ', '-')}-{_calibration()}.plan" for name in names}
    if all(path.exists() for path in found.values()):
        return found
    trunk = Trunk.create("inception_v3", input_size=SIZE, seed=0)
    with tempfile.TemporaryDirectory(prefix="graftsdk-bench-") as samples:
        _draw(Path(samples))
        for name, path in found.items():
            if path.exists():
                continue
            branches = [Branch.create(trunk, "label", tap=11)] if name == ONE else _branches(trunk, WIDTHS[name])
            plain = path.with_suffix(".float32.plan")
            print(f"exporting {plain.name}: {len(branches)} labels", flush=True)
            export_plan(plain, trunk, branches)
            report = lower_plan(plain, "int8", samples, output=path, tolerance=1.0)
            print(f"{name}: int8 parts in {report.seconds:.0f} s", flush=True)
            plain.unlink()
    return found


def _calibration() -> str:
    """Of the code that makes INT8 parts: with other code a plan that is there is not what would be built now."""
    sources = [inspect.getsource(module).encode() for module in (quantize, pools)]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()[:8]


def _branches(trunk: Trunk, width: float) -> list[Branch]:
    return [Branch.create(trunk, f"label{i}", tap=9, width=width, init="random", seed=i) for i in range(18)]


def _draw(folder: Path, count: int = 24) -> None:
    """Smooth colours: ranges like those of a photograph, more or less."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for index in range(count):
        colours = generator.integers(0, 256, (10, 6, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((96, 160), Image.Resampling.BILINEAR).save(folder / f"{index:02d}.png")


def operators(cache: Path) -> None:
    """What the compiled graphs consist of: what is left of Quantize and Dequantize was not fused."""
    import onnx

    print("\noperators of the compiled graphs")
    for path in sorted(cache.rglob("*.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
        counts = Counter(node.op_type for node in graph.node)
        if counts["QLinearConv"] > 50:
            print("  " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common()))


def same_bits(predictors: dict[str, Predictor]) -> None:
    """Scores of split, and of one crop at a time, against merged."""
    crops = np.random.default_rng(3).normal(size=(3, 3, *SIZE)).astype(np.float32)
    merged = predictors["width 0.25, int8"].run(crops)
    split = predictors["width 0.25, int8, split"].run(crops)
    single = [predictors["width 0.25, int8"].run(crops[index : index + 1]) for index in range(3)]
    alike = {
        "split": all(merged[label].tobytes() == split[label].tobytes() for label in merged),
        "batch 1": all(
            rows.tobytes() == np.concatenate([one[label] for one in single]).tobytes() for label, rows in merged.items()
        ),
    }
    print("\nint8 bits, merged at batch 3 against " + ", ".join(f"{name}: {same}" for name, same in alike.items()))


def judge(times: dict[str, Times], batch: int, vnni: bool) -> None:
    """The rows of the table of targets."""
    floor = times[f"{ONE}, float32"], times[f"{ONE}, int8"]
    print(f"\n{'target (min / median)':66s} {'reached':>15s} {'target':>14s}")
    for name in WIDTHS:
        plain, lowered = times[f"{name}, float32"], times[f"{name}, int8"]
        faster = plain.least / lowered.least, plain.median / lowered.median
        least = (2.2 if vnni else 1.4) if name == "width 1" else None
        _row(f"batch {batch}: 18 labels, {name}: int8 faster than float32, times", faster, least, least=True)
        unit = lowered.least / floor[0].least, lowered.median / floor[0].median
        _row(f"batch {batch}: 18 labels, {name}, int8, in float32 networks", unit, TARGETS[name] if vnni else None)
        unit = lowered.least / floor[1].least, lowered.median / floor[1].median
        _row(f"batch {batch}: 18 labels, {name}, int8, in int8 networks", unit)
    unit = floor[0].least / floor[1].least, floor[0].median / floor[1].median
    _row(f"batch {batch}: one network: int8 faster than float32, times", unit)


def _row(what: str, reached: tuple[float, float], target: float | None = None, least: bool = False) -> None:
    met = ""
    if target is not None:
        good = reached[0] >= target if least else reached[0] <= target
        met = f"{'at least' if least else 'at most'} {target:.2f}  {'met' if good else 'MISSED'}"
    print(f"{what:66s} {reached[0]:6.3f} / {reached[1]:6.3f}  {met}")


if __name__ == "__main__":
    main()
