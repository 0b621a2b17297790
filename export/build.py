"""A plan -> TensorRT engines in a folder, each with its record; built in a child process, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftsdk.engines.driver import driver_problem
from graftsdk.engines.opener import default_folder
from graftsdk.engines.record import (
    RECORD,
    EngineRecord,
    Profile,
    read_port,
    write_record,
)
from graftsdk.engines.refittable import Refittable
from graftsdk.engines.tensorrt import find_library
from graftsdk.engines.trust import remember_built
from graftsdk.errors import EngineBuildError, GraftError, InputError, PlanError
from graftsdk.export.build_child import Item, Job
from graftsdk.export.building import Child
from graftsdk.export.engine_folder import engine_folder
from graftsdk.export.engine_list import (
    check_batches,
    check_refittable,
    check_targets,
    is_refittable,
    item_of,
    wanted_engines,
)
from graftsdk.export.stored import refit_sources, stored_engine
from graftsdk.files import atomic_write
from graftsdk.graft import joints_of
from graftsdk.plan import Manifest, Plan, open_plan
from graftsdk.text import counted

__all__ = ["BuildReport", "build_engine"]

_Path = str | os.PathLike[str]

_log = logging.getLogger("graftsdk")


@dataclass(frozen=True)
class BuildReport:
    """What was built.

    Attributes:
        folder: where the engines and their records are. engines: their records, in the order in which they run.
        kept: names of those that were there already. seconds: how long it all took.
    """

    folder: Path
    engines: tuple[EngineRecord, ...]
    kept: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "folder": str(self.folder),
            "engines": [{**record.to_dict(), "kept": record.name in self.kept} for record in self.engines],
            "seconds": round(self.seconds, 3),
        }


def build_engine(
    plan: _Path | Plan,
    *,
    targets: Sequence[str] = (),
    runtime: str | None = None,
    precision: str = "float32",
    layout: str = "merged",
    batches: Sequence[int] = (1, 8, 32),
    labels: Sequence[str] | None = None,
    segmenter: bool = True,
    output: _Path | None = None,
    progress: bool = False,
    refittable: bool = False,
) -> BuildReport:
    """Build the engines of a plan: one of all labels, or one of each trunk and branch, and one of the segmenter.

    An engine that is there already, for the same graph, runtime, targets, precision and batches, is kept: with
    `layout="split"` a new label builds one. The library works in a process of its own, so that an interruption ends it
    at once and its crash is an error here; no torch is needed. Two processes that build into one folder do so one
    after the other.

    Args:
        plan: a path, or a plan that was opened from one.
        targets: compute capabilities, as "8.9"; none for the GPUs of this machine. One engine serves all of them.
        runtime: "tensorrt" or "tensorrt_rtx"; None takes the first that is installed. Only the latter builds without
            a GPU, and for other GPUs than this machine's.
        precision: "float32", "fp16", "bf16" or "int8", for the parts that may be lowered; see `Manifest.forms`. The
            segmenter is built in float32.
        layout: "merged" or "split".
        batches: the sizes of crops that will be fed, 1..1024; a segmenter is fed one image at a time.
        labels: None for all.
        segmenter: whether the plan's segmenter is built too, if it has one.
        output: the folder, made where it is missing; None for `<plan's name>.engines` beside the plan.
        progress: the phase and the time since it began, on stderr.
        refittable: make the engines that give scores so that their weights can be exchanged, which costs some speed.
            Needs this machine's GPU, on which each is compared with the plan's golden scores. Where a label was trained
            again on the same tap and width, its engine is then refitted from the one that is there, in a copy, and
            built in full only where anything is in doubt, with a line in the log; the older one stays, and
            predictors go on with it. A later build that does not ask for refittable engines keeps those that are there.
            Tested with a stand-in for the library; not run on a GPU.

    Raises:
        InputError: an argument that cannot be used, or no such label. MissingDependency: no TensorRT is installed.
        EngineIncompatible: a compute capability or precision that is not to be had, or refittable engines without this
            machine's GPU; says what is.
        EngineBuildError: the library refused a graph (names label, node, operator), or crashed.
        EngineOutOfMemory: memory ran out. PlanError: the plan cannot be read, or the folder not be written.
        OSError: the disk is full or fails. Nothing that is half-written stays behind.
    """
    started = time.monotonic()
    library = find_library(runtime)
    sizes = check_batches(batches)
    wanted = check_targets(library, targets)
    if refittable:
        check_refittable(library, wanted, precision)
    with contextlib.ExitStack() as stack:
        opened = plan if isinstance(plan, Plan) else stack.enter_context(open_plan(plan))
        if opened.path is None:
            raise InputError("plan: expected a path, or a plan that was opened from one: the building process maps it")
        job = Job(
            plan=str(opened.path.absolute()),
            digest=opened.digest,
            runtime=library.name,
            version=library.version,
            precision=precision,
            layout=layout,
            labels=() if labels is None and not opened.labels else tuple(joints_of(opened.manifest, labels)),
            targets=wanted,
            batches=sizes,
            items=(),
            level=logging.getLogger("graftsdk.tensorrt").getEffectiveLevel(),
            refittable=refittable,
        )
        records = wanted_engines(opened.manifest, job, segmenter=segmenter)
        folder = Path(output) if output is not None else default_folder(opened.path)
        stack.enter_context(engine_folder(folder))
        there = {each.name: stored_engine(each, folder, refittable=is_refittable(each, job)) for each in records}
        done = {name: found for name, found in there.items() if found is not None}
        missing = [record for record in records if record.name not in done]
        if missing:
            job = replace(job, items=tuple(_item(record, opened.manifest, job, folder) for record in missing))
            for record in _build(job, missing, folder, progress):
                done[record.name] = record
            if driver_problem() is None:
                done.update(_with_layers(replace(job, items=()), [done[record.name] for record in missing], folder))
    kept = tuple(record.name for record in records if record not in missing)
    return BuildReport(folder, tuple(done[record.name] for record in records), kept, time.monotonic() - started)


def _item(record: EngineRecord, manifest: Manifest, job: Job, folder: Path) -> Item:
    item = item_of(record, manifest)
    if not is_refittable(record, job):
        return item
    return replace(item, refittable=True, sources=refit_sources(record, folder))


def _remember(record: EngineRecord) -> None:
    """So that the engine is trusted later; where that fails it serves those who say that they trust it."""
    try:
        remember_built(record)
    except (PlanError, OSError) as error:
        _log.warning("%s will be run with trust_engines=True only: %s", record.name, error)


def _build(job: Job, records: Sequence[EngineRecord], folder: Path, progress: bool) -> Iterator[EngineRecord]:
    """Build these, in order; each is whole on the disk, with its record, when it is handed out."""
    _log.info(
        "building %s with %s %s for %s",
        counted(len(records), "engine"),
        job.runtime,
        job.version,
        ", ".join(job.targets),
    )
    with Child(job) as child, _clock(progress) as show:
        frames = child.frames()
        for index, record in enumerate(records):
            child.what = f"{record.name}, {index + 1} of {len(records)}"
            done = _receive(child, frames, record, folder, show)
            _remember(done)  # before the record: an engine with a record that nobody remembers would be kept, not run
            write_record(done, folder)
            _log.info(
                "%s: %.1f MB in %.1f s, %.0f MB of memory at most",
                record.name, done.size / 1e6, done.seconds, done.peak_bytes / 1e6,
            )  # fmt: skip
            yield done
        for _ in frames:  # to its end
            pass


def _with_layers(job: Job, records: Sequence[EngineRecord], folder: Path) -> dict[str, EngineRecord]:
    """The records of engines that lie in the folder, with their layers; without them where they cannot be had.

    By a process of its own, once all is built: what fails here, or crashes, takes no engine with it, and no build
    holds an engine in memory for it.
    """
    found = {record.name: record for record in records}
    paths = tuple(str((folder / f"{record.name}{RECORD}").absolute()) for record in records)
    try:
        with Child(replace(job, inspected=paths)) as child:
            child.what = "the layers of the engines"
            answers = (frame["layers"] for frame in child.frames() if frame["kind"] == "layers")
            for record, layers in zip(records, answers, strict=False):
                if layers is not None:
                    found[record.name] = replace(record, layers=tuple(layers))
                    write_record(found[record.name], folder)
    except (GraftError, OSError) as error:
        _log.warning("the engines are built, their layers are not known: %s", error)
    return found


def _receive(
    child: Child, frames: Iterator[dict[str, Any]], record: EngineRecord, folder: Path, show: Callable[[str], None]
) -> EngineRecord:
    """One engine, written as it comes; the record of an older one goes before its engine does."""
    digest, size, what = hashlib.sha256(), 0, child.what
    path = folder / record.file
    with atomic_write(path) as out:
        os.fchmod(out.fileno(), 0o644)  # whatever the umask says: what others can write is not run
        for frame in frames:
            if frame["kind"] == "phase":
                what = f"{child.what}: {frame['name']}"
            elif frame["kind"] == "chunk":
                left = frame["size"]
                while left:
                    piece = child.piece(left)
                    out.write(piece)
                    digest.update(piece)
                    left -= len(piece)
                    size += len(piece)
            elif frame["kind"] == "end":
                break
            show(what)
        else:
            raise EngineBuildError(f"building {child.what}: expected an engine, found the end of the building process")
        # A crash between the two files must not leave an engine beside the record of another.
        (folder / f"{record.name}{RECORD}").unlink(missing_ok=True)
    return replace(
        record,
        profiles=tuple(Profile(*each) for each in frame["profiles"]),
        inputs=tuple(read_port(port, "input") for port in frame["inputs"]),
        outputs=tuple(read_port(port, "output") for port in frame["outputs"]),
        size=size,
        sha256=digest.hexdigest(),
        seconds=round(frame["seconds"], 3),
        peak_bytes=frame["peak"],
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        refittable=None if frame["refittable"] is None else Refittable.from_dict(frame["refittable"], record.name),
    )


@contextlib.contextmanager
def _clock(progress: bool) -> Iterator[Callable[[str], None]]:
    """Shows what is being done and for how long; percentages would stand still, nearly all time is one step."""
    if not progress:
        yield lambda what: None
        return
    from tqdm import tqdm

    with tqdm(bar_format="{desc}  {elapsed}", leave=False) as bar:
        drawn = 0.0

        def show(what: str) -> None:
            nonlocal drawn
            if time.monotonic() - drawn > 0.1:  # phases come by the hundred
                bar.set_description_str(what[:100])
                drawn = time.monotonic()

        yield show
