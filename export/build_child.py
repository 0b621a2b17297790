"""The process that builds: it reads one job, and sends engines, phases and log lines as frames.

A frame is a line of JSON; behind one of kind "chunk" come as many bytes as it says. The process writes no file, so
that it can be killed at any moment, and ends by itself when its parent is gone.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from graftsdk.engines.layout import built_groups, segmenter_graph
from graftsdk.engines.memory import give_back_memory
from graftsdk.engines.record import port_dict, read_engine_file, read_record
from graftsdk.engines.refittable import Refittable
from graftsdk.engines.tensorrt import Library, find_library
from graftsdk.errors import GraftError, PlanCorrupt
from graftsdk.export.tensorrt import Built, Wanted, build_graph, read_layers
from graftsdk.graft import Group, externalize, graft_group, joints_of
from graftsdk.plan import Plan, open_plan

__all__ = ["Item", "Job", "load_graph", "main"]

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Item:
    """One engine: key of its graph, whose part is whose in messages, and what to call it all.

    `refittable`: so that its weights can be exchanged. `sources`: see `make_refittable`.
    """

    key: str
    owners: Mapping[str, str]
    subject: str
    refittable: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """What to build: of which plan (path and digest), with which library, as the arguments of `build_engine`.

    `level` is the least of the log lines that are sent. `refittable`: of the engines that give scores, see `Item`.
    `inspected`: paths of records, of engines whose layers are asked for.
    """

    plan: str
    digest: str
    runtime: str
    version: str
    precision: str
    layout: str
    labels: tuple[str, ...]
    targets: tuple[str, ...]
    batches: tuple[int, ...]
    items: tuple[Item, ...]
    level: int = logging.WARNING
    refittable: bool = False
    inspected: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What `to_json` gave."""
        value: dict[str, Any] = json.loads(text)
        value["items"] = tuple(Item(**item | {"sources": tuple(item["sources"])}) for item in value["items"])
        return cls(**value | {name: tuple(value[name]) for name in ("labels", "targets", "batches", "inspected")})


class _Frames:
    """Sends frames; threads of the library log while another one writes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, kind: str, content: bytes | None = None, **values: Any) -> None:
        with self._lock:
            size = {} if content is None else {"size": len(content)}
            self._write(json.dumps({"kind": kind, **values, **size}).encode() + b"\n")
            if content is not None:
                self._write(content)

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[os.write(self._descriptor, left) :]


class _Forward(logging.Handler):
    def __init__(self, frames: _Frames, level: int) -> None:
        super().__init__(level)
        self._frames = frames

    def emit(self, record: logging.LogRecord) -> None:
        self._frames.send("log", name=record.name, level=record.levelno, text=record.getMessage()[:4000])


def main() -> None:
    """Build what standard input asks for; every error becomes a frame, whatever happens."""
    frames = _Frames(os.dup(1))
    os.dup2(2, 1)  # what the library prints is no frame
    job = Job.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logger = logging.getLogger("graftsdk")
    logger.addHandler(_Forward(frames, job.level))
    logger.setLevel(job.level)
    try:
        _build(job, frames)
    except GraftError as error:
        frames.send("error", type=type(error).__name__, text=str(error))
    except MemoryError:
        frames.send("error", type="EngineOutOfMemory", text="building: expected enough memory, found none left")
    except Exception as error:  # noqa: BLE001  a fault of ours, or an odd answer of the library, which is no crash
        logger.debug("%s", traceback.format_exc())
        what = f"{type(error).__name__}: {error}"
        frames.send("error", type="EngineBuildError", text=f"building: found {what}; report it with this message")
    os._exit(0)  # the library's own end may take seconds, or crash, after everything has been sent


def _end_with_parent() -> None:
    sys.stdin.read()  # ends when the parent does
    os._exit(1)


def _build(job: Job, frames: _Frames) -> None:
    library = find_library(job.runtime)
    if library.version != job.version:
        raise PlanCorrupt(f"expected {job.runtime} {job.version}, found {library.version}: it was changed meanwhile")
    for path in job.inspected:
        record = read_record(path)
        frames.send("layers", layers=read_layers(library, read_engine_file(record, Path(path).with_name(record.file))))
    if not job.items:
        return
    with open_plan(job.plan) as plan:
        if plan.digest != job.digest:
            raise PlanCorrupt(f"{job.plan}: expected the plan that was opened, found another: it was changed meanwhile")
        groups = {}
        if job.labels:
            groups = {
                group.key(plan.manifest): group
                for group in built_groups(
                    plan.manifest,
                    joints_of(plan.manifest, job.labels),
                    job.layout,
                    plan.manifest.forms(job.precision),
                )
            }
        for item in job.items:
            _build_item(plan, groups.get(item.key), item, job, library, frames)
            give_back_memory()


def _build_item(plan: Plan, group: Group | None, item: Item, job: Job, library: Library, frames: _Frames) -> None:
    """One engine; None builds the segmenter."""
    _forget_peak()
    started = time.monotonic()

    def begin(phase: str) -> None:
        frames.send("phase", name=phase)

    def write(piece: bytes) -> None:
        frames.send("chunk", piece)

    frames.send("begin", key=item.key)
    begin("grafting")
    wanted, refittable = Wanted(job.targets, job.batches, item.owners, item.subject), None
    if item.refittable and group is not None:
        built, refittable = _build_refittable(plan, group, item, job, library, wanted, write, begin)
    else:
        content, weights = load_graph(plan, group)
        _let_go(plan)
        built = build_graph(library, content, weights, wanted, write, begin)
    seconds, peak = time.monotonic() - started, _peak()
    frames.send(
        "end",
        inputs=[port_dict(port) for port in built.inputs],
        outputs=[port_dict(port) for port in built.outputs],
        profiles=[[each.least, each.best, each.most] for each in built.profiles],
        seconds=seconds,
        peak=peak,
        refittable=None if refittable is None else refittable.to_dict(),
    )


def _build_refittable(
    plan: Plan,
    group: Group,
    item: Item,
    job: Job,
    library: Library,
    wanted: Wanted,
    write: Callable[[bytes], object],
    begin: Callable[[str], object],
) -> tuple[Built, Refittable]:
    from graftsdk.export.parity import Parity
    from graftsdk.export.refit import make_refittable
    from graftsdk.export.structure import in_plan_order, part_names, structure_of

    names = part_names(in_plan_order(group, plan.manifest))
    joints = joints_of(plan.manifest, job.labels)
    parity = Parity(plan, group, joints, library, names=names, precision=job.precision, batches=job.batches)
    structure = structure_of(*load_graph(plan, in_plan_order(group, plan.manifest)), names)
    _let_go(plan)
    wanted = replace(wanted, owners={names.get(part, part): owner for part, owner in item.owners.items()})
    return make_refittable(library, structure, wanted, item.sources, parity, write, begin)


def load_graph(plan: Plan, group: Group | None) -> tuple[bytes, Mapping[str, Any]]:
    """The group, or the segmenter, as TensorRT takes it: bytes without their weights, and the weights.

    Raises:
        InputError: no segmenter. PlanCorrupt, UnsupportedOp: a part's graph that cannot be brought into that form.
    """
    if group is None:
        return segmenter_graph(plan).load()
    model = graft_group(plan, group)
    if group.precision.endswith("int8"):
        from graftsdk.graft.signed import make_signed

        make_signed(model)  # plans hold the CPU's form: unsigned activations, integer biases
    return externalize(model)


def _let_go(plan: Plan) -> None:
    """Take the plan's pages out of this process: all were read to be hashed, and what was lowered is a copy now.

    What is read again is mapped again. Measured, 18 labels in fp16: 1.9 times the float32 weights in place of 2.9.
    """
    part = next(iter(plan.manifest.parts))
    mapped = plan.bytes_of(plan.sections(part)[""]).obj
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def _forget_peak() -> None:
    """Let the kernel count the most resident memory anew."""
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"5")
        finally:
            os.close(descriptor)
    except OSError:  # a system without it: the peak is then that of all engines so far
        return


def _peak() -> int:
    """Most resident memory of this process, in bytes. getrusage would give the parent's, inherited over exec."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
