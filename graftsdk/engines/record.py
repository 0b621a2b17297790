"""What is written beside an engine that was built ahead: what it is, what made it, what its bytes must be.

`<name>.engine` is the engine, `<name>.json` this record, strict JSON. An engine says nothing of itself that could be
relied on: no checksum, and its own version check can be passed by a flipped byte (measured, tensorrt_rtx 1.7.1).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from graftsdk.engines.feeds import Port
from graftsdk.engines.refittable import Refittable
from graftsdk.engines.tensorrt import RUNTIMES
from graftsdk.errors import PlanCorrupt, PlanPathError, PlanTruncated, PlanVersionError
from graftsdk.files import atomic_write
from graftsdk.plan.lowered import PRECISIONS
from graftsdk.plan.strict_json import Fields, load_json
from graftsdk.text import reason

__all__ = [
    "ENGINE",
    "RECORD",
    "ROLES",
    "EngineRecord",
    "Profile",
    "check_engine_file",
    "engine_name",
    "port_dict",
    "read_engine_file",
    "read_port",
    "read_record",
    "record_of",
    "write_record",
]

ENGINE, RECORD = ".engine", ".json"
FORMAT = 1
# What an engine computes, and the layout that it serves; a segmenter stands in front of either.
ROLES = {"merged": "merged", "trunk": "split", "branch": "split", "segmenter": "any"}
_DTYPES = ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")
_HEX64 = "[0-9a-f]{64}"
_WHEN = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z"
_CAPABILITY = r"[1-9]\d?\.\d"
_MOST_BYTES = 1 << 22  # of a record: 256 labels, as many parts and outputs, and the layers
_MOST = 4096


@dataclass(frozen=True)
class Profile:
    """Batch sizes that the engine takes, least to most, and the one that it is tuned for."""

    least: int
    best: int
    most: int


@dataclass(frozen=True)
class EngineRecord:
    """What an engine is.

    Attributes:
        role: "merged", "trunk", "branch" or "segmenter". graph: key of the graph inside, 64 hex digits.
        plan: digest of the plan that it was built from; others that hold the same parts may use it too.
        labels: whose scores it gives; of a trunk and a segmenter none.
        parts: part name -> (digest, precision in which it is computed).
        runtime: "tensorrt" or "tensorrt_rtx". version: the exact one that built it, and alone can run it.
        targets: compute capabilities, as "8.9". precision: as asked for.
        batches: the sizes that are fed. profiles: in the engine's order; none where the batch is fixed.
        inputs, outputs: in the engine's order; a size is None where it is the batch.
        file: name of the engine beside the record. size: its bytes. sha256: of its content.
        seconds: that the build took. peak_bytes: most resident memory of the process that built it.
        when: UTC, "2026-11-25T17:00:00Z". layers: as the engine inspector names them; None without a device.
        refittable: what it takes to exchange its weights; None where they cannot be.
    """

    role: str
    graph: str
    plan: str
    labels: tuple[str, ...]
    parts: Mapping[str, tuple[str, str]]
    runtime: str
    version: str
    targets: tuple[str, ...]
    precision: str
    batches: tuple[int, ...]
    profiles: tuple[Profile, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    file: str
    size: int
    sha256: str
    seconds: float
    peak_bytes: int
    when: str
    layers: tuple[str, ...] | None = None
    refittable: Refittable | None = None

    @property
    def layout(self) -> str:
        """Which layout it serves: "merged", "split", or "any" for a segmenter."""
        return ROLES[self.role]

    @property
    def name(self) -> str:
        """Of its files, without an ending."""
        return engine_name(self.role, self.graph)

    def to_dict(self) -> dict[str, Any]:
        """JSON types, as they stand in the file."""
        return {
            "format": FORMAT,
            "role": self.role,
            "layout": self.layout,
            "graph": self.graph,
            "plan": self.plan,
            "labels": list(self.labels),
            "parts": {name: {"digest": digest, "precision": form} for name, (digest, form) in self.parts.items()},
            "runtime": self.runtime,
            "version": self.version,
            "targets": list(self.targets),
            "precision": self.precision,
            "batches": list(self.batches),
            "profiles": [[each.least, each.best, each.most] for each in self.profiles],
            "inputs": [port_dict(port) for port in self.inputs],
            "outputs": [port_dict(port) for port in self.outputs],
            "file": self.file,
            "size": self.size,
            "sha256": self.sha256,
            "seconds": round(self.seconds, 3),
            "peak_bytes": self.peak_bytes,
            "when": self.when,
            "layers": None if self.layers is None else list(self.layers),
            **({} if self.refittable is None else {"refittable": self.refittable.to_dict()}),
        }

    @classmethod
    def from_dict(cls, value: Any, where: str) -> EngineRecord:
        """What `to_dict` gave, checked field by field.

        Raises:
            PlanCorrupt: a field is missing, unknown, or out of its range. PlanVersionError: another format.
        """
        fields = Fields(value, where)
        written = fields.integer("format", 1, 1 << 16)
        if written != FORMAT:
            raise PlanVersionError(f"{where}: expected record format {FORMAT}, found {written}; build the engine again")
        role = fields.choice("role", tuple(ROLES))
        fields.choice("layout", (ROLES[role],))
        found = cls(
            role=role,
            graph=fields.matching("graph", _HEX64),
            plan=fields.matching("plan", _HEX64),
            labels=fields.texts("labels", count=(0, _MOST)),
            parts=fields.mapping("parts", _read_part, count=(1, _MOST)),
            runtime=fields.choice("runtime", RUNTIMES),
            version=fields.matching("version", r"\d+(\.\d+){1,3}\S{0,40}"),
            targets=fields.matchings("targets", _CAPABILITY, count=(1, 16)),
            precision=fields.choice("precision", PRECISIONS),
            batches=fields.integers("batches", 1, 1024, count=(1, 64)),
            profiles=fields.items("profiles", _read_profile, count=(0, 64)),
            inputs=fields.items("inputs", read_port, count=(1, _MOST)),
            outputs=fields.items("outputs", read_port, count=(1, _MOST)),
            file=fields.matching("file", "[a-z0-9-]{1,80}[.]engine"),
            size=fields.integer("size", 1, 1 << 42),
            sha256=fields.matching("sha256", _HEX64),
            seconds=fields.number("seconds", 0.0, 1e7),
            peak_bytes=fields.integer("peak_bytes", 0, 1 << 50),
            when=fields.matching("when", _WHEN),
            layers=fields.texts("layers", count=(0, 1 << 16)) if fields.has("layers") else fields.null("layers"),
            refittable=Refittable.from_dict(fields.raw("refittable"), f"{where}.refittable")
            if fields.has("refittable")
            else None,
        )
        fields.done()
        return found


def engine_name(role: str, key: str) -> str:
    """Name of an engine's files without an ending: its role and the first 16 digits of its graph's key."""
    return f"{role}-{key[:16]}"


def write_record(record: EngineRecord, folder: Path) -> Path:
    """The file `<name>.json` in `folder`, written whole or not at all.

    Raises:
        PlanPathError, OSError: as `graftsdk.files.atomic_write`.
    """
    path = folder / f"{record.name}{RECORD}"
    with atomic_write(path) as out:
        out.write(json.dumps(record.to_dict(), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    return path


def read_record(path: str | os.PathLike[str]) -> EngineRecord:
    """The record in a file.

    Raises:
        PlanPathError: no such file, or no regular one. PlanCorrupt: damaged. PlanVersionError: of another graftsdk.
    """
    where = Path(path)
    with _open_regular(where, "a record (.json) beside the engine; without it an engine cannot be told") as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise PlanCorrupt(f"{where}: expected a record of at most {_MOST_BYTES} bytes")
    record = EngineRecord.from_dict(load_json(text, str(where)), str(where))
    if record.file != f"{record.name}{ENGINE}":
        raise PlanCorrupt(f"{where}: expected the file {record.name}{ENGINE}, found {record.file}")
    return record


def record_of(engine: str | os.PathLike[str]) -> EngineRecord:
    """The record beside an engine. Errors as `read_record`."""
    return read_record(Path(engine).with_suffix(RECORD))


def check_engine_file(record: EngineRecord, path: str | os.PathLike[str], *, ours: bool = True) -> None:
    """Prove that the file holds the engine that was recorded; every byte is hashed. Errors as `read_engine_file`."""
    where = Path(path)
    with _open_engine(record, where, ours=ours) as file:
        _check_digest(record, where, hashlib.file_digest(file, "sha256").hexdigest())


def read_engine_file(record: EngineRecord, path: str | os.PathLike[str], *, ours: bool = True) -> bytes:
    """The engine, found right. It is read once: what was hashed is what is returned, whoever writes meanwhile.

    Args:
        record: see `record_of`. path: the engine.
        ours: refuse a file that belongs to another user, or that others can write.

    Raises:
        PlanPathError: missing, a link, no regular file, or not ours.
        PlanTruncated: shorter than recorded. PlanCorrupt: longer, or other bytes.
    """
    where = Path(path)
    with _open_engine(record, where, ours=ours) as file:
        content = file.read(record.size)
    _check_digest(record, where, hashlib.sha256(content).hexdigest())
    return content


def _open_engine(record: EngineRecord, where: Path, *, ours: bool) -> BufferedReader:
    """The file, as long as recorded."""
    file = _open_regular(where, "the engine that its record names; build it again", ours=ours)
    size = os.fstat(file.fileno()).st_size
    if size != record.size:
        file.close()
        kind = PlanTruncated if size < record.size else PlanCorrupt
        raise kind(f"{where}: expected {record.size} bytes, found {size}; build it again with graftsdk build")
    return file


def _check_digest(record: EngineRecord, where: Path, digest: str) -> None:
    if digest != record.sha256:
        raise PlanCorrupt(
            f"{where}: expected the bytes that were built (SHA-256 {record.sha256[:16]}…), found others "
            f"({digest[:16]}…); build it again with graftsdk build"
        )


def _open_regular(where: Path, wanted: str, *, ours: bool = False) -> BufferedReader:
    try:
        descriptor = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:
        raise PlanPathError(f"{where}: expected {wanted}; found: {reason(error)}") from error
    found = os.fstat(descriptor)
    what = ""
    if not stat.S_ISREG(found.st_mode):
        what = "no regular file"
    elif ours and found.st_uid != os.geteuid():
        what = f"a file of user {found.st_uid}; build it yourself, or copy it once you trust it"
    elif ours and found.st_mode & 0o022:
        what = f"one that others may write (mode {stat.S_IMODE(found.st_mode):04o}); chmod go-w, or build it again"
    if what:
        os.close(descriptor)
        raise PlanPathError(f"{where}: expected {wanted}; found {what}")
    return os.fdopen(descriptor, "rb")


def port_dict(port: Port) -> dict[str, Any]:
    """A port as JSON types."""
    return {"name": port.name, "dtype": port.dtype.name, "shape": list(port.shape)}


def read_port(value: Any, where: str) -> Port:
    """What `port_dict` gave. Raises PlanCorrupt."""
    fields = Fields(value, where)
    name, dtype = fields.text("name"), fields.choice("dtype", _DTYPES)
    shape = fields.items("shape", _read_side, count=(0, 8))
    fields.done()
    return Port(name, np.dtype(dtype), shape)


def _read_side(value: Any, where: str) -> int | None:
    return None if value is None else Fields({"size": value}, where).integer("size", 0, 1 << 31)


def _read_profile(value: Any, where: str) -> Profile:
    least, best, most = Fields({"batches": value}, where).integers("batches", 1, 1024, count=(3, 3))
    if not least <= best <= most:
        raise PlanCorrupt(f"{where}: expected least <= best <= most, found {value!r:.80}")
    return Profile(least, best, most)


def _read_part(value: Any, where: str) -> tuple[str, str]:
    fields = Fields(value, where)
    found = fields.matching("digest", _HEX64), fields.choice("precision", PRECISIONS)
    fields.done()
    return found
