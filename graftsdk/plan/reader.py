"""Reading a plan: the header at once, a part's bytes when the part is asked for, each byte hashed before it is used."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graftsdk.errors import PlanCorrupt, PlanPathError, PlanTruncated
from graftsdk.plan.container import Section, parse_header
from graftsdk.plan.manifest import Manifest
from graftsdk.plan.part import EXTERNAL_BYTES, Part, numpy_dtype, part_digest
from graftsdk.text import reason

__all__ = ["Plan", "PlanSource", "load_plan", "open_plan"]

PlanSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


class Plan:
    """A plan file, mapped. `with open_plan(path) as plan` closes it.

    Attributes:
        path: the file, or None for bytes and file objects. inode: of the file that is mapped, or None.
        manifest: what it holds. digest: SHA-256 of its header, 64 hex digits; names this very plan.
        labels: every label, in the plan's order.
        parts: part name -> Part, every byte hashed before it is handed out.
    """

    def __init__(self, data: memoryview, path: Path | None, inode: int | None = None) -> None:
        where = str(path) if path is not None else "plan"
        header = parse_header(data, where)
        self.path = path
        self.inode = inode
        self.digest = header.digest
        self.manifest = Manifest.from_json(header.manifest, f"{where} manifest")
        self._where = where
        self._data = data
        if set(header.sections) != set(self.manifest.tensors):
            odd = sorted(set(header.sections) ^ set(self.manifest.tensors))[0]
            raise PlanCorrupt(f"{where}: tensor {odd[:80]!r} stands only in the file or only in the manifest")
        self._sections: dict[str, dict[str, Section]] = {part: {} for part in self.manifest.parts}
        for name, section in header.sections.items():
            part, _, initialiser = name.partition("/")
            _check_section(section, initialiser, where)
            self._sections[part][initialiser] = section
        self.parts: Mapping[str, Part] = _Parts(self)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, in the plan's order."""
        return self.manifest.labels

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return len(self._data)

    def sections(self, part: str) -> dict[str, Section]:
        """Where a part's tensors lie, by initialiser name; its graph under ""."""
        return self._sections[part]

    def bytes_of(self, section: Section) -> memoryview:
        """A section's bytes as they lie in the file, unchecked."""
        return self._data[section.offset : section.offset + section.size]

    def check(self) -> None:
        """Hash every byte of every tensor.

        Raises:
            PlanCorrupt: a tensor's bytes are not those that the manifest names, or a part lacks its digest.
        """
        workers = min(8, len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(workers) as pool:  # hashing releases the GIL
            for part in pool.map(self.parts.__getitem__, self.manifest.parts):
                del part

    def close(self) -> None:
        """Let go of the file. Arrays that were handed out keep it mapped until they are gone."""
        self._data = memoryview(b"")
        self._sections = {}
        self.parts = {}

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Plan({self._where!r}, labels={list(self.labels)})"


class _Parts(Mapping[str, Part]):
    """Parts by name, checked on first use and kept."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._checked: dict[str, Part] = {}

    def __getitem__(self, name: str) -> Part:
        if name not in self._plan.manifest.parts:
            raise KeyError(name)
        if name not in self._checked:
            self._checked[name] = _read_part(self._plan, name)
        return self._checked[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.manifest.parts)

    def __len__(self) -> int:
        return len(self._plan.manifest.parts)


def open_plan(source: PlanSource) -> Plan:
    """A plan whose header is checked; each part is hashed when it is handed out.

    Args:
        source: a path (mapped, not read), bytes, or a binary file object (read to its end).

    Raises:
        PlanError: one leaf for each way in which a file can lie; see `graftsdk.errors`.
        PlanPathError: no such file, or not a regular one.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return Plan(*_map_file(path))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Plan(memoryview(bytes(source)), None)  # a copy: the caller may change its own bytes
    read = getattr(source, "read", None)
    if read is None:
        raise PlanPathError(f"expected a path, bytes or a binary file object, found {type(source).__name__}")
    content = read()
    if not isinstance(content, bytes):
        raise PlanPathError(f"expected a file object opened in binary mode, it gave {type(content).__name__}")
    return Plan(memoryview(content), None)


def load_plan(source: PlanSource) -> Plan:
    """A plan whose every byte was hashed and found right. Arguments and errors as `open_plan`."""
    plan = open_plan(source)
    plan.check()
    return plan


def _map_file(path: Path) -> tuple[memoryview, Path, int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise PlanPathError(f"{str(path)!r}: expected a plan file, found: {reason(error)}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise PlanPathError(f"{path}: expected a regular file")
        if found.st_size == 0:
            raise PlanTruncated(f"{path}: expected a plan, found an empty file")
        return memoryview(mmap.mmap(descriptor, found.st_size, access=mmap.ACCESS_READ)), path, found.st_ino
    finally:
        os.close(descriptor)


def _check_section(section: Section, initialiser: str, where: str) -> None:
    """A graph is a row of bytes under the part's bare name; a weight has a name, and 1 KiB or more."""
    if "/" not in section.name:
        if section.dtype != "U8" or len(section.shape) != 1:
            raise PlanCorrupt(f"{where}: expected the graph {section.name!r} as uint8[n], found {section.dtype}")
    elif not initialiser or section.size < EXTERNAL_BYTES:
        raise PlanCorrupt(
            f"{where}: expected a named tensor of {EXTERNAL_BYTES} bytes or more, "
            f"found {section.name[:80]!r} with {section.size}"
        )


def _read_part(plan: Plan, name: str) -> Part:
    info = plan.manifest.parts[name]
    graph = b""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    hashes: dict[str, str] = {}
    listed: dict[str, tuple[str, tuple[int, ...], str]] = {}
    for initialiser, section in plan.sections(name).items():
        content = plan.bytes_of(section)
        if initialiser == "":
            graph = bytes(content)  # copied, then hashed: what is parsed later is what was hashed
            content = memoryview(graph)
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != plan.manifest.tensors[section.name]:
            raise PlanCorrupt(
                f"part {name}: the bytes of {section.name!r} were changed; fetch or export the plan again"
            )
        hashes[initialiser] = sha256
        if initialiser == "":
            continue
        array: np.ndarray[Any, Any] = np.frombuffer(content, dtype=numpy_dtype(section.dtype)).reshape(section.shape)
        tensors[initialiser] = array
        listed[initialiser] = (section.dtype, section.shape, sha256)
    if part_digest(info.role, hashes[""], listed) != info.digest:
        raise PlanCorrupt(f"part {name}: its content has another digest than the manifest states")
    part = Part(info.role, graph, tensors)
    part.__dict__["hashes"] = hashes  # just computed from the same bytes
    return part
