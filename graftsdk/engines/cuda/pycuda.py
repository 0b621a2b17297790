"""A device through pycuda, for those who have it: primary context, pushed and popped in each thread; no graphs.

`pycuda.autoinit` makes a context of its own that only its thread can use, so it is never imported. What pycuda made
has to be destroyed with its context current: everything is handed to the device, which does that. Not run on a GPU
here; a test compares every name that is used with pycuda where it is installed.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from graftsdk.engines.cuda.driver_errors import cuda_error, cuda_errors
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import Event, Function, Graph, HostBuffer, Module, Stream
from graftsdk.errors import EngineIncompatible, InputError, MissingDependency

__all__ = ["PycudaDevice"]

_NONBLOCKING = 1  # CU_STREAM_NON_BLOCKING; pycuda has no name for it
_contexts: dict[int, Any] = {}  # by device
_contexts_lock = threading.Lock()


class PycudaDevice(Device):
    """See `Device`.

    Raises:
        MissingDependency: pycuda is not installed.
        EngineIncompatible: no driver, one that is too old, no such device.
    """

    kind = "pycuda"
    can_capture = False

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self._cuda = _package(index)
        self.index = index
        with cuda_errors(f"opening CUDA device {index}"):
            self._cuda.init()
            count = self._cuda.Device.count()
            if index >= count:
                raise EngineIncompatible(
                    f"opening CUDA device {index}: expected one of {count} devices, counted from 0; choose another, or "
                    "look at CUDA_VISIBLE_DEVICES"
                )
            native = self._cuda.Device(index)
            self.name = str(native.name())
            self.compute_capability = "{}.{}".format(*native.compute_capability())
            self.total_memory = int(native.total_memory())
            self._context = _primary_context(native, index)

    def free_memory(self) -> int:
        """Bytes that the driver says are free."""
        with self.active(), cuda_errors("free_memory"):
            return int(self._cuda.mem_get_info()[0])

    def wait_for_handle(self, stream: Stream, handle: int) -> None:
        self.sync()  # pycuda cannot name a foreign stream, so all of the context's work is waited for

    def order_handle(self, event: Event, handle: int) -> None:
        event.sync()  # as above

    def discard(self, native: Any) -> None:
        """Destroy something of pycuda's at the next time when its context is current; called by finalisers."""
        self._ledger.discard(native)

    def _alloc(self, nbytes: int) -> tuple[int, Any]:
        with cuda_errors(f"alloc of {nbytes} bytes"):
            allocation = self._cuda.mem_alloc(nbytes)
            return int(allocation), allocation

    def _free(self, allocation: Any) -> None:
        with cuda_errors("free"):
            allocation.free()

    def _alloc_pinned(self, nbytes: int) -> tuple[np.ndarray, Any]:
        with cuda_errors(f"alloc_pinned of {nbytes} bytes"):
            array = self._cuda.pagelocked_empty(nbytes, np.uint8)
            return array, array.base

    def _free_pinned(self, allocation: Any) -> None:
        self._free(allocation)

    def _memcpy(self, kind: str, dst: int, src: int, nbytes: int, stream: Stream, host: Any) -> None:
        native = _native(stream)
        with cuda_errors(kind):
            if kind == "d2d":
                self._cuda.memcpy_dtod_async(dst, src, nbytes, native)
                return
            array = host.array if isinstance(host, HostBuffer) else host
            part = array.reshape(-1).view(np.uint8)[:nbytes]
            if kind == "h2d":
                self._cuda.memcpy_htod_async(dst, part, native)
            else:
                self._cuda.memcpy_dtoh_async(part, src, native)

    def _memset(self, ptr: int, value: int, nbytes: int, stream: Stream) -> None:
        with cuda_errors("memset"):
            self._cuda.memset_d8_async(ptr, value, nbytes, _native(stream))

    def _stream(self) -> PycudaStream:
        with cuda_errors("stream"):
            return PycudaStream(self, self._cuda.Stream(_NONBLOCKING))

    def _event(self, timing: bool) -> PycudaEvent:
        flags = self._cuda.event_flags
        with cuda_errors("event"):
            return PycudaEvent(self, self._cuda.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING), timing)

    def _sync(self) -> None:
        with cuda_errors("sync"):
            self._cuda.Context.synchronize()

    def _capture(self, stream: Stream, enqueue: Callable[[], object]) -> Graph:
        raise AssertionError("can_capture is False")

    def _load_module(self, image: bytes) -> PycudaModule:
        with cuda_errors("load_module"):
            return PycudaModule(self, self._cuda.module_from_buffer(image))

    def _push(self) -> None:
        with cuda_errors("making the context current"):
            self._context.push()

    def _pop(self) -> None:
        with cuda_errors("making the context current"):
            self._cuda.Context.pop()

    def _close(self) -> None:
        """The primary context stays: it is everybody's."""


class PycudaStream(Stream):
    """See `Stream`."""

    def __init__(self, device: PycudaDevice, native: Any) -> None:
        super().__init__(device)
        self.native = native
        self._handle = int(native.handle)
        _destroy_with(self, device, native)

    @property
    def handle(self) -> int:
        """The cudaStream_t."""
        self.check_open()
        return self._handle

    def _sync(self) -> None:
        with cuda_errors("stream.sync"):
            self.native.synchronize()


class PycudaEvent(Event):
    """See `Event`."""

    def __init__(self, device: PycudaDevice, native: Any, timing: bool) -> None:
        super().__init__(device)
        self.native = native
        self._timing = timing
        self._recorded = False
        _destroy_with(self, device, native)

    def _record(self, stream: Stream) -> None:
        with cuda_errors("event.record"):
            self.native.record(_native(stream))
        self._recorded = True

    def _wait(self, stream: Stream) -> None:
        with cuda_errors("event.wait"):
            _native(stream).wait_for_event(self.native)

    def _sync(self) -> None:
        with cuda_errors("event.sync"):
            self.native.synchronize()

    def _done(self) -> bool:
        with cuda_errors("event.done"):
            return bool(self.native.query())

    def _elapsed(self, start: PycudaEvent) -> float:
        if not all(event._timing and event._recorded and event._done() for event in (self, start)):
            raise InputError("elapsed: expected two events made with timing=True, recorded and reached; sync() them")
        with cuda_errors("event.elapsed"):
            return float(self.native.time_since(start.native))


class PycudaModule(Module):
    """See `Module`."""

    def __init__(self, device: PycudaDevice, native: Any) -> None:
        super().__init__(device)
        self.native: Any = native
        self.prepared: dict[tuple[str, ...], Any] = {}  # name and argument types -> pycuda's function, which holds it
        self.lock = threading.Lock()
        self._finalizer = _destroy_with(self, device, native)

    def function(self, name: str) -> PycudaFunction:
        self.check_open()
        with self.device.active(), cuda_errors(f"kernel {name}"):
            self.native.get_function(name)  # refused now, where there is none
        return PycudaFunction(self, name)

    def _unload(self) -> None:
        self.prepared.clear()
        self.native = None
        self._finalizer()


class PycudaFunction(Function):
    """See `Function`; one of pycuda's for each list of argument types, which is its own way of calling fast.

    Its other way caches packed arguments by equality: int32 1 and float32 1.0 would be one (2026.1).
    """

    def _launch(
        self,
        stream: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: list[int | np.generic],
        shared: int,
    ) -> None:
        types = tuple("P" if isinstance(arg, int) else arg.dtype.char for arg in args)
        module: Any = self.module
        with cuda_errors(f"kernel {self.name}"), module.lock:
            function = module.prepared.get((self.name, *types))
            if function is None:
                function = module.native.get_function(self.name).prepare(types)
                module.prepared[(self.name, *types)] = function
            function.prepared_async_call(grid, block, stream.native, *args, shared_size=shared)


def _primary_context(native: Any, index: int) -> Any:
    """The device's primary context as one object of pycuda for the whole process, which is never destroyed.

    Its destructor would detach a context that only may be released (pycuda 2026.1), and pycuda takes two objects of one
    context for two contexts.
    """
    with _contexts_lock:
        if index not in _contexts:
            _contexts[index] = native.retain_primary_context()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(_contexts[index]))
        return _contexts[index]


def _package(index: int) -> Any:
    try:
        return import_module("pycuda.driver")
    except ImportError as error:
        known = cuda_error(error, f"opening CUDA device {index}")
        if known is not None:
            raise known from error
        raise MissingDependency(
            f"device 'cuda' with pycuda: expected pycuda, found {error}; pip install 'graftsdk[pycuda]', or "
            "pip install 'graftsdk[gpu]' for cuda.core"
        ) from error


def _destroy_with(thing: object, device: PycudaDevice, native: Any) -> weakref.finalize[..., Any]:
    finalizer = weakref.finalize(thing, device.discard, native)
    finalizer.atexit = False  # the process's end destroys everything, and the driver may be gone by then
    return finalizer


def _native(thing: Any) -> Any:
    return thing.native
