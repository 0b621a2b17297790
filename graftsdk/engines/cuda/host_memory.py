"""The host device's memory: guard bytes on both sides, poison before the first write and after the last use."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from graftsdk.errors import EngineError, EngineOutOfMemory

__all__ = ["Allocation", "HostMemory"]

_ALIGNMENT = 256  # of cuMemAlloc
_GUARD = 256  # bytes, on each side
_GUARD_BYTE, _FRESH_BYTE, _FREED_BYTE = 0x5C, 0xA5, 0xDD
_QUARANTINE = 16  # freed allocations that are kept, so that their addresses are known and not given to others
_QUARANTINE_BYTES = 64 << 20


class Allocation:
    """One piece of memory; `array` is uint8[nbytes] between its guards."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._whole = np.full(nbytes + 2 * _GUARD + _ALIGNMENT, _GUARD_BYTE, np.uint8)
        start = -(self._whole.ctypes.data + _GUARD) % _ALIGNMENT + _GUARD
        self.array = self._whole[start : start + nbytes]
        self.ptr = int(self.array.ctypes.data)
        self._guards = (self._whole[start - _GUARD : start], self._whole[start + nbytes :][:_GUARD])
        self.array[:] = _FRESH_BYTE

    def intact(self) -> bool:
        """Whether nothing was written beside it."""
        return all(bool((guard == _GUARD_BYTE).all()) for guard in self._guards)

    def overlaps(self, ptr: int, nbytes: int) -> bool:
        """Whether it has a byte in common with these."""
        return ptr < self.ptr + self.nbytes and self.ptr < ptr + nbytes

    def poison(self) -> None:
        """What a reader after the end sees."""
        self.array[:] = _FREED_BYTE


class HostMemory:
    """Allocations up to `total` bytes; pinned ones are guarded as well, and not counted."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._lock = threading.Lock()
        self._live: dict[int, Allocation] = {}  # by address
        self._freed: deque[Allocation] = deque()

    def alloc(self, nbytes: int, *, counted: bool) -> Allocation:
        """New memory, with arbitrary contents.

        Raises:
            EngineOutOfMemory: there is not that much left.
        """
        with self._lock:
            if counted and nbytes > self.total - self.used:
                raise EngineOutOfMemory(
                    f"alloc: expected {nbytes} bytes of device memory, found {self.total - self.used} of {self.total} "
                    "left; run smaller batches"
                )
            try:
                allocation = Allocation(nbytes)
            except MemoryError as error:
                raise EngineOutOfMemory(
                    f"alloc: expected {nbytes} bytes of memory, found none left; run smaller batches"
                ) from error
            self.used += nbytes if counted else 0
            self._live[allocation.ptr] = allocation
            return allocation

    def free(self, allocation: Allocation, *, counted: bool) -> None:
        """Take it back; its bytes are poisoned.

        Raises:
            EngineError: it was freed before, or something was written beside it.
        """
        with self._lock:
            if self._live.pop(allocation.ptr, None) is not allocation:
                raise EngineError(f"free: expected memory in use, found {allocation.nbytes} bytes freed before")
            self.used -= allocation.nbytes if counted else 0
            intact = allocation.intact()
            allocation.poison()
            self._freed.append(allocation)
            while len(self._freed) > _QUARANTINE or sum(old.nbytes for old in self._freed) > _QUARANTINE_BYTES:
                self._freed.popleft()
        if not intact:
            raise EngineError(_beside(allocation))

    def check(self, ptr: int, nbytes: int) -> None:
        """Nothing, where work may touch these bytes: ours as they are allocated, or another library's.

        Raises:
            EngineError: they were freed, or go beyond an allocation.
        """
        with self._lock:
            for allocation in self._live.values():
                if allocation.overlaps(ptr, nbytes):
                    if ptr < allocation.ptr or ptr + nbytes > allocation.ptr + allocation.nbytes:
                        raise EngineError(f"work: expected bytes inside {allocation.nbytes} allocated, found {nbytes}")
                    return
            if any(allocation.overlaps(ptr, nbytes) for allocation in self._freed):
                raise EngineError("work: expected memory in use, found memory that was closed before the work was done")

    def check_guards(self) -> None:
        """Nothing, where no work wrote beside what it was given.

        Raises:
            EngineError: some did.
        """
        with self._lock:
            for allocation in self._live.values():
                if not allocation.intact():
                    raise EngineError(_beside(allocation))


def _beside(allocation: Allocation) -> str:
    return f"work: expected writes inside an allocation of {allocation.nbytes} bytes, found some beside it"
