"""Plans opened on a GPU's runtimes, and what a call of each costs: TensorRT engines, or ONNX Runtime's CUDA provider.

Crops lie in device memory before a call and all scores are on the host after it, whatever runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from gpu_plans import Workload, crops_of
from gpu_rows import Row
from measure import Times, interleave, table

from graftsdk.engines import Engine, open_engine
from graftsdk.engines.lanes import Options
from graftsdk.engines.layout import built_groups, graphs_of, partition
from graftsdk.engines.tensorrt_engine import TensorRTEngine
from graftsdk.engines.trust import Wanted, load_engines
from graftsdk.graft import joints_of, scores_names
from graftsdk.plan import open_plan

Call = Callable[[], object]


@dataclass(frozen=True)
class Kind:
    """A runtime and how it is used.

    Attributes:
        title: with version and precision. precision: of the plans.
        runtime: "tensorrt" or "tensorrt_rtx"; None for ONNX Runtime. folder: of the engines that are built.
        device: what ONNX Runtime runs on; "cpu" in a dry run. place: where torch puts what is fed.
    """

    title: str
    precision: str
    runtime: str | None
    folder: Path
    device: str = "cuda"
    place: str = "cuda"


class Opened:
    """One plan, open: `call(batch)` gives a function that computes all scores of crops that lie on the device."""

    def __init__(self, kind: Kind, path: Path, layout: str, *, capture: bool = True) -> None:
        self._stack = ExitStack()
        plan = self._stack.enter_context(open_plan(path))
        joints = joints_of(plan.manifest)
        forms = {} if kind.precision == "float32" else plan.manifest.forms(kind.precision)
        self._kind, self._path = kind, path
        self.names = list(scores_names(plan.manifest).values())
        self.labels = list(joints)
        if kind.runtime is None:
            graphs = graphs_of(plan, partition(joints, layout, forms))  # type: ignore[arg-type]
            self.engine: Engine = self._stack.enter_context(open_engine(graphs, device=kind.device, max_batch=32))
            return
        from graftsdk.engines.cuda import open_device
        from graftsdk.engines.tensorrt import find_library

        library, device = find_library(kind.runtime), self._stack.enter_context(open_device())
        graphs = graphs_of(plan, built_groups(plan.manifest, joints, layout, forms))  # type: ignore[arg-type]
        wanted = Wanted(str(path), device.compute_capability, kind.precision, layout)
        loaded = load_engines(graphs, kind.folder, library, wanted)
        self.engine = self._stack.enter_context(
            TensorRTEngine(
                graphs, loaded.contents, library=library, device=device, buckets=loaded.batches, names=loaded.names,
                options=Options(capture=capture),
            )
        )  # fmt: skip

    def call(self, batch: int) -> Call:
        """Runs `batch` rows once; warm when it is returned."""
        crops = crops_of(self._path, batch)
        if isinstance(self.engine, TensorRTEngine):
            engine = self.engine
            with engine.lease(batch) as lease:  # the lane is the same one in every later call of this thread
                np.copyto(lease.staging("crops"), crops)
                lease.upload("crops")
                lease.run(self.names)
            run: Call = partial(self._leased, engine, batch)
        elif self._kind.place == "cpu":
            run = partial(self.engine.run, {"crops": crops}, self.names)
        else:
            import torch

            run = partial(self.engine.run, {"crops": torch.tensor(crops, device=self._kind.place)}, self.names)
        for _ in range(3):  # run, captured, launched
            run()
        return run

    def _leased(self, engine: TensorRTEngine, batch: int) -> None:
        with engine.lease(batch) as lease:
            lease.run(self.names)

    def scores(self, batch: int) -> dict[str, np.ndarray]:
        """Label -> scores of the same crops in every call."""
        found = self.engine.run({"crops": crops_of(self._path, batch, seed=7)}, self.names)
        return dict(zip(self.labels, (found[name] for name in self.names), strict=True))

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def build(kind: Kind, path: Path, layout: str, batches: tuple[int, ...]) -> str:
    """Build what is missing; one line that says what it took. Nothing to do for ONNX Runtime."""
    if kind.runtime is None:
        return ""
    from graftsdk.export import build_engine

    report = build_engine(
        path, runtime=kind.runtime, precision=kind.precision, layout=layout, batches=batches, output=kind.folder
    )
    megabytes = sum(record.size for record in report.engines) / 1e6
    return (
        f"built {path.stem}, {layout}: {len(report.engines)} engines ({len(report.kept)} kept), {megabytes:.1f} MB, "
        f"{report.seconds:.1f} s, peak {max(record.peak_bytes for record in report.engines) / 1e6:.0f} MB"
    )


@contextmanager
def opened(kind: Kind, work: Workload) -> Iterator[dict[str, Callable[[int], Call]]]:
    """Name of a case -> what gives its call for a batch. All are open at once, so that they can be interleaved."""
    with ExitStack() as stack:
        merged = stack.enter_context(Opened(kind, work.full, "merged"))
        split = stack.enter_context(Opened(kind, work.full, "split"))
        single = stack.enter_context(Opened(kind, work.one, "merged"))
        separate = [stack.enter_context(Opened(kind, work.one, "merged")) for _ in merged.labels]
        cases: dict[str, Callable[[int], Call]] = {
            "one network": single.call,
            "merged": merged.call,
            "split": split.call,
            f"{len(separate)} separate networks": lambda batch: partial(
                lambda calls: [call() for call in calls], [each.call(batch) for each in separate]
            ),
        }
        if kind.runtime is not None:
            cases["merged, without CUDA graphs"] = stack.enter_context(
                Opened(kind, work.full, "merged", capture=False)
            ).call
            cases["split, without CUDA graphs"] = stack.enter_context(
                Opened(kind, work.full, "split", capture=False)
            ).call
        yield cases


def compare(
    kind: Kind, work: Workload, rounds: int, others: dict[str, Callable[[int], Call]]
) -> tuple[list[Row], list[str]]:
    """The roles of one runtime beside `others` (torch's, for one), and tables of every batch."""
    lines = []
    for path in (work.full, work.one):
        for layout in ("merged", "split") if path is work.full else ("merged",):
            lines.append(build(kind, path, layout, work.batches))
    rows: list[Row] = []
    with opened(kind, work) as cases:
        for batch in work.batches:
            times = interleave({name: make(batch) for name, make in {**cases, **others}.items()}, rounds)
            lines.append(f"\n{kind.title}, batch {batch}\n{table(times, 'crop', batch, 'one network')}")
            rows += _judged(kind, work, times, batch, batch == work.batches[-1])
    rows += added_label(kind, work)
    return rows, [line for line in lines if line]


def absent(kind: Kind, why: str) -> list[Row]:
    """What would have been measured with a runtime that does not run here; targets are TensorRT's."""
    aims = (
        ("18 separate networks / merged", "at least", 4.0),
        ("merged / (3.66 x one network)", "at most", 1.15),
        ("torch.compile / merged", "at least", 2.0),
        ("split / merged", "at most", 1.1),
    )
    aim = kind.runtime is not None
    return [
        Row(f"{kind.title}, batch 32: {what}", None, bound if aim else "", target if aim else 0.0, "", why)
        for what, bound, target in aims
    ]


def _judged(kind: Kind, work: Workload, times: dict[str, Times], batch: int, aimed: bool) -> list[Row]:
    """Ratios by median, the minima's behind them; targets are for the largest batch, and TensorRT."""
    aim = aimed and kind.runtime is not None
    separate = next(name for name in times if name.endswith("separate networks"))

    def row(what: str, top: str, bottom: str, bound: str, target: float, factor: float = 1.0) -> Row:
        one, other = times[top], times[bottom]
        least = one.least / other.least / factor
        return Row(
            f"{kind.title}, batch {batch}: {what}", one.median / other.median / factor, bound if aim else "",
            target if aim else 0.0, "", f"by minimum {least:.3f}",
        )  # fmt: skip

    found = [
        row(f"{separate} / merged", separate, "merged", "at least", 4.0),
        row(f"merged / ({work.networks:.2f} x one network)", "merged", "one network", "at most", 1.15, work.networks),
        row("split / merged", "split", "merged", "at most", 1.1),
    ]
    found += [row(f"{name} / merged", name, "merged", "at least", 2.0) for name in times if name.startswith("torch")]
    for name in ("merged", "split"):
        if f"{name}, without CUDA graphs" in times:
            one, other = times[f"{name}, without CUDA graphs"], times[name]
            found.append(
                Row(
                    f"{kind.title}, batch {batch}: {name}, without / with CUDA graphs", one.median / other.median,
                    why=f"{1e3 * one.median:.3f} / {1e3 * other.median:.3f} ms",
                )
            )  # fmt: skip
    return found


def added_label(kind: Kind, work: Workload) -> list[Row]:
    """How many of the other labels have other bits once a label was added; by layout."""
    rows = []
    for layout in ("split", "merged"):
        said = build(kind, work.more, layout, work.batches)
        with Opened(kind, work.full, layout) as before, Opened(kind, work.more, layout) as after:
            one, other = before.scores(work.batches[-1]), after.scores(work.batches[-1])
        moved = [label for label in one if one[label].tobytes() != other[label].tobytes()]
        worst = max(float(np.abs(one[label] - other[label]).max()) for label in one)
        promised = layout == "split"
        rows.append(
            Row(
                f"{kind.title}: a label added in {layout}: others with other bits", float(len(moved)),
                "at most" if promised else "", 0.0, "", f"of {len(one)}; by up to {worst:.1e}; {said}".rstrip("; "),
            )
        )  # fmt: skip
    return rows
