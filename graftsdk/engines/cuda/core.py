"""A device through cuda.core 1.x, the default: primary context, the device's own memory pool, captured graphs.

Where cuda.core wants buffers of its own and we have addresses (copies, fills, the context of a thread), its lower
layer cuda.bindings is called. Tested on an H100; a test compares every name and signature that is used with the
packages as they are installed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from graftsdk.engines.cuda.core_resources import CoreEvent, CoreGraph, CoreModule, CoreStream, native_of
from graftsdk.engines.cuda.driver_errors import call, cuda_errors, no_driver, old_driver
from graftsdk.engines.cuda.pinned import array_at
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import Event, Stream
from graftsdk.errors import EngineError, EngineIncompatible, MissingDependency

__all__ = ["CoreDevice"]


class CoreDevice(Device):
    """See `Device`; `index` counts the devices that CUDA_VISIBLE_DEVICES lets through.

    Raises:
        MissingDependency: cuda-core is not installed.
        EngineIncompatible: no driver, one that is too old, no such device.
    """

    kind = "cuda-core"

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self.core, self._driver = _packages()
        self.index = index
        self._threads = threading.local()
        with cuda_errors(f"opening CUDA device {index}"):
            _check_driver(self._driver)
            count = call(self._driver.cuDeviceGetCount())
            if index >= count:
                raise EngineIncompatible(
                    f"opening CUDA device {index}: expected one of {count} devices, counted from 0; choose another, or "
                    "look at CUDA_VISIBLE_DEVICES"
                )
            self._context = call(self._driver.cuDevicePrimaryCtxRetain(index))
            self._pool: Any = None
            with self.active():
                native = self._native()
                self.name = str(native.name)
                self.compute_capability = "{}.{}".format(*native.compute_capability)
                self.total_memory = int(call(self._driver.cuMemGetInfo())[1])
                self._pool = native.create_stream(options=self.core.StreamOptions(nonblocking=True))
                self._pinned = self.core.LegacyPinnedMemoryResource()

    def free_memory(self) -> int:
        """Bytes that the driver says are free."""
        with self.active(), cuda_errors("free_memory"):
            return int(call(self._driver.cuMemGetInfo())[0])

    def trim(self) -> None:
        """See `Hooks.trim`: what is freed stays reserved by the pool, where other allocators may not find it."""
        with self._outside_capture("trim"), cuda_errors("trim"):
            self._reclaim()
            self._pool.sync()  # what was freed there is the pool's
            pool = getattr(self._native().memory_resource, "handle", None)
            if pool is not None:  # a device without pools gives everything back at once
                call(self._driver.cuMemPoolTrimTo(pool, 0))

    def index_of(self, ptr: int) -> int | None:
        """See `Device.index_of`."""
        ordinal = self._driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        with self.active(), cuda_errors("asking for an address"):
            status, value = self._driver.cuPointerGetAttribute(ordinal, ptr)
            if status == self._driver.CUresult.CUDA_ERROR_INVALID_VALUE:
                return None  # an address that CUDA does not know
            return int(call((status, value)))

    def wait_for_handle(self, stream: Stream, handle: int) -> None:
        with self._using(stream), cuda_errors("waiting for a foreign stream"):
            native_of(stream).wait(self.core.Stream.from_handle(handle))

    def order_handle(self, event: Event, handle: int) -> None:
        event.check_open()
        with self.active(), cuda_errors("ordering a foreign stream"):
            self.core.Stream.from_handle(handle).wait(native_of(event))

    def _native(self) -> Any:
        """cuda.core's device of this thread, whose objects are told in each thread which context is meant."""
        found = getattr(self._threads, "device", None)
        if found is None:
            found = self.core.Device(self.index)
            found.set_current()  # the context on top is the primary one already: `active` pushed it
            self._threads.device = found
        return found

    def _alloc(self, nbytes: int) -> tuple[int, Any]:
        with cuda_errors(f"alloc of {nbytes} bytes"):
            buffer = self._native().allocate(nbytes, stream=self._pool)
            self._pool.sync()  # the pool's memory is valid in the pool's stream first
            return int(buffer.handle), buffer

    def _free(self, allocation: Any) -> None:
        with cuda_errors("free"):
            allocation.close(self._pool)

    def _alloc_pinned(self, nbytes: int) -> tuple[np.ndarray, Any]:
        with cuda_errors(f"alloc_pinned of {nbytes} bytes"):
            buffer = self._pinned.allocate(nbytes)
            return array_at(int(buffer.handle), nbytes), buffer

    def _free_pinned(self, allocation: Any) -> None:
        self._free(allocation)

    def _memcpy(self, kind: str, dst: int, src: int, nbytes: int, stream: Stream, host: object) -> None:
        with cuda_errors(kind):
            call(self._driver.cuMemcpyAsync(dst, src, nbytes, stream.handle))

    def _memset(self, ptr: int, value: int, nbytes: int, stream: Stream) -> None:
        with cuda_errors("memset"):
            call(self._driver.cuMemsetD8Async(ptr, value, nbytes, stream.handle))

    def _stream(self) -> CoreStream:
        with cuda_errors("stream"):
            return CoreStream(self, self._native().create_stream(options=self.core.StreamOptions(nonblocking=True)))

    def _event(self, timing: bool) -> CoreEvent:
        with cuda_errors("event"):
            options = self.core.EventOptions(timing_enabled=timing)
            return CoreEvent(self, self._native().create_event(options=options), timing)

    def _sync(self) -> None:
        with cuda_errors("sync"):
            call(self._driver.cuCtxSynchronize())

    def _capture(self, stream: Stream, enqueue: Callable[[], object]) -> CoreGraph:
        with cuda_errors("capture"):
            builder = native_of(stream).create_graph_builder()
            builder.begin_building("thread_local")  # other threads may allocate meanwhile, this one may not
        try:
            enqueue()
            with cuda_errors("capture"):
                return CoreGraph(self, builder.end_building().complete())
        finally:
            # Ends the capture where it still goes on. It fails where the driver has given the capture up, which is
            # what it was called for.
            with contextlib.suppress(EngineError), cuda_errors("ending a capture"):
                builder.close()
            del builder  # now, not with a traceback: its destructor ends whatever capture its stream is in by then

    def _load_module(self, image: bytes) -> CoreModule:
        with cuda_errors("load_module"):
            code = self.core.ObjectCode.from_cubin(image)
            code.handle  # noqa: B018 (asked for, it is loaded now, and an image for another device is refused here)
            return CoreModule(self, code)

    def _push(self) -> None:
        with cuda_errors("making the context current"):
            call(self._driver.cuCtxPushCurrent(self._context))

    def _pop(self) -> None:
        with cuda_errors("making the context current"):
            call(self._driver.cuCtxPopCurrent())

    def _close(self) -> None:
        self._pool.close()  # the primary context stays: it is everybody's


def _packages() -> tuple[Any, Any]:
    try:
        return import_module("cuda.core"), import_module("cuda.bindings.driver")
    except ImportError as error:
        raise MissingDependency(
            f"device 'cuda': expected cuda-core 1.x, found {error}; pip install 'graftsdk[gpu]'"
        ) from error


def _check_driver(driver: Any) -> None:
    """A driver that starts and serves the CUDA that the packages were made for."""
    doing = "opening a CUDA device"
    found = int(call(driver.cuDriverGetVersion()))
    made_for = int(import_module("cuda.bindings").__version__.split(".")[0])
    if found == 0:
        raise no_driver(doing, "its version is 0")
    if found // 1000 < made_for:
        raise old_driver(doing, f"one for CUDA {found // 1000}.{found % 1000 // 10}", f"CUDA {made_for}.0 or newer")
    call(driver.cuInit(0))
