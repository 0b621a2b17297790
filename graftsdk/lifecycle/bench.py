"""How fast a plan is here: stage by stage on pictures, its engine on crops, and against its own multiply-adds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import graftsdk
from graftsdk._native import cpu_features
from graftsdk.engines import default_threads
from graftsdk.engines.threads import shared_threads
from graftsdk.errors import InputError
from graftsdk.lifecycle.picture_cases import PictureCase, PictureRow, drawn_cases, file_cases
from graftsdk.lifecycle.promise import EngineRow, Promise
from graftsdk.lifecycle.turns import in_turns
from graftsdk.plan import Plan
from graftsdk.predictor import Precision, Predictor
from graftsdk.preprocess import golden_crops

__all__ = ["Bench", "Machine", "bench_plan"]

LEAST_RUNS = 3  # of each case, also where that takes longer than was asked for
FINDS_NOBODY = 1.0  # as least score: a drawn picture has the persons that are given, whatever it looks like


@dataclass(frozen=True)
class Machine:
    """What a figure says nothing without.

    Attributes:
        cpu: the processor's name; features: its instruction sets that are used. cores: those of this process.
        load: processes that ran or waited in the minute before, on the mean: others slow what is measured.
        device: "cpu" or "cuda". threads: of each stage; shared: whether all sessions share them.
        versions: of what takes the time.
    """

    cpu: str
    features: tuple[str, ...]
    cores: int
    load: float
    device: str
    threads: int
    shared: bool
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Bench:
    """What `bench_plan` measured.

    Attributes:
        plan: its path. labels: those computed. layout: "merged" or "split".
        precision: as asked for; in_float32: of its parts that run, how many are in float32 all the same.
        trunks: architecture and crop of each trunk that runs. segmenter: its family, or None.
        networks: cost of a crop in whole networks, by multiply-adds. macs: those.
        ready_s: until the predictor was ready.
        drawn: the pictures are drawn and their persons given, not found.
        engine, pictures: the rows. left_out: pictures that were named and not measured, for there were too many.
        unreadable: picture -> what is wrong with it, of those that were tried and cannot be used.
        asked: seconds to measure for. seconds: that it took. interrupted: it was ended early.
    """

    machine: Machine
    plan: str
    labels: tuple[str, ...]
    layout: str
    precision: str
    in_float32: int
    trunks: tuple[str, ...]
    segmenter: str | None
    networks: float
    macs: int
    ready_s: float
    drawn: bool
    engine: tuple[EngineRow, ...]
    pictures: tuple[PictureRow, ...]
    left_out: int
    unreadable: Mapping[str, str]
    asked: float
    seconds: float
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        found = asdict(self)
        for name in ("labels", "trunks"):
            found[name] = list(found[name])
        found["machine"]["features"] = list(self.machine.features)
        found["engine"] = [{**asdict(row), "measured_to_expected": row.measured_to_expected} for row in self.engine]
        found["pictures"] = [{**row, "size": list(row["size"])} for row in found["pictures"]]
        return found


def bench_plan(
    source: str | os.PathLike[str],
    *,
    pictures: Sequence[Path] | None = None,
    persons: Sequence[int] = (0, 1, 3, 8),
    batches: Sequence[int] = (1, 8),
    seconds: float = 20.0,
    labels: Sequence[str] | None = None,
    layout: Literal["merged", "split"] = "merged",
    precision: Precision | None = None,
    threads: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    starting: Callable[[int, Mapping[str, str]], object] = lambda cases, unreadable: None,
) -> Bench:
    """Measure a plan: all cases in turns, an equal part of the time for each; one run of each before does not count.

    Ctrl-C ends the measuring, and what there is so far is returned, once every case ran.

    Args:
        source: path of a plan.
        pictures: image files, read before; those that cannot be used are left out. None draws a 1080p picture whose
            persons are given as boxes and masks. A segmenter runs on it all the same; it finds nobody.
        persons: in the drawn pictures, a row each.
        batches: crops that the engine takes at once, a row each.
        seconds: for all cases together; longer where `LEAST_RUNS` runs of each take longer.
        labels, layout, precision, threads, device: see Predictor. The whole trunks run in the same precision.
        starting: called with the number of cases and what `Bench.unreadable` will be, once measuring begins.

    Raises:
        InputError: an argument that cannot be used, or every picture. PlanError, EngineError: see Predictor.
    """
    _check(persons, batches, seconds, pictures)
    load, started = os.getloadavg()[0], time.perf_counter()
    with ExitStack() as stack:
        predictor = stack.enter_context(
            Predictor(
                source,
                device=device,
                labels=labels,
                layout=layout,
                precision=precision,
                threads=threads,
                min_score=FINDS_NOBODY if pictures is None else None,
            )
        )
        ready = time.perf_counter() - started
        promise = Promise(predictor.plan, predictor.labels, predictor.forms)
        trunks = stack.enter_context(promise.open(predictor.device, threads))
        unreadable: dict[str, str] = {}
        if pictures is None:
            shown = drawn_cases(predictor, persons)
        else:
            shown, unreadable = file_cases(predictor, pictures)
        cases: dict[Any, Callable[[], Any]] = {}
        for batch in batches:
            crops = golden_crops(predictor.plan.manifest.crop, count=batch)
            cases["plan", batch] = partial(predictor.run, crops)
            for name, value in promise.values.items():
                cases[name, batch] = partial(trunks.run, {"crops": crops}, [value])
        cases |= {("picture", index): picture.run for index, picture in enumerate(shown)}
        for case in cases.values():
            case()
        starting(len(cases), unreadable)
        began = time.perf_counter()
        taken, interrupted = _measure(cases, seconds)
        measured = time.perf_counter() - began
        times = {name: [spent for spent, _ in runs] for name, runs in taken.items()}
        return Bench(
            machine=_machine(predictor, threads, load),
            plan=str(source),
            labels=predictor.labels,
            layout=layout,
            precision=precision or "float32",
            in_float32=len(predictor.parts - predictor.forms.keys()),
            trunks=promise.trunks,
            segmenter=_segmenter(predictor.plan),
            networks=promise.networks,
            macs=promise.macs,
            ready_s=ready,
            drawn=pictures is None,
            engine=tuple(
                promise.row(batch, times["plan", batch], {name: times[name, batch] for name in promise.values})
                for batch in batches
            ),
            pictures=tuple(
                picture.row(times["picture", index], [run for _, run in taken["picture", index]])
                for index, picture in enumerate(shown)
            ),
            left_out=_left_out(pictures, shown, unreadable),
            unreadable=unreadable,
            asked=seconds,
            seconds=measured,
            interrupted=interrupted,
        )


def _measure(cases: Mapping[Any, Callable[[], Any]], seconds: float) -> tuple[dict[Any, list[tuple[float, Any]]], bool]:
    """Case -> (milliseconds, result) of its runs, and whether it was interrupted with at least one of each."""
    taken: dict[Any, list[tuple[float, Any]]] = {name: [] for name in cases}
    try:
        for name, spent, found in in_turns(cases, repeats=LEAST_RUNS, seconds=seconds):
            taken[name].append((spent, found))
    except KeyboardInterrupt:
        if not all(taken.values()):
            raise
        return taken, True
    return taken, False


def _left_out(pictures: Sequence[Path] | None, shown: Sequence[PictureCase], unreadable: Mapping[str, str]) -> int:
    if pictures is None:
        return 0
    return len(pictures) - len(unreadable) - sum(case.at_once == 1 for case in shown)


def _segmenter(plan: Plan) -> str | None:
    info = plan.manifest.segmenter
    return None if info is None else f"{info.family} {info.input_size[0]}x{info.input_size[1]}"


def _machine(predictor: Predictor, threads: int | None, load: float) -> Machine:
    shared = shared_threads()
    versions = {"graftsdk": graftsdk.__version__}
    for package in ("onnxruntime", "onnxruntime-gpu", "numpy", "opencv-python", "pillow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Machine(
        cpu=_processor(),
        features=tuple(cpu_features()),
        cores=default_threads(),
        load=load,
        device=predictor.device,
        threads=threads or shared or default_threads(),
        shared=shared is not None,
        versions=versions,
    )


def _processor() -> str:
    """The processor's name as Linux tells it; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _check(persons: Sequence[int], batches: Sequence[int], seconds: float, pictures: Sequence[Path] | None) -> None:
    if not batches or any(not 1 <= batch <= 1024 for batch in batches):
        raise InputError(f"batches: expected numbers from 1 to 1024, found {list(batches)}")
    if pictures is not None and not pictures:
        raise InputError("pictures: expected at least one image file, found none")
    if pictures is None and (not persons or any(not 0 <= count <= 1000 for count in persons)):
        raise InputError(f"persons: expected numbers from 0 to 1000, found {list(persons)}")
    if not 0 < seconds <= 86_400:  # a NaN fails too
        raise InputError(f"seconds: expected more than 0, and at most 86400, found {seconds:g}")
