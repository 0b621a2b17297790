"""Which engines may be deserialised. An engine is code: whoever wrote the file runs in this process.

Taken is what `graftsdk build` made for this user on this machine: its digest lies in the engine cache (mode 0700), and
record and engine in a folder that nobody else can write to. The record is compared first, then every byte is hashed,
then the library sees the engine. `trust_engines=True` takes engines from elsewhere; record and digest must fit as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftsdk.engines.base import Graph
from graftsdk.engines.cache import Cache
from graftsdk.engines.record import RECORD, ROLES, EngineRecord, engine_name, read_engine_file, read_record
from graftsdk.engines.tensorrt import Library
from graftsdk.errors import EngineIncompatible, PlanCorrupt, PlanError, PlanPathError
from graftsdk.files import atomic_write
from graftsdk.text import counted, listed, reason

__all__ = ["Loaded", "Wanted", "built_here", "check_folder", "load_engines", "remember_built"]

_Path = str | os.PathLike[str]
_BUILT = "built"  # folder in the engine cache: an empty file for each engine, named by its digest

_log = logging.getLogger("graftsdk")


@dataclass(frozen=True)
class Wanted:
    """What the engines are for; said in messages, and in the command that builds them.

    Attributes:
        plan: its path. capability: of the GPU, as "8.9". labels: None for all of the plan's.
    """

    plan: str
    capability: str
    precision: str = "float32"
    layout: str = "merged"
    labels: tuple[str, ...] | None = None

    def words(self, library: Library, folder: Path) -> list[str]:
        """The words of the command that builds them into `folder`, to go with the engines that are there."""
        words = ["graftsdk", "build", self.plan, "--for", self.capability, "--runtime", library.name.replace("_", "-")]
        words += ["--precision", self.precision] * (self.precision != "float32")
        words += ["--layout", self.layout] * (self.layout != "merged")
        words += self._as_those_there(library, folder)
        words += ["--labels", *self.labels] if self.labels is not None else []
        return [*words, "-o", str(folder)]

    def _as_those_there(self, library: Library, folder: Path) -> list[str]:
        """Options of the engines there that are most like these: together they run at the sizes that all have.

        Weights can be exchanged in some of a layout's engines only; one of them says that it was asked for.
        """
        found = [record for record in _records(folder) if record.runtime == library.name and record.role != "segmenter"]
        if not found:
            return []
        likest = max(
            found,
            key=lambda record: (
                (record.precision, record.layout) == (self.precision, self.layout),
                self.capability in record.targets,
                record.when,
            ),
        )
        same = [each for each in found if (each.precision, each.layout) == (self.precision, self.layout)]
        refittable = any(each.refittable is not None for each in same)
        return ["--batch", ",".join(map(str, likest.batches)), *["--refittable"] * refittable]

    def command(self, library: Library, folder: Path) -> str:
        """As a shell takes it."""
        return shlex.join(self.words(library, folder))


@dataclass(frozen=True)
class Loaded:
    """Engines whose bytes were found to be what their records say.

    Attributes:
        records, contents: one for each graph. built: whether they had to be built first.
    """

    records: tuple[EngineRecord, ...]
    contents: tuple[bytes, ...]
    built: bool

    @property
    def batches(self) -> tuple[int, ...] | None:
        """The sizes to run at: those that all were built for; None where there is none, and the profiles decide."""
        common = set(self.records[0].batches).intersection(*(record.batches for record in self.records))
        return tuple(sorted(common)) or None

    @property
    def names(self) -> tuple[Mapping[str, str], ...]:
        """For each graph how its parts are called inside the engine, where otherwise; see `Refittable`."""
        return tuple({} if each.refittable is None else each.refittable.names for each in self.records)


def load_engines(
    graphs: Sequence[Graph],
    folder: _Path,
    library: Library,
    wanted: Wanted,
    *,
    trust_engines: bool = False,
    build: Callable[[], object] | None = None,
) -> Loaded:
    """The engines of `graphs` out of a folder that `graftsdk build` wrote.

    Args:
        graphs: what is to be run.
        folder: where engines and records are.
        library: what will run them.
        wanted: what they are for.
        trust_engines: take engines that were built elsewhere or by someone else, and run their code.
        build: called once, with a line in the log, where an engine is missing, does not fit or is damaged; it builds
            what is missing into the folder, which takes minutes. None raises instead.

    Raises:
        EngineIncompatible: no engine of a graph, or one of another runtime, version or GPU, or one that was not built
            here; says which, and what to run.
        PlanPathError: the folder, or a file in it, belongs to someone else, others can write to it, or it is a link.
        PlanCorrupt, PlanTruncated, PlanVersionError: a record or an engine is damaged.
    """
    where = Path(folder)
    try:
        return Loaded(*_load(graphs, where, library, wanted, trust_engines), built=False)
    except (EngineIncompatible, PlanError) as error:
        if build is None or isinstance(error, _NotOurs):
            raise
        _log.warning("building engines, which may take minutes: %s", error)
    build()
    return Loaded(*_load(graphs, where, library, wanted, trust_engines), built=True)


def remember_built(record: EngineRecord, cache: Cache | None = None) -> None:
    """Note that this machine built an engine, so that it will be taken later.

    Raises:
        PlanPathError: the engine cache is not this user's own. OSError: it cannot be written.
    """
    folder = (cache or Cache()).root / _BUILT
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(each, "engine cache")
    with atomic_write(folder / record.sha256) as out:
        os.fchmod(out.fileno(), 0o600)


def built_here(record: EngineRecord, cache: Cache | None = None) -> bool:
    """Whether `remember_built` noted the engine in this user's engine cache.

    Raises:
        PlanPathError: the engine cache is not this user's own.
    """
    folder = (cache or Cache()).root / _BUILT
    with contextlib.suppress(FileNotFoundError):
        for each in (folder.parent, folder):
            _check_folder(each, "engine cache")
        found = os.lstat(folder / record.sha256)
        return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return False


class _NotOurs(PlanPathError):
    """A folder that others can write to: building into it would not make it better."""

    @property
    def code(self) -> str:
        return PlanPathError.__name__


def _load(
    graphs: Sequence[Graph], folder: Path, library: Library, wanted: Wanted, trusted: bool
) -> tuple[tuple[EngineRecord, ...], tuple[bytes, ...]]:
    if not trusted:
        with contextlib.suppress(FileNotFoundError):  # said below, with the command that makes it
            _check_folder(folder, "engines")
    records = [_record(graph, folder, library, wanted) for graph in graphs]
    if not trusted:
        strange = [record.file for record in records if not built_here(record)]
        if strange:
            raise EngineIncompatible(
                f"{folder}: expected engines that were built here, found {listed(strange)}, of which the engine cache "
                f"knows nothing. An engine is code: build it here with: {wanted.command(library, folder)}; or pass "
                f"trust_engines=True where you trust whoever made it"
            )
    return tuple(records), tuple(_content(record, folder, ours=not trusted) for record in records)


def _content(record: EngineRecord, folder: Path, *, ours: bool) -> bytes:
    return read_engine_file(record, folder / record.file, ours=ours)


def _record(graph: Graph, folder: Path, library: Library, wanted: Wanted) -> EngineRecord:
    """The record of the engine of a graph, if it is one that this library and GPU can run."""
    paths = [folder / f"{engine_name(role, graph.key)}{RECORD}" for role in ROLES]
    there = [path for path in paths if os.path.lexists(path)]
    if not there:
        raise EngineIncompatible(
            f"{folder}: expected an engine of graph {graph.key[:16]} ({wanted.layout}, {wanted.precision}), found "
            f"{_described(folder)}; {wanted.command(library, folder)}"
        )
    record = read_record(there[0])
    wrong = []
    if record.graph != graph.key:
        wrong.append(f"graph {graph.key[:24]}, found {record.graph[:24]}")
    if record.runtime != library.name:
        wrong.append(f"runtime {library.name}, found {record.runtime}")
    elif record.version != library.version:
        wrong.append(f"{library.name} {library.version}, found {record.version}")
    if wanted.capability not in record.targets:
        wrong.append(f"compute capability {wanted.capability}, found {', '.join(record.targets)}")
    for kind, ours, theirs in (
        ("inputs", sorted(graph.inputs), sorted(port.name for port in record.inputs)),
        ("outputs", sorted(graph.outputs), sorted(port.name for port in record.outputs)),
    ):
        if ours != theirs:
            wrong.append(f"{kind} {listed(ours)}, found {listed(theirs)}")
    if wrong:
        raise EngineIncompatible(
            f"{folder / record.file}: expected {'; '.join(wrong)}; build it again with: "
            f"{wanted.command(library, folder)}"
        )
    return record


def _records(folder: Path) -> list[EngineRecord]:
    """Those in the folder that can be read."""
    found = []
    for path in sorted(folder.glob(f"*{RECORD}")):
        with contextlib.suppress(PlanError):
            found.append(read_record(path))
    return found


def _described(folder: Path) -> str:
    """What engines there are instead, by their records."""
    try:
        stored = sorted(name for name in os.listdir(folder) if name.endswith(RECORD))
    except OSError as error:
        return f"no folder that can be read ({reason(error)})"
    names = [name for name in stored if name.split("-")[0] in ROLES]  # other files are somebody's notes
    said = []
    for name in names[:4]:
        try:
            record = read_record(folder / name)
        except PlanError:
            said.append(f"a damaged record {name}")
        else:
            labels = f" of {listed(record.labels)}" if record.labels else ""
            said.append(f"{record.role}{labels} in {record.precision} of plan {record.plan[:16]}")
    rest = len(names) - len(said)
    return "; ".join(said) + (f"; and {counted(rest, 'other')}" if rest else "") if said else "none"


def _check_folder(folder: Path, what: str) -> None:
    """Refuse a folder that others could have put something into; see `check_folder`.

    The engines' folder may be a link, since what it leads to is looked at and every engine is one that was noted. The
    engine cache holds those notes, and is none.
    """
    check_folder(folder, os.stat(folder) if what == "engines" else os.lstat(folder), what)


def check_folder(folder: Path, found: os.stat_result, what: str = "engines") -> None:
    """Refuse a folder, by its status, that is not this user's alone to write to.

    Raises:
        PlanPathError: of another user, or others can write to it. PlanCorrupt: no folder.
    """
    if stat.S_ISLNK(found.st_mode):
        raise _NotOurs(f"{what} {folder}: expected a folder, found a link; remove it, or set XDG_CACHE_HOME")
    if not stat.S_ISDIR(found.st_mode):
        raise PlanCorrupt(f"{what} {folder}: expected a folder, found a file")
    if found.st_uid != os.geteuid():
        raise _NotOurs(
            f"{what} {folder}: expected a folder of user {os.geteuid()}, found one of user {found.st_uid}; an engine "
            f"is code: build it into a folder of your own, or pass trust_engines=True where you trust that user"
        )
    if found.st_mode & 0o022:
        raise _NotOurs(
            f"{what} {folder}: expected a folder that only its owner can write, found mode "
            f"{stat.S_IMODE(found.st_mode):04o}: others may have put code there; chmod go-w it and build again"
        )
