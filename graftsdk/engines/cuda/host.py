"""The device of machines without a GPU: "device" memory is host memory, work is queued as CUDA may delay it.

It is for tests, and stricter than a GPU where that finds mistakes; see `host_queue` and `host_memory`. Kernels are
functions of the host, looked up by name: what a module was compiled to is not read.
"""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graftsdk.engines.cuda.host_memory import Allocation, HostMemory
from graftsdk.engines.cuda.host_queue import Captured, Mark, Queue, Queues
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import Event, Function, Graph, Module, Stream
from graftsdk.errors import EngineError, EngineIncompatible, GraftError, InputError

__all__ = ["HostDevice"]

_handles = itertools.count(0x1000)  # of no process's streams; 0, 1 and 2 are CUDA's own


class HostDevice(Device):
    """A device without a GPU.

    Args:
        kernels: name -> function of the host, called as `kernel(gx, gy, gz, bx, by, bz, *args)` with the sizes of the
            grid and of a block as ints, addresses as `ctypes.c_void_p`, and values as the ctypes type of their NumPy
            type. A function of a ctypes library serves as well as one of Python; it loops over the grid itself.
        memory: bytes of "device" memory; more is EngineOutOfMemory.
        compute_capability: what it says of itself.
        index: its number.
    """

    kind = "host"
    name = "host"

    def __init__(
        self,
        kernels: Mapping[str, Callable[..., object]] | None = None,
        *,
        memory: int = 1 << 30,
        compute_capability: str = "0.0",
        index: int = 0,
    ) -> None:
        super().__init__()
        self.index = index
        self.compute_capability = compute_capability
        self.total_memory = memory
        self.kernels = dict(kernels or {})
        self.queues = Queues()
        self.memory = HostMemory(memory)
        self._handles: weakref.WeakValueDictionary[int, HostStream] = weakref.WeakValueDictionary()

    def free_memory(self) -> int:
        """Bytes that `alloc` has left."""
        self.check_open()
        return self.memory.total - self.memory.used

    def wait_for_handle(self, stream: Stream, handle: int) -> None:
        other = self._handles.get(handle)  # any other handle is none of ours: its work is done when its call returns
        if other is not None and other is not stream:
            self.queues.wait(_queue(stream), self.queues.record(other.queue))

    def order_handle(self, event: Event, handle: int) -> None:
        other = self._handles.get(handle)
        if other is None:
            event.sync()  # the consumer's work is done when its call returns, so the bytes have to be there
        else:
            event.wait(other)

    def _alloc(self, nbytes: int) -> tuple[int, Allocation]:
        allocation = self.memory.alloc(nbytes, counted=True)
        return allocation.ptr, allocation

    def _free(self, allocation: Allocation) -> None:
        self.memory.free(allocation, counted=True)

    def _alloc_pinned(self, nbytes: int) -> tuple[np.ndarray, Allocation]:
        allocation = self.memory.alloc(nbytes, counted=False)
        return allocation.array, allocation

    def _free_pinned(self, allocation: Allocation) -> None:
        self.memory.free(allocation, counted=False)

    def _memcpy(self, kind: str, dst: int, src: int, nbytes: int, stream: Stream, host: object) -> None:
        def copy(keep: object = host) -> None:  # the array stays alive; what is in it is read when the work is done
            self.memory.check(dst, nbytes)
            self.memory.check(src, nbytes)
            ctypes.memmove(dst, src, nbytes)

        self.queues.put(_queue(stream), copy)

    def _memset(self, ptr: int, value: int, nbytes: int, stream: Stream) -> None:
        def fill() -> None:
            self.memory.check(ptr, nbytes)
            ctypes.memset(ptr, value, nbytes)

        self.queues.put(_queue(stream), fill)

    def _stream(self) -> HostStream:
        stream = HostStream(self)
        self._handles[stream.handle] = stream
        return stream

    def _event(self, timing: bool) -> HostEvent:
        return HostEvent(self, timing)

    def _sync(self) -> None:
        self.queues.finish()

    def _capture(self, stream: Stream, enqueue: Callable[[], object]) -> HostGraph:
        return HostGraph(self, self.queues.captured(_queue(stream), enqueue))

    def _load_module(self, image: bytes) -> HostModule:
        return HostModule(self)

    def _push(self) -> None:
        """There is no context."""

    def _pop(self) -> None:
        """There is no context."""

    def _close(self) -> None:
        """Memory goes with its buffers."""


class HostStream(Stream):
    """See `Stream`; its work waits until something synchronises."""

    def __init__(self, device: HostDevice) -> None:
        super().__init__(device)
        self.queue = Queue()
        self._queues = device.queues
        self._handle = next(_handles)

    @property
    def handle(self) -> int:
        """A number that this device's own streams are known by; no stream of CUDA."""
        return self._handle

    def _sync(self) -> None:
        self._queues.finish(self.queue)


class HostEvent(Event):
    """See `Event`."""

    def __init__(self, device: HostDevice, timing: bool) -> None:
        super().__init__(device)
        self._queues = device.queues
        self._timing = timing
        self._mark: Mark | None = None

    def _record(self, stream: Stream) -> None:
        self._mark = self._queues.record(_queue(stream))

    def _wait(self, stream: Stream) -> None:
        if self._mark is not None:
            self._queues.wait(_queue(stream), self._mark)

    def _sync(self) -> None:
        if self._mark is not None:
            self._queues.reach(self._mark)

    def _done(self) -> bool:
        return self._mark is None or self._mark.reached is not None

    def _elapsed(self, start: HostEvent) -> float:
        first = None if start._mark is None else start._mark.reached
        last = None if self._mark is None else self._mark.reached
        if not (self._timing and start._timing) or first is None or last is None:
            raise InputError("elapsed: expected two events made with timing=True, recorded and reached; sync() them")
        return (last - first) * 1e3


class HostGraph(Graph):
    """See `Graph`."""

    def __init__(self, device: HostDevice, captured: Captured) -> None:
        super().__init__(device)
        self._queues = device.queues
        self._captured = captured

    def _launch(self, stream: Stream) -> None:
        self._queues.launch(self._captured, _queue(stream))


class HostModule(Module):
    """The kernels that the device was made with."""

    def __init__(self, device: HostDevice) -> None:
        super().__init__(device)
        self._kernels = device.kernels

    def function(self, name: str) -> HostFunction:
        self.check_open()
        if name not in self._kernels:
            raise EngineIncompatible(f"kernel: expected one of {sorted(self._kernels)}, found {name!r:.80}")
        return HostFunction(self, name, self._kernels[name])

    def _unload(self) -> None:
        """The functions belong to the caller."""


class HostFunction(Function):
    """A function of the host in a kernel's place."""

    def __init__(self, module: HostModule, name: str, call: Callable[..., object]) -> None:
        super().__init__(module, name)
        self._call = call

    def _launch(
        self,
        stream: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: list[int | np.generic],
        shared: int,
    ) -> None:
        values = [ctypes.c_void_p(arg) if isinstance(arg, int) else _c_value(arg) for arg in args]
        addresses = [arg for arg in args if isinstance(arg, int)]
        device: Any = self.module.device

        def run() -> None:
            for address in addresses:
                device.memory.check(address, 1)
            try:
                self._call(*grid, *block, *values)
            except GraftError:
                raise
            except Exception as error:
                raise EngineError(f"kernel {self.name}: expected it to run, found {error!r:.200}") from error
            device.memory.check_guards()

        device.queues.put(_queue(stream), run)


def _queue(stream: Any) -> Queue:
    queue: Queue = stream.queue
    return queue


def _c_value(value: np.generic) -> Any:
    """The value as C passes it.

    Raises:
        InputError: float16, which C has no type for here.
    """
    dtype: Any = value.dtype
    try:
        return np.ctypeslib.as_ctypes_type(dtype)(value.item())
    except NotImplementedError as error:
        raise InputError(f"kernel argument: expected a type that C has, found {value.dtype}; pass its bits") from error
