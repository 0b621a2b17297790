"""A plan -> TensorRT engines in a folder, each with its record; built in a child process, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftsdk.arguments import whole_number
from graftsdk.engines.driver import driver_problem, gpu_capabilities
from graftsdk.engines.layout import partition
from graftsdk.engines.record import (
    ENGINE,
    RECORD,
    EngineRecord,
    Profile,
    check_engine_file,
    engine_name,
    read_port,
    read_record,
    write_record,
)
from graftsdk.engines.tensorrt import Library, capability_number, find_library
from graftsdk.errors import EngineBuildError, EngineIncompatible, InputError, PlanError, PlanPathError
from graftsdk.export.build_child import Item, Job
from graftsdk.export.building import Child
from graftsdk.files import atomic_write
from graftsdk.graft import Group, joints_of
from graftsdk.graft.group import FLOATS
from graftsdk.plan import Manifest, Plan, open_plan
from graftsdk.text import counted, listed, reason

__all__ = ["BuildReport", "build_engine"]

_Path = str | os.PathLike[str]
_MOST_BATCH = 1024

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
        batches: the sizes that will be fed, 1..1024.
        labels: None for all.
        segmenter: whether the plan's segmenter is built too, if it has one.
        output: the folder, made where it is missing; None for `<plan's name>.engines` beside the plan.
        progress: the phase and the time since it began, on stderr.

    Raises:
        InputError: an argument that cannot be used, or no such label. MissingDependency: no TensorRT is installed.
        EngineIncompatible: a compute capability or precision that is not to be had; says what is.
        EngineBuildError: the library refused a graph (names label, node, operator), or crashed.
        EngineOutOfMemory: memory ran out. PlanError: the plan cannot be read, or the folder not be written.
        OSError: the disk is full or fails. Nothing that is half-written stays behind.
    """
    started = time.monotonic()
    library = find_library(runtime)
    sizes = _batches(batches)
    wanted = _targets(library, targets)
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
            layers=driver_problem() is None,
        )
        records = _wanted(opened.manifest, job, segmenter)
        folder = Path(output) if output is not None else opened.path.with_name(f"{opened.path.stem}.engines")
        stack.enter_context(_folder(folder))
        done = {record.name: found for record in records if (found := _stored(record, folder)) is not None}
        missing = [record for record in records if record.name not in done]
        if missing:
            job = replace(job, items=tuple(_item(record, opened.manifest) for record in missing))
            for record in _build(job, missing, folder, progress):
                done[record.name] = record
    kept = tuple(record.name for record in records if record not in missing)
    return BuildReport(folder, tuple(done[record.name] for record in records), kept, time.monotonic() - started)


def _batches(batches: Sequence[int]) -> tuple[int, ...]:
    if isinstance(batches, str) or not isinstance(batches, Sequence) or not batches:
        raise InputError(f"batches: expected sizes like (1, 8, 32), found {batches!r:.80}")
    return tuple(sorted({whole_number("batches", each, 1, _MOST_BATCH) for each in batches}))


def _targets(library: Library, asked: Sequence[str]) -> tuple[str, ...]:
    if isinstance(asked, str):
        raise InputError(
            f"targets: expected a list of compute capabilities, found the text {asked!r}: write [{asked!r}]"
        )
    name = f"{library.name} {library.version}"
    here, known = gpu_capabilities(), library.targets
    wanted = tuple(sorted(set(asked or here), key=capability_number))
    if not wanted:
        raise InputError(
            f"targets: expected compute capabilities, as --for 8.9, found none, and no GPU here to take it from; "
            f"{name} builds for {', '.join(known) or 'the GPU of its own machine only'}"
        )
    if not known:
        trouble = driver_problem()
        if trouble is not None or set(wanted) - set(here):
            raise EngineIncompatible(
                f"{name} builds for the GPU of its own machine only ({trouble or ', '.join(here)}), found "
                f"{', '.join(wanted)}; build there, or with runtime tensorrt-rtx"
            )
    unknown = [target for target in wanted if known and target not in known]
    if unknown:
        raise EngineIncompatible(
            f"compute capability {', '.join(unknown)}: expected one of {', '.join(known)}, which is what {name} builds "
            f"for; GPUs of other kinds run the plan on ONNX Runtime (device='cuda')"
        )
    return wanted


def _wanted(manifest: Manifest, job: Job, segmenter: bool) -> list[EngineRecord]:
    """What is to be there at the end, without what only a build tells."""
    found = []
    forms = manifest.forms(job.precision)
    groups = partition(joints_of(manifest, job.labels), job.layout, forms) if job.labels else ()
    if job.precision != "float32" and not any(group.forms for group in groups):
        raise InputError(
            f"precision {job.precision}: expected a plan with parts that may be computed so, found none that passed; "
            f"graftsdk quantize makes and judges them"
        )
    for group in groups:
        role = "merged" if job.layout == "merged" else "trunk" if group.trunks else "branch"
        found.append(_unbuilt(role, group.key(manifest), job, _labels(group, manifest), _parts(group, manifest)))
    info = manifest.segmenter
    if segmenter and info is not None:
        digest = manifest.parts[info.part].digest
        job = replace(job, precision="float32")
        found.append(_unbuilt("segmenter", digest, job, (), {info.part: (digest, "float32")}))
    if not found:
        raise InputError("the plan has neither labels nor a segmenter to build; graftsdk plan add adds labels")
    return found


def _unbuilt(
    role: str, key: str, job: Job, labels: tuple[str, ...], parts: Mapping[str, tuple[str, str]]
) -> EngineRecord:
    return EngineRecord(
        role=role,
        graph=key,
        plan=job.digest,
        labels=labels,
        parts=parts,
        runtime=job.runtime,
        version=job.version,
        targets=job.targets,
        precision=job.precision,
        batches=job.batches,
        profiles=(),
        inputs=(),
        outputs=(),
        file=f"{engine_name(role, key)}{ENGINE}",
        size=0,
        sha256="",
        seconds=0.0,
        peak_bytes=0,
        when="",
    )


def _labels(group: Group, manifest: Manifest) -> tuple[str, ...]:
    """The labels whose scores the group gives."""
    inside = {joint.branch for joint in (*group.joints, *group.loose)}
    return tuple(branch.label for tree in manifest.trees for branch in tree.branches if branch.part in inside)


def _parts(group: Group, manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Part -> digest of what is computed, and its precision."""
    forms = dict(group.forms)
    found = {}
    for part in group.parts:
        form = forms.get(part, "float32")
        stored = part if form in (*FLOATS, "float32") else form
        found[part] = (manifest.parts[stored].digest, form if stored == part else "int8")
    return found


def _item(record: EngineRecord, manifest: Manifest) -> Item:
    """What the child is told: whose part is whose, for its messages."""
    owners: dict[str, str] = {}
    several = len(manifest.trees) > 1
    for tree in manifest.trees:
        owners[tree.trunk] = f"the trunk {tree.trunk}" if several else "the trunk"
    labels: dict[str, list[str]] = {}
    for tree in manifest.trees:
        for branch in tree.branches:
            for name in (branch.part, f"{branch.part}.{branch.document.trunk_fingerprint[:16]}"):
                if branch.label in record.labels:
                    labels.setdefault(name, []).append(branch.label)
    for name, those in labels.items():
        owners[name] = f"label {listed(dict.fromkeys(those))}"
    subject = {"merged": "the merged engine", "trunk": "the trunk", "segmenter": "the segmenter"}.get(record.role)
    return Item(record.graph, owners, subject or f"label {listed(record.labels)}")


def _stored(wanted: EngineRecord, folder: Path) -> EngineRecord | None:
    """The record of what is there already and sound; None where it is to be built."""
    path = folder / f"{wanted.name}{RECORD}"
    if not os.path.lexists(path):
        return None
    try:
        found = read_record(path)
        for name in ("graph", "runtime", "version", "targets", "precision", "batches"):
            if getattr(found, name) != getattr(wanted, name):
                _log.info(
                    "%s is built again: %s was %s, is %s",
                    wanted.name,
                    name,
                    getattr(found, name),
                    getattr(wanted, name),
                )
                return None
        check_engine_file(found, folder / found.file)
    except PlanError as error:
        _log.warning("%s is built again: %s", wanted.name, error)
        return None
    return found


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
            write_record(done, folder)
            _log.info(
                "%s: %.1f MB in %.1f s, %.0f MB of memory at most",
                record.name, done.size / 1e6, done.seconds, done.peak_bytes / 1e6,
            )  # fmt: skip
            yield done
        for _ in frames:  # to its end
            pass


def _receive(
    child: Child, frames: Iterator[dict[str, Any]], record: EngineRecord, folder: Path, show: Callable[[str], None]
) -> EngineRecord:
    """One engine, written as it comes; the record of an older one goes before its engine does."""
    digest, size, what = hashlib.sha256(), 0, child.what
    path = folder / record.file
    with atomic_write(path) as out:
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
        seconds=frame["seconds"],
        peak_bytes=frame["peak"],
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        layers=None if frame["layers"] is None else tuple(frame["layers"]),
    )


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """The folder, there and locked: who builds into it second waits, and finds the engines of the first.

    The lock is on the folder itself and ends with the process. A folder that was made for nothing goes again.
    """
    made = False
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            made = True
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PlanPathError(
            f"{folder}: expected a folder for the engines that can be written, found: {reason(error)}; name one with -o"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("%s: another process builds here; waiting for it", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: both build, and each file is whole all the same
            _log.debug("%s: no locks here", folder)
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where it is empty
        raise
    finally:
        os.close(descriptor)


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
