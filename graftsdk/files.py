"""The one way in which graftsdk writes files: whole or not at all.

A temporary file in the target's own folder, write, flush, fsync, rename, fsync of the folder. A killed writer
leaves at most its temporary file, which the next writer of the same target removes. A writer at work holds a lock
on its temporary file, by which it is told from a killed one; process ids could not tell, since containers that
share a folder share no ids.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graftsdk.errors import PlanPathError
from graftsdk.text import reason

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
    descriptor, temporary = _open_temporary(target)
    try:
        with os.fdopen(descriptor, "r+b") as file:
            with contextlib.suppress(FileNotFoundError):  # a private file stays private
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(target, follow_symlinks=False).st_mode))
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


def _open_temporary(target: Path) -> tuple[int, Path]:
    while True:
        temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
                raise PlanPathError(
                    f"{target}: expected a folder that can be written, found: {reason(error)}"
                ) from error
            raise
        with contextlib.suppress(OSError):  # a file system without locks: nobody removes anything there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # another writer took it for a dead one's before it was locked


def _remove_stale(target: Path) -> None:
    """Remove the temporary files of killed writers of `target`: those that nobody holds a lock on."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.\d+\.[0-9a-f]{{8}}\.tmp")
    try:
        names = [name for name in os.listdir(target.parent) if pattern.fullmatch(name)]
    except PermissionError:  # a folder that can be written but not listed
        return
    for name in names:
        with contextlib.suppress(OSError):  # gone, locked or not ours: left to its owner
            _remove_unlocked(target.with_name(name))


def _remove_unlocked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that sync no folders
            raise
    finally:
        os.close(descriptor)
