"""The folder that engines are built into: this user's alone, and locked while it is built into."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from graftsdk.engines.trust import check_folder
from graftsdk.errors import PlanPathError
from graftsdk.text import reason

__all__ = ["engine_folder"]

_log = logging.getLogger("graftsdk")


@contextlib.contextmanager
def engine_folder(folder: Path) -> Iterator[None]:
    """The folder, there and locked: who builds into it second waits, and finds the engines of the first.

    The lock is on the folder itself and ends with the process. A folder that was made for nothing goes again.
    """
    descriptor, made = _locked(folder)
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where it is empty
        raise
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> tuple[int, bool]:
    """The folder, open and locked, and whether it was made here.

    Raises:
        PlanPathError: it cannot be made or opened, or is not this user's alone to write to.
    """
    made = False
    while True:
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)  # what others can write to is not run
                made = True
        except OSError as error:
            raise _refusal(folder, error) from error
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # whoever had made it removed it again
            continue
        except OSError as error:
            raise _refusal(folder, error) from error
        try:
            check_folder(folder, os.fstat(descriptor))
            _lock(descriptor, folder)
            with contextlib.suppress(FileNotFoundError):  # who held the lock may have removed what he had made
                if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                    return descriptor, made
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("%s: another process builds here; waiting for it", folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks: both build, and each file is whole all the same
        _log.debug("%s: no locks here", folder)


def _refusal(folder: Path, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return error
    return PlanPathError(
        f"{folder}: expected a folder for the engines that can be written, found: {reason(error)}; name one with -o"
    )
