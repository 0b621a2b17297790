"""One entry of the engine cache: a folder with model.onnx, weights.bin and entry.json, which says what they must be.

Of a CUDA kernel, `model.onnx` is the compiled image; there are no weights.

entry.json, strict JSON: `format`, `key` (what the entry's name is the hash of), `files` (name -> size, inode,
mtime_ns, sha256), `created` (seconds since 1970) and `sha256` of all this. The digest of weights.bin is for
`Cache.verify`; a warm open trusts the file's size, inode and time instead.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from graftsdk.errors import PlanCorrupt, PlanPathError
from graftsdk.files import atomic_write
from graftsdk.plan.strict_json import Fields, check_text, dump_json, load_json

__all__ = ["FORMAT", "GRAPH_FILE", "WEIGHTS_FILE", "CacheEntry", "entry_name", "inspect", "seal", "touch"]

FORMAT = 1
GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "weights.bin"
RECORD_FILE = "entry.json"
_MAX_RECORD = 1 << 16
_MAX_GRAPH = 1 << 30  # protobuf ends at 2 GiB; a grafted graph without weights has a few MB


@dataclass(frozen=True)
class CacheEntry:
    """One compiled graph in the engine cache."""

    name: str  # the folder's: 64 hex digits, SHA-256 of `key`
    path: Path
    key: Mapping[str, str]  # what was compiled, for what: graph, device, cpu, precision, runtime; empty if unreadable
    size: int  # bytes on disk
    created: int  # seconds since 1970; 0 if unreadable
    last_used: float  # seconds since 1970
    problem: str | None  # why the entry will not be used; None where it is sound


@dataclass(frozen=True)
class _File:
    size: int
    inode: int
    mtime_ns: int
    sha256: str


def entry_name(key: Mapping[str, str]) -> str:
    """The name of the entry for `key`: 64 hex digits."""
    return hashlib.sha256(dump_json({"format": FORMAT, "key": dict(key)}).encode()).hexdigest()


def seal(folder: Path, key: Mapping[str, str]) -> None:
    """Write down what the files in `folder` are, once they are on the disk."""
    files = {}
    for name in (GRAPH_FILE, WEIGHTS_FILE):
        if name == GRAPH_FILE or (folder / name).exists():
            os.chmod(folder / name, 0o600)  # the runtime obeys the umask, which may let the group write
            descriptor = _open_file(folder / name)
            with os.fdopen(descriptor, "rb") as file:
                os.fsync(descriptor)
                found = os.fstat(descriptor)
                files[name] = {
                    "size": found.st_size,
                    "inode": found.st_ino,
                    "mtime_ns": found.st_mtime_ns,
                    "sha256": _sha256(file),
                }
    record: dict[str, Any] = {"format": FORMAT, "key": dict(key), "files": files, "created": int(time.time())}
    record["sha256"] = _digest(record)
    with atomic_write(folder / RECORD_FILE) as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(dump_json(record).encode())


def inspect(path: Path, *, hash_weights: bool = False) -> tuple[CacheEntry, bytes]:
    """The entry in folder `path` and, where it is sound, its graph: the bytes whose digest was checked.

    Never raises for what is wrong with the entry: `problem` says it.
    """
    record: dict[str, Any] = {}
    graph, problem, last_used = b"", None, 0.0
    try:
        _check_folder(path)
        text, last_used = _read_small(path / RECORD_FILE, _MAX_RECORD)
        record = load_json(text, RECORD_FILE)
        graph = _check(path, record, hash_weights=hash_weights)
    except (PlanCorrupt, PlanPathError) as error:
        problem = str(error)
    except FileNotFoundError as error:
        problem = f"{Path(error.filename).name} is missing"
    except OSError as error:
        problem = f"{error.strerror or error}"
    key = record.get("key") if problem is None else _readable(record.get("key"))
    created = record.get("created", 0) if problem is None else 0
    return CacheEntry(path.name, path, key or {}, _size(path), created, last_used, problem), graph


def touch(path: Path) -> None:
    """Note that the entry was used now; the times of the files that are checked stay as they are."""
    os.utime(path / RECORD_FILE, follow_symlinks=False)


def _check(path: Path, record: dict[str, Any], *, hash_weights: bool) -> bytes:
    """The graph's bytes, if everything is as the record says, and the record as the folder's name says.

    Raises:
        PlanCorrupt: something is not.
        OSError: a file cannot be read.
    """
    fields = Fields(record, RECORD_FILE)
    fields.integer("format", FORMAT, FORMAT)
    key = fields.mapping("key", check_text, count=(1, 16))
    files = fields.mapping("files", _read_file_fields, count=(1, 2))
    fields.integer("created", 0, 1 << 40)
    sealed = fields.matching("sha256", "[0-9a-f]{64}")
    fields.done()
    if _digest({name: value for name, value in record.items() if name != "sha256"}) != sealed:
        raise PlanCorrupt(f"{RECORD_FILE}: its own digest differs")
    if entry_name(key) != path.name:
        raise PlanCorrupt(f"{RECORD_FILE}: it belongs to another entry")
    if not {GRAPH_FILE} <= set(files) <= {GRAPH_FILE, WEIGHTS_FILE}:
        raise PlanCorrupt(f"{RECORD_FILE}: expected {GRAPH_FILE} and {WEIGHTS_FILE}, found {sorted(files)}")
    found = {entry.name for entry in os.scandir(path)}
    if found != set(files) | {RECORD_FILE}:
        raise PlanCorrupt(f"files: expected {sorted(files)}, found {sorted(found - {RECORD_FILE})}")
    if WEIGHTS_FILE in files:
        _check_file(path / WEIGHTS_FILE, files[WEIGHTS_FILE], hashed=hash_weights)
    return _check_file(path / GRAPH_FILE, files[GRAPH_FILE], hashed=True, keep=True)


def _check_file(path: Path, expected: _File, *, hashed: bool, keep: bool = False) -> bytes:
    descriptor = _open_file(path)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_size != expected.size:
            raise PlanCorrupt(f"{path.name}: expected {expected.size} bytes, found {found.st_size}")
        if (found.st_ino, found.st_mtime_ns) != (expected.inode, expected.mtime_ns):
            raise PlanCorrupt(f"{path.name}: its inode or time of change is another than when it was written")
        if keep and found.st_size > _MAX_GRAPH:
            raise PlanCorrupt(f"{path.name}: expected at most {_MAX_GRAPH} bytes, found {found.st_size}")
        content = file.read() if keep else b""
        if hashed:
            digest = hashlib.sha256(content).hexdigest() if keep else _sha256(file)
            if digest != expected.sha256:
                raise PlanCorrupt(f"{path.name}: its digest differs")
    return content


def _open_file(path: Path) -> int:
    """A descriptor of a regular file of ours with one name; links are not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not _ours(found):
        os.close(descriptor)
        raise PlanCorrupt(f"{path.name}: expected a regular file with one name that only its owner can write")
    return descriptor


def _check_folder(path: Path) -> None:
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or not _ours(found):
        raise PlanCorrupt("expected a folder, not a link, that only its owner can write")


def _ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _read_small(path: Path, limit: int) -> tuple[bytes, float]:
    descriptor = _open_file(path)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_size > limit:
            raise PlanCorrupt(f"{path.name}: expected at most {limit} bytes, found {found.st_size}")
        return file.read(limit), found.st_mtime


def _read_file_fields(value: Any, where: str) -> _File:
    fields = Fields(value, where)
    found = _File(
        size=fields.integer("size", 0, 1 << 62),
        inode=fields.integer("inode", 0, 1 << 64),
        mtime_ns=fields.integer("mtime_ns", 0, 1 << 63),
        sha256=fields.matching("sha256", "[0-9a-f]{64}"),
    )
    fields.done()
    return found


def _readable(key: object) -> dict[str, str]:
    """The key of a damaged entry, as far as it can be shown."""
    if not isinstance(key, dict):
        return {}
    return {name: value for name, value in key.items() if isinstance(value, str)}


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(dump_json(record).encode()).hexdigest()


def _size(path: Path) -> int:
    try:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path))
    except OSError:
        return 0
