"""Device memory that is used again from call to call, and blocks of parameters on their way to the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import DeviceBuffer, Event, HostBuffer, Stream

__all__ = ["Blocks", "Workspace"]

_LEAST = 1 << 16  # bytes
_SLOTS = 4  # blocks under way at once: one is filled while those before are copied and read


class Workspace:
    """Memory of a device that grows to what is asked for."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffer: DeviceBuffer | None = None

    def room(self, nbytes: int) -> DeviceBuffer:
        """At least `nbytes` bytes. What was in them may be gone.

        Raises:
            EngineOutOfMemory: the device has not that much.
        """
        if self._buffer is None or self._buffer.nbytes < nbytes:
            self.close()  # waits for the work in it
            self._buffer = self._device.alloc(max(nbytes + nbytes // 2, _LEAST))
        return self._buffer

    def close(self) -> None:
        """Give it back once the device has done its work; twice is harmless."""
        if self._buffer is not None:
            self._buffer.close()
        self._buffer = None


class Blocks:
    """Parameters of kernels, made on the host: one copy a call, from pinned memory. For one thread at a time.

    Calls may be on different streams: each waits for the one before, so that they may share a `Workspace`.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._slots = [_Slot() for _ in range(_SLOTS)]
        self._next = 0
        self._last: tuple[Stream, Event] | None = None

    def send(self, arrays: Sequence[np.ndarray], stream: Stream) -> int:
        """Begin a call: enqueue the copy of `arrays`, one behind the other; the first one's address on the device.

        Raises:
            EngineOutOfMemory: no room.
        """
        slot = self._slots[self._next]
        if slot.event is not None:
            slot.event.sync()  # the host writes; hardly ever a wait, since it was some calls ago
        if self._last is not None and self._last[0] is not stream:
            self._last[1].wait(stream)
        nbytes = sum(array.nbytes for array in arrays)
        if slot.staged is None or slot.target is None or slot.staged.nbytes < nbytes:
            slot.close()
            room = max(nbytes + nbytes // 2, _LEAST)
            slot.staged, slot.target = self._device.alloc_pinned(room), self._device.alloc(room)
        at, room_for = 0, slot.staged.array
        for array in arrays:
            room_for[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
            at += array.nbytes
        self._device.h2d(slot.target, slot.staged, nbytes, stream)
        return slot.target.ptr

    def used(self, stream: Stream) -> None:
        """End the call: all its work is on `stream` by now."""
        slot = self._slots[self._next]
        slot.event = slot.event or self._device.event()
        slot.event.record(stream)
        self._last = (stream, slot.event)
        self._next = (self._next + 1) % _SLOTS

    def close(self) -> None:
        """Give the memory back once the device has done its work; twice is harmless."""
        for slot in self._slots:
            slot.close()
        self._last = None


class _Slot:
    """One block: its memory on both sides, and the event after which it may be used again."""

    def __init__(self) -> None:
        self.staged: HostBuffer | None = None
        self.target: DeviceBuffer | None = None
        self.event: Event | None = None

    def close(self) -> None:
        for memory in (self.staged, self.target, self.event):
            if memory is not None:
                memory.close()
        self.staged = self.target = self.event = None
