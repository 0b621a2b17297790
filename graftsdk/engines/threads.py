"""How many threads an engine uses, and the one pool that all engines of a process may share."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

from graftsdk.errors import EngineForked, EngineIncompatible, InputError

__all__ = ["check_threads", "cpu_quota", "default_threads", "enter_session", "share_threads", "shared_threads"]

_lock = threading.Lock()
_shared: int | None = None  # the size of the process's pool, once share_threads was called
_opened = False  # whether a session was opened in this process
_forked = False  # whether this process was forked from one that shares its threads


def default_threads(root: str | os.PathLike[str] = "/") -> int:
    """The physical cores that this process may use: affinity mask, cgroup quota (rounded up), hyper-threads once.

    `root` is the folder under which proc and sys are found.
    """
    mask = os.sched_getaffinity(0)
    cores = _physical_cores(Path(root), mask)
    quota = cpu_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def share_threads(n: int) -> None:
    """Make all engines of this process run on one pool of `n` threads. Call it before the first engine is opened.

    ONNX Runtime then refuses every default `InferenceSession` that other code makes in this process, the pool
    cannot be resized, and a forked child has none of its threads (use spawn).

    Raises:
        InputError: `n` is not a number of threads.
        EngineIncompatible: an engine was opened already, or the pool has another size.
        MissingDependency: onnxruntime is not at hand.
    """
    global _shared
    check_threads(n, shared=None)
    with _lock:
        if _shared == n:
            return
        if _shared is not None:
            raise EngineIncompatible(
                f"share_threads({n}): the process shares {_shared} threads, which cannot be changed"
            )
        if _opened:
            raise EngineIncompatible(
                f"share_threads({n}): expected no session yet, found one; call it before the first engine is opened"
            )
        from graftsdk.engines.onnxruntime import set_global_pool

        set_global_pool(n)
        _shared = n


def shared_threads() -> int | None:
    """The size of the shared pool; None where each session has its own."""
    return _shared


def check_threads(threads: int | None, shared: int | None) -> int | None:
    """`threads`, if it is None or a number of threads that the shared pool allows.

    Raises:
        InputError: it is not.
    """
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise InputError(f"threads: expected an integer from 1 to 1024, found {threads!r:.80}")
    if shared is not None and threads != shared:
        raise InputError(f"threads={threads}: expected {shared}, the number given to share_threads, or None")
    return threads


def enter_session() -> int | None:
    """Note that a session is about to be opened; the size of the shared pool, if there is one.

    Raises:
        EngineForked: the pool's threads stayed in the parent process.
    """
    global _opened
    with _lock:
        if _forked:
            raise EngineForked(
                "this process was forked from one that called share_threads and has none of the pool's threads; "
                "start it with multiprocessing's method 'spawn'"
            )
        _opened = True
        return _shared


def _after_fork_in_child() -> None:
    global _lock, _forked
    _lock = threading.Lock()  # the parent's may be held by a thread that is not here
    _forked = _forked or _shared is not None


os.register_at_fork(after_in_child=_after_fork_in_child)


def _physical_cores(root: Path, mask: set[int]) -> int:
    """How many sets of hyper-thread siblings the affinity mask touches; CPUs whose siblings are unknown count alone."""
    cores = set()
    for cpu in mask:
        siblings = _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings if siblings else str(cpu))
    return len(cores)


def cpu_quota(root: str | os.PathLike[str] = "/") -> float | None:
    """The smallest CPU quota of this process's control groups and their parents, in CPUs; None without one."""
    root, quotas = Path(root), []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            quotas += [_quota_v2(folder) for folder in _upwards(root / "sys/fs/cgroup", path)]
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", "cpu,cpuacct"):
                quotas += [_quota_v1(folder) for folder in _upwards(root / "sys/fs/cgroup" / mount, path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _upwards(mount: Path, path: str) -> list[Path]:
    """The group's folder and its parents; a container often sees the last of them only."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return [mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _quota_v2(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    return _ratio(fields[0], fields[1]) if len(fields) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """None for "max", "-1" and what is no number."""
    if not quota.isdecimal() or not period.isdecimal() or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    """The file's text; empty where it is missing or unreadable, which is usual for these."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
