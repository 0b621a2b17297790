"""Lets the calls into the runtime end before the interpreter does.

A daemon thread that comes back from C++ while the interpreter is torn down is ended inside the C++ frames, and the
process dies with "terminate called without an active exception" (measured, Python 3.11 and ONNX Runtime 1.32).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator

__all__ = ["in_flight"]

PATIENCE = 10.0  # seconds that the exit waits for calls in flight; a batch of 8 takes about one

_idle = threading.Condition()
_running = 0
_leaving = False


@contextlib.contextmanager
def in_flight() -> Iterator[None]:
    """Around each call into the runtime. Once the interpreter is leaving, daemon threads stop here for good."""
    global _running
    with _idle:
        while _leaving and threading.current_thread() is not threading.main_thread():
            _idle.wait()
        _running += 1
    try:
        yield
    finally:
        with _idle:
            _running -= 1
            _idle.notify_all()


def _leave() -> None:
    """Runs when all threads but daemons have been joined."""
    global _leaving
    with _idle:
        _leaving = True
        _idle.wait_for(lambda: _running == 0, PATIENCE)


def _after_fork_in_child() -> None:
    global _idle, _running
    _idle, _running = threading.Condition(), 0  # the parent's threads are not here


atexit.register(_leave)
os.register_at_fork(after_in_child=_after_fork_in_child)
