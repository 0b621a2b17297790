"""Ctrl-C and SIGTERM end a training between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["stop_asked"]


@contextmanager
def stop_asked() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM; a second one interrupts at once. Signals come in the main thread only."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        stop.set()
        for each, handler in former.items():
            signal.signal(each, handler)

    for number in former:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
