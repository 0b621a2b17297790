"""Who changes a plan: one at a time, on the newest state, with parts whose names are their digests'."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from graftsdk.errors import MergeConflict, PlanPathError
from graftsdk.plan.manifest import Manifest, PartInfo
from graftsdk.plan.reader import Plan, open_plan
from graftsdk.text import reason

__all__ = ["check_digests", "editing", "now"]

_Path = str | os.PathLike[str]


@contextlib.contextmanager
def editing(path: _Path) -> Iterator[Plan]:
    """The plan at `path`, opened while no other process edits it: a change that waited sees the one before it."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise PlanPathError(f"{str(path)!r}: expected a plan file, found: {reason(error)}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_ino != _inode(path):
                continue  # replaced while this one waited
            with open_plan(Path(path)) as plan:
                yield plan
            return
        finally:
            os.close(descriptor)


def now() -> str:
    """The time as a manifest has it, UTC: "2026-11-25T17:00:00Z"."""
    # SOURCE_DATE_EPOCH makes two writes of one plan equal to the byte (reproducible-builds.org).
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_digests(manifest: Manifest, infos: Mapping[str, PartInfo], where: str) -> None:
    """Refuse a part whose name, 16 digits of its digest, is another part's: 64 bits can be made to collide."""
    for name, info in infos.items():
        known = manifest.parts.get(name, info)
        if (known.digest, known.role) != (info.digest, info.role):
            raise MergeConflict(f"{where}: two parts share the name {name}: {known.digest} and {info.digest}")


def _inode(path: _Path) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return -1
