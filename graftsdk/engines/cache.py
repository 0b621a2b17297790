"""The engine cache: compiled graphs on the disk, for this user, kept between processes.

An entry is built in a folder of its own beside the others and renamed, so that it is whole or not there. Nothing
in it is trusted that this user could not have written: owner and mode of every folder and file are checked, links
are never followed. What does not fit is removed and compiled again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from graftsdk.engines.entry import CacheEntry, entry_name, inspect, seal, touch
from graftsdk.errors import PlanPathError

__all__ = ["Cache", "CacheEntry", "default_root"]

LIMIT = 10 << 30  # bytes; the design's 10 GiB
_ENTRY = re.compile("[0-9a-f]{64}")
_TEMPORARY = re.compile(r"\.tmp\.[0-9a-f]{16}")
_LOCK_FILE = ".lock"

_log = logging.getLogger("graftsdk")


def default_root() -> Path:
    """`$XDG_CACHE_HOME/graftsdk`, else `~/.cache/graftsdk`; a relative XDG_CACHE_HOME is ignored, as XDG says."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return Path(home if os.path.isabs(home) else os.path.expanduser("~/.cache")) / "graftsdk"


class Cache:
    """The compiled graphs in one folder.

    Args:
        root: the folder; None for `default_root()`. It is made, with mode 0700, when something is stored.
        limit: bytes; the least recently used entries beyond it are removed when one is stored.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, *, limit: int = LIMIT) -> None:
        self.root = default_root() if root is None else Path(root)
        self.limit = limit

    def ls(self) -> list[CacheEntry]:
        """The entries, the most recently used first; their weights are not hashed.

        Raises:
            PlanPathError: the folder belongs to someone else, others may write to it, or it is a link.
        """
        return self._entries(hash_weights=False)

    def verify(self) -> list[CacheEntry]:
        """The entries with every byte hashed. Those with a `problem` are removed: the next open compiles them again.

        Raises:
            PlanPathError: as in `ls`.
        """
        found = self._entries(hash_weights=True)
        for entry in found:
            if entry.problem is not None:
                self._remove(entry.path)
        return found

    def clear(self) -> tuple[int, int]:
        """Remove every entry; how many there were, and their bytes. Engines that are open are not disturbed.

        Raises:
            PlanPathError: as in `ls`.
        """
        found = self._entries(hash_weights=False)
        for entry in found:
            self._remove(entry.path)
        if self._usable():
            self._remove_stale()
        return len(found), sum(entry.size for entry in found)

    def find(self, key: Mapping[str, str]) -> tuple[CacheEntry, bytes] | None:
        """The sound entry for `key` and the bytes of its graph, touched; None where it must be compiled (log says why).

        Raises:
            PlanPathError: as in `ls`.
            OSError: the cache cannot be read.
        """
        path = self.root / entry_name(key)
        if not self._usable() or not os.path.lexists(path):
            return None
        entry, graph = inspect(path)
        if entry.problem is not None:
            _log.warning("engine cache: %s is removed and compiled again: %s", path, entry.problem)
            self._remove(path)
            return None
        with contextlib.suppress(OSError):  # a read-only cache serves as well, it only forgets what was used when
            touch(path)
        return entry, graph

    def discard(self, entry: CacheEntry, why: str) -> None:
        """Remove an entry that turned out not to work."""
        _log.warning("engine cache: %s is removed and compiled again: %s", entry.path, why)
        self._remove(entry.path)

    @contextlib.contextmanager
    def build(self, key: Mapping[str, str]) -> Iterator[Path]:
        """A new folder for the files of an entry, which becomes the entry for `key` when the block ends without error.

        Where another process was faster, its entry stays and ours is dropped. The folder is locked while it is
        built (flock: the lock ends with the process), so that leftovers of killed processes can be told from it.

        Raises:
            PlanPathError: as in `ls`.
            OSError: the cache cannot be written.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._usable()
        self._remove_stale()
        with self._temporary() as folder:
            yield folder
            seal(folder, key)
            _sync(folder)
            with contextlib.suppress(FileExistsError):  # the other process's entry is as good
                self._publish(folder, self.root / entry_name(key))
        self._evict(keep=entry_name(key))

    def explain(self, key: Mapping[str, str]) -> str | None:
        """How `key` differs from the entries that hold the same graph; None where there are none."""
        others = [entry.key for entry in self.ls() if entry.key.get("graph") == key["graph"] and entry.key != key]
        if not others:
            return None
        differing = {name: other.get(name, "") for other in others for name in key if other.get(name) != key[name]}
        return ", ".join(f"{name} was {value}, is {key[name]}" for name, value in sorted(differing.items()))

    def _entries(self, *, hash_weights: bool) -> list[CacheEntry]:
        if not self._usable():
            return []
        names = [name for name in os.listdir(self.root) if _ENTRY.fullmatch(name)]
        found = [inspect(self.root / name, hash_weights=hash_weights)[0] for name in names]
        return sorted(found, key=lambda entry: (-entry.last_used, entry.name))

    def _usable(self) -> bool:
        """Whether the folder is there; it is refused where others could have put something into it."""
        try:
            found = os.lstat(self.root)
        except FileNotFoundError:
            return False
        if stat.S_ISLNK(found.st_mode):
            raise PlanPathError(f"engine cache {self.root}: expected a folder, found a link; remove it")
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "expected a folder", str(self.root))
        if found.st_uid != os.geteuid():
            raise PlanPathError(
                f"engine cache {self.root}: expected a folder of user {os.geteuid()}, found one of user "
                f"{found.st_uid}; set XDG_CACHE_HOME to a folder of your own"
            )
        if found.st_mode & 0o022:
            raise PlanPathError(
                f"engine cache {self.root}: expected mode 0700, found {stat.S_IMODE(found.st_mode):04o}: others may "
                f"have written to it; remove it"
            )
        return True

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A locked folder, gone at the end unless it was renamed."""
        folder = self.root / f".tmp.{secrets.token_hex(8)}"
        with self._locked():  # or another process might take the folder for a leftover before it is locked
            folder.mkdir(mode=0o700)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            _delete(folder)
            _unlock(descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The cache's own lock, held for moments only."""
        descriptor = os.open(self.root / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            _unlock(descriptor)

    def _publish(self, folder: Path, target: Path) -> None:
        try:
            os.rename(folder, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, "the entry is there", str(target)) from error
            raise
        _sync(self.root)

    def _remove_stale(self) -> None:
        """Remove what killed processes left: temporary folders that nobody holds a lock on."""
        with self._locked():
            for name in os.listdir(self.root):
                if _TEMPORARY.fullmatch(name) and _abandoned(self.root / name):
                    _log.info("engine cache: %s, left by a process that ended, is removed", self.root / name)
                    _delete(self.root / name)

    def _remove(self, path: Path) -> None:
        """Take the entry away in one step, then delete its files; nobody sees half of it."""
        if path.is_symlink() or not path.is_dir():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        rubbish = self.root / f".tmp.{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            os.rename(path, rubbish)
        _delete(rubbish)

    def _evict(self, keep: str) -> None:
        entries = self.ls()
        total = sum(entry.size for entry in entries)
        for entry in reversed(entries):
            if total > self.limit and entry.name != keep:
                _log.info("engine cache: %s goes, the least recently used beyond %d bytes", entry.path, self.limit)
                self._remove(entry.path)
                total -= entry.size


def _unlock(descriptor: int) -> None:
    """Give the lock back, then the descriptor: a child forked meanwhile has a copy, and closing ours would not do."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True  # no folder: nothing that we make
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _delete(path: Path) -> None:
    """Delete a folder or link of ours; rmtree does not follow links."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
