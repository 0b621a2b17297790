"""What a device hands out: buffers, spans of them, streams, events, graphs, modules. See `protocol` for the rules."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from graftsdk.arguments import whole_number
from graftsdk.engines.cuda.checks import kernel_argument, three_sizes
from graftsdk.errors import EngineClosed, InputError

if TYPE_CHECKING:
    from graftsdk.engines.cuda.protocol import Device

__all__ = [
    "Block",
    "DeviceBuffer",
    "DeviceSpan",
    "Event",
    "Function",
    "Graph",
    "HostBuffer",
    "Module",
    "Resource",
    "Stream",
]


class Block(Protocol):
    """Memory on a device: where it starts and how long it is."""

    @property
    def device(self) -> Device: ...

    @property
    def ptr(self) -> int: ...

    @property
    def nbytes(self) -> int: ...


class Resource:
    """Something of a device that is closed once; a context manager."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._closed = False

    def check_open(self) -> None:
        """Nothing, where this and its device can be used.

        Raises:
            EngineClosed, EngineForked: where not.
        """
        if self._closed:
            raise EngineClosed(f"expected an open {type(self).__name__}, found one after close(); make another")
        self.device.check_open()

    def close(self) -> None:
        """Give it back; twice is harmless."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class DeviceSpan:
    """A part of device memory that another object keeps: `owner` stays alive as long as the span."""

    device: Device
    ptr: int
    nbytes: int
    owner: object = None


class _Memory(Resource):
    """An allocation; `give_back` queues its native part for the device to free, once."""

    def __init__(self, device: Device, allocation: Any, give_back: Callable[[Any], None]) -> None:
        super().__init__(device)
        self._finalizer = weakref.finalize(self, give_back, allocation)
        self._finalizer.atexit = False  # the process's end frees everything, and the driver may be gone by then

    def close(self) -> None:
        """Wait until the device has done its work, and give the memory back; twice is harmless."""
        self._closed = True
        if self._finalizer() is None:  # queued, or was so before
            self.device._reclaim_closed()


class DeviceBuffer(_Memory):
    """Memory of a device, made by `Device.alloc`.

    Attributes:
        nbytes: its size.
    """

    def __init__(
        self, device: Device, ptr: int, nbytes: int, allocation: Any, give_back: Callable[[Any], None]
    ) -> None:
        super().__init__(device, allocation, give_back)
        self._ptr = ptr
        self.nbytes = nbytes

    @property
    def ptr(self) -> int:
        """The address of its first byte, on the device."""
        self.check_open()
        return self._ptr

    def span(self, start: int, nbytes: int | None = None) -> DeviceSpan:
        """`nbytes` bytes from byte `start` on, else all the rest.

        Raises:
            InputError: that is not inside.
        """
        first = whole_number("span: start", start, 0, self.nbytes)
        size = whole_number("span: nbytes", self.nbytes - first if nbytes is None else nbytes, 0, self.nbytes - first)
        return DeviceSpan(self.device, self.ptr + first, size, self)

    def __repr__(self) -> str:
        return f"<DeviceBuffer of {self.nbytes} bytes{' (closed)' if self._closed else ''}>"


class HostBuffer(_Memory):
    """Page-locked memory of the host, made by `Device.alloc_pinned`.

    Attributes:
        nbytes: its size.
    """

    def __init__(self, device: Device, array: np.ndarray, allocation: Any, give_back: Callable[[Any], None]) -> None:
        super().__init__(device, allocation, give_back)
        self._array = array
        self.nbytes = array.nbytes

    @property
    def array(self) -> np.ndarray:
        """uint8[nbytes] on this memory, no copy. Neither it nor a view of it may be used after `close`."""
        self.check_open()
        return self._array

    def __repr__(self) -> str:
        return f"<HostBuffer of {self.nbytes} bytes{' (closed)' if self._closed else ''}>"


class Stream(Resource, ABC):
    """Work of a device, done in the order in which it is enqueued."""

    @property
    @abstractmethod
    def handle(self) -> int:
        """The runtime's own handle (a cudaStream_t), for other libraries."""

    def sync(self) -> None:
        """Wait until all that was enqueued is done.

        Raises:
            EngineError: it failed, or the stream is being captured.
        """
        self.check_open()
        with self.device.active():
            self._sync()

    @abstractmethod
    def _sync(self) -> None: ...


class Event(Resource, ABC):
    """A point in the work of a stream."""

    def record(self, stream: Stream) -> None:
        """The event is the point behind what is enqueued on `stream` now; an earlier point is forgotten."""
        self.check_open()
        with self.device._using(stream):
            self._record(stream)

    def wait(self, stream: Stream) -> None:
        """What is enqueued on `stream` from now on waits for the point; no wait where nothing was recorded."""
        self.check_open()
        with self.device._using(stream):
            self._wait(stream)

    def sync(self) -> None:
        """Wait, on the host, until the point is reached."""
        self.check_open()
        with self.device.active():
            self._sync()

    @property
    def done(self) -> bool:
        """Whether the point is reached; True where nothing was recorded."""
        self.check_open()
        with self.device.active():
            return self._done()

    def elapsed(self, start: Event) -> float:
        """Milliseconds from `start` to this; both recorded, with timing, and reached.

        Raises:
            InputError: they are not.
        """
        self.check_open()
        if not isinstance(start, Event) or start.device is not self.device:
            raise InputError(f"elapsed: expected an event of {self.device!r}, found {start!r:.80}")
        start.check_open()
        with self.device.active():
            return self._elapsed(start)

    @abstractmethod
    def _record(self, stream: Stream) -> None: ...

    @abstractmethod
    def _wait(self, stream: Stream) -> None: ...

    @abstractmethod
    def _sync(self) -> None: ...

    @abstractmethod
    def _done(self) -> bool: ...

    @abstractmethod
    def _elapsed(self, start: Any) -> float: ...


class Graph(Resource, ABC):
    """Captured work; the memory in it must outlive it."""

    def launch(self, stream: Stream) -> None:
        """Enqueue all of it on `stream`. A graph runs once at a time; a second launch waits for the first."""
        self.check_open()
        with self.device._using(stream):
            self._launch(stream)

    @abstractmethod
    def _launch(self, stream: Stream) -> None: ...


class Module(Resource, ABC):
    """Compiled kernels, loaded. `close` waits for the device."""

    def close(self) -> None:
        """Wait until the device has done its work, and unload the kernels; twice is harmless."""
        if not self._closed:
            self.device.when_idle(self._unload)
        self._closed = True

    @abstractmethod
    def _unload(self) -> None: ...

    @abstractmethod
    def function(self, name: str) -> Function:
        """The kernel of that name (its own, `extern "C"`).

        Raises:
            EngineIncompatible: there is none.
        """


class Function(ABC):
    """One kernel."""

    def __init__(self, module: Module, name: str) -> None:
        self.module = module
        self.name = name

    def launch(
        self, stream: Stream, grid: tuple[int, ...], block: tuple[int, ...], *args: Any, shared: int = 0
    ) -> None:
        """Enqueue it on `stream`.

        Args:
            stream: a stream of the module's device.
            grid: blocks, 1 to 3 numbers.
            block: threads of a block, 1 to 3 numbers.
            args: device memory (`DeviceBuffer` and its like), an int for an address, a NumPy scalar for a value of
                exactly that type. Nothing else: a Python float, for one, has no C type.
            shared: bytes of dynamic shared memory of a block.

        Raises:
            InputError: an argument or a size that does not fit.
        """
        device = self.module.device
        self.module.check_open()
        grids, blocks = three_sizes("grid", grid, (1 << 31) - 1), three_sizes("block", block, 1024)
        whole_number("launch: shared", shared, 0, 1 << 30)
        values = [kernel_argument(self.name, index, value, device) for index, value in enumerate(args)]
        with device._using(stream):
            self._launch(stream, grids, blocks, values, shared)

    @abstractmethod
    def _launch(
        self,
        stream: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: list[int | np.generic],
        shared: int,
    ) -> None:
        """`args`: ints are addresses."""
