"""Device memory behind one small protocol: buffers, streams, events, captured graphs, kernels.

`Device` checks arguments, lifetimes, threads and forks once, for every kind; `core`, `pycuda` and `host` fill in the
methods that begin with an underscore. The words are CUDA's:

- Work is enqueued on a `Stream` and done in its order; the call returns before. Nothing is seen on the host, and no
  array that was handed in may be changed or let go, until the stream or an event recorded after it is synchronised.
- Two streams know nothing of each other but by events: `event.record(a)`, `event.wait(b)`.
- `close` of a buffer, a graph or the device waits for everything that the device still does. Closing twice is harmless,
  every other use after it is `EngineClosed`. What is dropped unclosed is given back at the next `alloc`, `sync` or
  `close`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from graftsdk.arguments import whole_number
from graftsdk.engines.cuda.active import Active
from graftsdk.engines.cuda.checks import LARGEST, fitting, host_block
from graftsdk.engines.cuda.hooks import Hooks
from graftsdk.engines.cuda.ledger import Ledger
from graftsdk.engines.cuda.resources import Block, DeviceBuffer, Event, Graph, HostBuffer, Module, Stream
from graftsdk.errors import (
    EngineClosed,
    EngineError,
    EngineForked,
    EngineIncompatible,
    EngineOutOfMemory,
    InputError,
)

__all__ = ["Device"]


class Device(Hooks):
    """One device, its memory and its queues. Made by `open_device`; a context manager; safe to use from many threads.

    Attributes:
        kind: "cuda-core", "pycuda" or "host".
        name: the device's own name.
        index: its number in the driver's order.
        compute_capability: "9.0".
        total_memory: bytes.
        can_capture: whether `capture` works; False with pycuda.
    """

    kind: str
    name: str
    index: int
    compute_capability: str
    total_memory: int
    can_capture: bool = True

    def __init__(self) -> None:
        self._process = os.getpid()
        self._closed = False
        self._quiet = threading.RLock()  # held by what may not meet a capture: waiting for the device, freeing
        self._ledger = Ledger()
        self._capturing: int | None = None  # the thread that captures

    # ----------------------------------------------------------------------------------------------- memory

    def alloc(self, nbytes: int) -> DeviceBuffer:
        """Device memory with arbitrary contents, at least 256-byte aligned; zero bytes give a valid address too.

        Raises:
            InputError: `nbytes` is no size.
            EngineOutOfMemory: the device has not that much left.
            EngineError: called from inside a capture.
        """
        size = whole_number("alloc: nbytes", nbytes, 0, LARGEST)
        if size > self.total_memory:  # some drivers call that an invalid value
            raise EngineOutOfMemory(
                f"alloc: expected at most the device's {self.total_memory} bytes, found {size}; run smaller batches"
            )
        with self._outside_capture("alloc"):
            self._reclaim()
            pointer, allocation = self._alloc(max(size, 1))
            give_back = self._ledger.enter(size, self._free)
        return DeviceBuffer(self, pointer, size, allocation, give_back)

    def alloc_pinned(self, nbytes: int) -> HostBuffer:
        """Page-locked host memory, from and to which copies run beside other work; `.array` is uint8[nbytes].

        Raises:
            InputError, EngineOutOfMemory, EngineError: as for `alloc`.
        """
        size = whole_number("alloc_pinned: nbytes", nbytes, 0, LARGEST)
        with self._outside_capture("alloc_pinned"):
            self._reclaim()
            array, allocation = self._alloc_pinned(max(size, 1))
            give_back = self._ledger.enter(size, self._free_pinned)
        return HostBuffer(self, array[:size], allocation, give_back)

    @property
    def live_buffers(self) -> int:
        """Allocations not yet given back, for leak checks."""
        with self._outside_capture("live_buffers"):
            self._reclaim()
        return self._ledger.count

    @property
    def live_bytes(self) -> int:
        """Bytes of them as they were asked for, device and pinned."""
        with self._outside_capture("live_bytes"):
            self._reclaim()
        return self._ledger.bytes

    # ----------------------------------------------------------------------------------------------- copies

    def h2d(self, dst: Block, src: HostBuffer | np.ndarray, nbytes: int, stream: Stream) -> None:
        """Enqueue a copy of the first `nbytes` bytes of `src` to the start of `dst`.

        Args:
            dst: device memory: a `DeviceBuffer`, a `DeviceSpan` or a `DeviceArray`.
            src: pinned memory, or a C-contiguous array (then the copy may not overlap with other work).
            nbytes: at most what both hold.
            stream: a stream of this device.

        Raises:
            InputError: a size or stream that does not fit; its leaves LayoutError, ShapeError.
            EngineClosed: something is used after `close`.
        """
        pointer, room = host_block("h2d: src", src, writable=False)
        self._copy("h2d", self._block("h2d: dst", dst), (pointer, room), nbytes, stream, src)

    def d2h(self, dst: HostBuffer | np.ndarray, src: Block, nbytes: int, stream: Stream) -> None:
        """Enqueue a copy of the first `nbytes` bytes of device memory `src` to the start of `dst`; as `h2d`."""
        target = host_block("d2h: dst", dst, writable=True)
        self._copy("d2h", target, self._block("d2h: src", src), nbytes, stream, dst)

    def d2d(self, dst: Block, src: Block, nbytes: int, stream: Stream) -> None:
        """Enqueue a copy of the first `nbytes` bytes from device memory to device memory, which may not overlap."""
        target, source = self._block("d2d: dst", dst), self._block("d2d: src", src)
        self._copy("d2d", target, source, nbytes, stream, None)

    def memset(self, dst: Block, value: int, nbytes: int, stream: Stream) -> None:
        """Enqueue filling the first `nbytes` bytes of `dst` with `value`, 0 to 255."""
        byte = whole_number("memset: value", value, 0, 255)
        pointer, room = self._block("memset: dst", dst)
        size = fitting("memset", nbytes, room)
        with self._using(stream):
            if size:
                self._memset(pointer, byte, size, stream)

    # ------------------------------------------------------------------------------------- streams and kernels

    def stream(self) -> Stream:
        """A new stream, which waits for no other, the default stream included."""
        with self._outside_capture("stream"):
            return self._stream()

    def event(self, *, timing: bool = False) -> Event:
        """A new event, not yet recorded; `timing=True` for `Event.elapsed`."""
        with self.active():
            return self._event(timing)

    def sync(self) -> None:
        """Wait until all work of this device is done.

        Raises:
            EngineError: called from inside a capture, or work that was enqueued failed.
        """
        with self._outside_capture("sync"):
            self._sync()
            self._reclaim(synced=True)

    def capture(self, stream: Stream, enqueue: Callable[[], object]) -> Graph:
        """The work that `enqueue` puts on `stream`, and on streams that wait for it by events, as one graph.

        The work is recorded with its addresses and sizes, and not run; memory that it uses must outlive the graph.
        A stream that was drawn in by an event must be joined again before `enqueue` returns. Other threads may use
        the device meanwhile; those that wait for all of it, allocate or free, wait for the capture first.

        Raises:
            EngineIncompatible: this kind of device cannot capture (`can_capture`).
            EngineError: a capture in a capture, or `enqueue` did something that cannot be captured.
            BaseException: what `enqueue` raises; the stream is usable again.
        """
        if not self.can_capture:
            raise EngineIncompatible(
                f"capture: expected a device that captures CUDA graphs, found {self.kind!r}; enqueue the work each "
                "time, or pip install 'graftsdk[gpu]'"
            )
        with self._outside_capture("capture"), self._using(stream):
            self._capturing = threading.get_ident()
            try:
                return self._capture(stream, enqueue)
            finally:
                self._capturing = None

    def load_module(self, image: bytes) -> Module:
        """Kernels compiled for this device (a cubin); `module.function(name).launch(stream, grid, block, *args)`.

        Raises:
            EngineIncompatible: compiled for another device, or no cubin.
        """
        with self._outside_capture("load_module"):
            return self._load_module(bytes(image))

    # --------------------------------------------------------------------------------------------- lifetime

    def active(self) -> Active:
        """A block in which the device's primary context is current in this thread; the one before comes back after.

        Every method does so by itself; a block around many of them, or around another library's calls, saves time.
        """
        self.check_open()
        return Active(self)

    def when_idle(self, act: Callable[[], object]) -> None:
        """Wait for all work of this device, then call `act`; nothing at all where the device is closed."""
        if self._closed or os.getpid() != self._process:
            return
        with self._outside_capture("close"):
            self._sync()
            act()

    def check_open(self) -> None:
        """Nothing, where the device can be used in this process.

        Raises:
            EngineClosed: after `close`.
            EngineForked: in a child forked after it was opened.
        """
        if self._closed:
            raise EngineClosed(f"expected an open device, found {self.name} after close(); open it again")
        if os.getpid() != self._process:
            raise EngineForked(
                f"device {self.name}: expected the process that opened it, found a forked child; start it with "
                "multiprocessing's method 'spawn', or open the device in the child"
            )

    def close(self) -> None:
        """Wait for the device and let go of it; buffers still open give their memory back when they are dropped."""
        if self._closed:
            return
        if os.getpid() != self._process:
            self._closed = True  # the parent's context; nothing here may touch it
            return
        with self._outside_capture("close"):
            self._sync()
            self._reclaim(synced=True)
            self._close()
        self._closed = True

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.kind} device {self.index}: {self.name}, compute capability {self.compute_capability}>"

    # --------------------------------------------------------------------------------------------- private

    def _reclaim(self, *, synced: bool = False) -> None:
        """Free what was closed or dropped, once the device has done its work."""
        if self._ledger.waiting:
            if not synced:
                self._sync()
            self._ledger.free_waiting()

    def _reclaim_closed(self) -> None:
        """After a buffer's `close`: at once, or once the capture of this thread is over."""
        if self._closed:
            self._ledger.forget()  # the native allocations free themselves
        if self._closed or os.getpid() != self._process or self._capturing == threading.get_ident():
            return
        with self._outside_capture("close"):
            self._reclaim()

    @contextmanager
    def _outside_capture(self, doing: str) -> Iterator[None]:
        self.check_open()  # before the lock, which in a forked child may be held by a thread that is not there
        if self._capturing == threading.get_ident():
            raise EngineError(
                f"{doing}: expected to be called outside a capture, found this thread capturing; do it before"
            )
        with self._quiet, self.active():
            yield

    def _using(self, stream: Stream) -> Active:
        if not isinstance(stream, Stream) or stream.device is not self:
            raise InputError(f"stream: expected one of {self!r}, found {stream!r:.80}; make it with device.stream()")
        stream.check_open()
        return Active(self)

    def _block(self, what: str, block: Block) -> tuple[int, int]:
        owner = getattr(block, "device", None)
        if owner is not self:
            raise InputError(f"{what}: expected memory of {self!r}, found {block!r:.80}")
        return block.ptr, block.nbytes

    def _copy(
        self, kind: str, dst: tuple[int, int], src: tuple[int, int], nbytes: int, stream: Stream, host: object
    ) -> None:
        size = fitting(kind, nbytes, min(dst[1], src[1]))
        with self._using(stream):
            if size:
                self._memcpy(kind, dst[0], src[0], size, stream, host)
