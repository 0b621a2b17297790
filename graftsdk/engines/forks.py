"""What happens to engines in a forked child: sessions are leaked, engines reopen at their next run.

Destroying an inherited ONNX Runtime session in a child can crash it: its thread pool joins threads that do not
exist there (onnxruntime pull request 31961). So each session alive at the fork gets a reference that is never
given back.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Protocol

__all__ = ["Reopens", "leak_in_child", "reopen_in_child"]


class Reopens(Protocol):
    """Something that opens its sessions again when it is next used."""

    def _after_fork_in_child(self) -> None: ...


_sessions: weakref.WeakSet[object] = weakref.WeakSet()
_engines: weakref.WeakSet[Reopens] = weakref.WeakSet()


def leak_in_child(session: object) -> None:
    """Never destroy `session` in a process forked while it was alive."""
    _sessions.add(session)


def reopen_in_child(engine: Reopens) -> None:
    """Tell `engine` in a forked child that its sessions are gone."""
    _engines.add(engine)


def _after_fork_in_child() -> None:
    for session in list(_sessions):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
    _sessions.clear()
    for engine in list(_engines):
        engine._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
