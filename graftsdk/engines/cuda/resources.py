"""What a device hands out: buffers, spans of them, streams, events, graphs, modules. See `protocol` for the rules."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from graftsdk.arguments import whole_number
from graftsdk.errors import EngineClosed, InputError, LayoutError, ShapeError

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
    "host_block",
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
        grids, blocks = _three("grid", grid, (1 << 31) - 1), _three("block", block, 1024)
        whole_number("launch: shared", shared, 0, 1 << 30)
        values = [_argument(self.name, index, value, device) for index, value in enumerate(args)]
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


def host_block(what: str, memory: HostBuffer | np.ndarray, *, writable: bool) -> tuple[int, int]:
    """Address and size of the host's side of a copy.

    Raises:
        InputError: neither an array nor a HostBuffer, or read-only where it is written.
        LayoutError: the array's elements do not lie one after another.
    """
    array = memory.array if isinstance(memory, HostBuffer) else memory
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise InputError(f"{what}: expected a HostBuffer or an array of numbers, found {type(memory).__name__}")
    if not array.flags.c_contiguous:
        raise LayoutError(f"{what}: expected a C-contiguous array, found strides {array.strides}; copy it first")
    if writable and not array.flags.writeable:
        raise InputError(f"{what}: expected a writable array, found a read-only one")
    return array.__array_interface__["data"][0], array.nbytes


def _three(what: str, numbers: tuple[int, ...], high: int) -> tuple[int, int, int]:
    if not isinstance(numbers, tuple) or not 1 <= len(numbers) <= 3:
        raise ShapeError(f"launch: {what}: expected 1 to 3 whole numbers, found {numbers!r:.80}")
    sizes = [whole_number(f"launch: {what}", number, 1, high) for number in numbers]
    x, y, z = sizes + [1] * (3 - len(sizes))
    return x, y, z


def _argument(name: str, index: int, value: Any, device: Device) -> int | np.generic:
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return whole_number(f"{name}: argument {index}, an address", value, 0, (1 << 64) - 1)
    if getattr(value, "device", None) is device and hasattr(value, "ptr"):
        return int(value.ptr)
    raise InputError(
        f"{name}: argument {index}: expected device memory, an int (an address) or a NumPy scalar (a value), "
        f"found {type(value).__name__}; write, for one, np.float32(0.5)"
    )
