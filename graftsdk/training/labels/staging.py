"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftsdk.errors import InputError
from graftsdk.text import reason

__all__ = ["check_new", "put", "scratch", "staged"]


def check_new(folder: Path) -> None:
    """Raises InputError: a folder with something in it, or something that is no folder."""
    try:
        if any(folder.iterdir()):
            raise InputError(f"{folder}: expected a new or empty folder, found something in it; name another")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{folder}: expected a new or empty folder, found: {reason(error)}") from error


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, removed at the end with what is in it, if it is still there.

    Raises:
        InputError: it cannot be made.
    """
    folder = folder.absolute()
    path = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except OSError as error:
        raise InputError(f"{folder}: expected a folder that can be written, found: {reason(error)}") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def put(path: Path, content: bytes) -> None:
    """A new file in a `scratch` folder. Nobody sees the folder before it is whole, so that the file need not be.

    Raises:
        OSError: the name is taken, or the disk is full or fails.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when the block ends without an error, and else is removed.

    Raises:
        InputError: it cannot be made.
    """
    with scratch(folder) as staging:
        yield staging
        staging.rename(folder.absolute())  # in place of an empty one too
