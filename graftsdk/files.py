"""The one way in which graftsdk writes files: whole or not at all.

A temporary file in the target's own folder, write, flush, fsync, rename, fsync of the folder. A killed writer
leaves at most its temporary file, which the next writer of the same target removes.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graftsdk.errors import PlanPathError

__all__ = ["atomic_write", "check_target"]


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file whose content takes the place of `path` when the block ends without an error.

    Raises:
        PlanPathError: the target is a folder, a link or has several hard links, or its folder cannot be written.
        OSError: the disk is full or fails; the target is untouched and the temporary file removed.
    """
    target = Path(path)
    check_target(target)
    _remove_stale(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except PermissionError as error:
        raise PlanPathError(f"{target}: expected a folder that can be written, found {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "r+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def check_target(target: Path) -> None:
    """Refuse a target that a rename would follow or break.

    Raises:
        PlanPathError: its folder is missing, or it is a folder, a link, a device or one of several hard links.
    """
    if not target.parent.is_dir():
        raise PlanPathError(f"{target}: expected an existing folder, {target.parent} is none; create it first")
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "a folder" if stat.S_ISDIR(found.st_mode) else "no file"
        raise PlanPathError(f"{target}: expected a regular file or nothing, found {kind}; name another path")
    if found.st_nlink > 1:
        raise PlanPathError(f"{target}: expected a file with one name, found {found.st_nlink} hard links")


def _remove_stale(target: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\.[0-9a-f]{{8}}\.tmp")
    for entry in os.scandir(target.parent):
        match = pattern.fullmatch(entry.name)
        if match is not None and not _alive(int(match[1])):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
