"""Which allocations of a device are in use, and which wait to be freed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Ledger"]


class Ledger:
    """Allocations by number. Finalisers only queue what is to be freed: they may run anywhere, in a capture too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[int, int] = {}  # number of an allocation -> bytes
        self._number = 0
        self._waiting: deque[tuple[int, Callable[[Any], None], Any]] = deque()

    @property
    def count(self) -> int:
        """Allocations in use."""
        with self._lock:
            return len(self._live)

    @property
    def bytes(self) -> int:
        """Bytes of them, as they were asked for."""
        with self._lock:
            return sum(self._live.values())

    @property
    def waiting(self) -> bool:
        """Whether there is something to free."""
        return bool(self._waiting)

    def enter(self, size: int, free: Callable[[Any], None]) -> Callable[[Any], None]:
        """A new allocation in use; what is returned queues it for `free` and takes no lock."""
        with self._lock:
            self._number += 1
            number = self._number
            self._live[number] = size
        return lambda native: self._waiting.append((number, free, native))

    def discard(self, native: Any) -> None:
        """Queue something that is no allocation; it is dropped when the others are freed. Takes no lock."""
        self._waiting.append((0, lambda dropped: None, native))

    def free_waiting(self) -> None:
        """Free what is queued."""
        while self._waiting:
            try:
                number, free, native = self._waiting.popleft()
            except IndexError:  # another thread took it
                return
            with self._lock:
                self._live.pop(number, None)
            free(native)

    def forget(self) -> None:
        """Drop what is queued: the device is closed, and native allocations free themselves."""
        self._waiting.clear()
