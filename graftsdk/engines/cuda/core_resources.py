"""Streams, events, graphs and kernels of cuda.core; see `core`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.engines.cuda.driver_errors import cuda_errors
from graftsdk.engines.cuda.resources import Event, Function, Graph, Module, Stream
from graftsdk.errors import InputError

if TYPE_CHECKING:
    from graftsdk.engines.cuda.core import CoreDevice

__all__ = ["CoreEvent", "CoreFunction", "CoreGraph", "CoreModule", "CoreStream", "native_of"]


class CoreStream(Stream):
    """See `Stream`."""

    def __init__(self, device: CoreDevice, native: Any) -> None:
        super().__init__(device)
        self.native = native
        self._handle = int(native.handle)

    @property
    def handle(self) -> int:
        """The cudaStream_t."""
        self.check_open()
        return self._handle

    def close(self) -> None:
        """Let go of it; what is enqueued is still done."""
        if not self._closed:
            self.native.close()
        self._closed = True

    def _sync(self) -> None:
        with cuda_errors("stream.sync"):
            self.native.sync()


class CoreEvent(Event):
    """See `Event`."""

    def __init__(self, device: CoreDevice, native: Any, timing: bool) -> None:
        super().__init__(device)
        self.native = native
        self._timing = timing
        self._recorded = False

    def close(self) -> None:
        """Let go of it."""
        if not self._closed:
            self.native.close()
        self._closed = True

    def _record(self, stream: Stream) -> None:
        with cuda_errors("event.record"):
            native_of(stream).record(self.native)
        self._recorded = True

    def _wait(self, stream: Stream) -> None:
        with cuda_errors("event.wait"):
            native_of(stream).wait(self.native)

    def _sync(self) -> None:
        with cuda_errors("event.sync"):
            self.native.sync()

    def _done(self) -> bool:
        with cuda_errors("event.done"):
            return bool(self.native.is_done)

    def _elapsed(self, start: CoreEvent) -> float:
        if not all(event._timing and event._recorded and event._done() for event in (self, start)):
            raise InputError("elapsed: expected two events made with timing=True, recorded and reached; sync() them")
        with cuda_errors("event.elapsed"):
            return float(self.native - start.native)


class CoreGraph(Graph):
    """See `Graph`."""

    def __init__(self, device: CoreDevice, native: Any) -> None:
        super().__init__(device)
        self.native = native

    def close(self) -> None:
        """Let go of it; a launch that runs is still done."""
        if not self._closed:
            self.native.close()
        self._closed = True

    def _launch(self, stream: Stream) -> None:
        with cuda_errors("graph.launch"):
            self.native.launch(native_of(stream))


class CoreModule(Module):
    """See `Module`."""

    def __init__(self, device: CoreDevice, code: Any) -> None:
        super().__init__(device)
        self._code: Any = code
        self._core = device.core

    def function(self, name: str) -> CoreFunction:
        self.check_open()
        with self.device.active(), cuda_errors(f"kernel {name}"):
            return CoreFunction(self, name, self._code.get_kernel(name), self._core)

    def _unload(self) -> None:
        self._code = None


class CoreFunction(Function):
    """See `Function`."""

    def __init__(self, module: CoreModule, name: str, native: Any, core: Any) -> None:
        super().__init__(module, name)
        self._native = native
        self._core = core

    def _launch(
        self,
        stream: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: list[int | np.generic],
        shared: int,
    ) -> None:
        with cuda_errors(f"kernel {self.name}"):
            config = self._core.LaunchConfig(grid=grid, block=block, shmem_size=shared)
            self._core.launch(stream.native, config, self._native, *args)


def native_of(thing: Any) -> Any:
    """cuda.core's own object of a stream or event; every kind has its own."""
    return thing.native
