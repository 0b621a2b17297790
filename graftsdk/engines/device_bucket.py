"""One batch size of device engines, ready to run: contexts, memory at fixed addresses, captured CUDA graphs.

Inputs, outputs and scratch lie in one block of device memory, which pinned host memory mirrors up to the scratch.
Outputs lie by size, the smallest first, so that the scores of all labels are one copy, and a tap or prototypes that
nobody asked for stay where they are.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graftsdk.engines.cuda import Device, DeviceBuffer, DeviceSpan, HostBuffer, Stream
from graftsdk.engines.cuda import Graph as CudaGraph
from graftsdk.engines.device_feeds import DeviceFeed
from graftsdk.engines.feeds import Port
from graftsdk.engines.tensorrt_graph import DeviceGraph, RunContext
from graftsdk.engines.wiring import Wiring
from graftsdk.errors import EngineError, EngineOutOfMemory

__all__ = ["Bucket", "Region"]

ALIGNMENT = 256  # bytes; what TensorRT asks of addresses
_SCRATCH_ALIGNMENT = 512  # what it asks of scratch memory: CUDA's texture alignment
_MOST_GRAPHS = 32  # captured ones of a bucket: one for each set of outputs that callers ask for

_log = logging.getLogger("graftsdk")


@dataclass(frozen=True)
class Region:
    """Where a value lies in a bucket's block.

    Attributes:
        start: byte. shape: at the bucket's size. rows: whether its first side is the batch.
    """

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: bool

    @property
    def nbytes(self) -> int:
        """Of the whole bucket."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def stop(self) -> int:
        """The byte behind it."""
        return self.start + self.nbytes

    def shape_of(self, rows: int) -> tuple[int, ...]:
        """Its shape where only `rows` rows of the bucket count."""
        return (rows, *self.shape[1:]) if self.rows else self.shape


class Bucket:
    """All graphs, ready to run at one batch size on one stream. One thread at a time.

    Attributes:
        size: the batch.
        regions: value -> where it lies, for everything that is fed or given.

    Args:
        device: where everything lies.
        graphs: in the order in which they run; `wiring` says which feeds which.
        size: the batch.
        stream: on which everything runs.
        aux: handles of the streams beside it.
        capture: run from captured graphs where the device can.

    Raises:
        EngineOutOfMemory: the device has not enough memory; nothing is kept.
    """

    def __init__(
        self,
        device: Device,
        graphs: Sequence[DeviceGraph],
        wiring: Wiring,
        size: int,
        stream: Stream,
        aux: Sequence[int],
        *,
        capture: bool,
    ) -> None:
        self.size, self._device, self._stream = size, device, stream
        self._contexts = [graph.context(size, stream.handle) for graph in graphs]
        self.regions, self._mirrored = _regions(graphs, self._contexts, wiring, size)
        scratch = max(max(context.scratch for context in self._contexts), ALIGNMENT)
        self._memory: DeviceBuffer = device.alloc(self._mirrored + _SCRATCH_ALIGNMENT + scratch)
        try:
            self._pinned: HostBuffer = device.alloc_pinned(self._mirrored)
        except BaseException:
            self._memory.close()
            raise
        self._views: dict[str, np.ndarray] = {}  # value -> its place in pinned memory
        device.memset(self._memory, 0, self._mirrored, stream)  # rows that only pad are numbers from the start
        base = self._memory.ptr  # which a device may align to less than scratch memory needs
        start = _aligned(base + self._mirrored, _SCRATCH_ALIGNMENT)
        for graph, wires, context in zip(graphs, wiring.graphs, self._contexts, strict=True):
            values = {**wires.inputs, **{name: name for name in wires.outputs}}
            addresses = {port: base + self.regions[value].start for port, value in values.items()}
            context.bind(addresses, (start, scratch), aux[: graph.aux_streams])
        self._capture = capture and device.can_capture
        # What to run and to copy -> the captured graph; None where it was run once, as capturing requires.
        self._graphs: OrderedDict[tuple[tuple[int, ...], tuple[int, int]], CudaGraph | None] = OrderedDict()

    def staging(self, value: str, rows: int) -> np.ndarray:
        """Pinned memory of the first rows of a value: what is fed from the host is written here, then `upload`ed."""
        region = self.regions[value]
        view = self._views.get(value)
        if view is None:
            flat = self._pinned.array[region.start : region.stop].view(region.dtype)
            view = self._views[value] = flat.reshape(region.shape)
        return view[:rows] if region.rows else view

    def span(self, value: str, rows: int) -> DeviceSpan:
        """Device memory of the first rows of a value; it is this bucket's as long as the lane is held."""
        region = self.regions[value]
        return self._memory.span(region.start, prod(region.shape_of(rows)) * region.dtype.itemsize)

    def feed(self, value: str, rows: np.ndarray | DeviceFeed) -> None:
        """Enqueue the copy of rows, from the host by way of `staging`, or from where they lie on the device."""
        if isinstance(rows, DeviceFeed):
            rows.ready.wait(self._stream)
            self._device.d2d(self.span(value, len(rows)), rows, rows.nbytes, self._stream)
        else:
            np.copyto(self.staging(value, len(rows)), rows)
            self.upload(value, len(rows))

    def upload(self, value: str, rows: int) -> None:
        """Enqueue the copy of what was written to `staging`."""
        source = self.staging(value, rows).reshape(-1).view(np.uint8)
        self._device.h2d(self.span(value, rows), source, source.nbytes, self._stream)

    def run(self, needed: Sequence[int], fetched: Sequence[str]) -> None:
        """Enqueue the graphs `needed` and one copy to the host, which holds at least the values `fetched`."""
        start = min((self.regions[name].start for name in fetched), default=0)
        stop = max((self.regions[name].stop for name in fetched), default=0)
        key = (tuple(needed), (start, stop))
        if not self._capture or key not in self._graphs:
            self._enqueue(*key)
            self._keep(key, None)
            return
        graph = self._graphs[key] or self._captured(key)
        if graph is None:
            self._enqueue(*key)
        else:
            self._keep(key, graph)
            graph.launch(self._stream)

    def fetch(self, names: Sequence[str], rows: int) -> dict[str, np.ndarray]:
        """The values that the last `run` fetched, once the stream was synchronised; copies of them."""
        return {name: self.staging(name, rows).copy() for name in names}

    def close(self) -> None:
        """Give everything back, each although another cannot be; no work of the lane is in flight."""
        for graph in self._graphs.values():
            if graph is not None:
                with suppress(EngineError):
                    graph.close()
        self._graphs.clear()
        self._contexts.clear()
        self._views.clear()
        for memory in (self._memory, self._pinned):
            with suppress(EngineError):
                memory.close()

    def _enqueue(self, needed: Sequence[int], span: tuple[int, int]) -> None:
        for index in needed:
            self._contexts[index].enqueue()
        start, stop = span
        if stop > start:
            target = self._pinned.array[start:stop]
            self._device.d2h(target, self._memory.span(start, stop - start), stop - start, self._stream)

    def _captured(self, key: tuple[tuple[int, ...], tuple[int, int]]) -> CudaGraph | None:
        try:
            # Asked after the first run, which may have compiled what can be captured only then.
            if not all(self._contexts[index].capturable for index in key[0]):
                raise EngineError(
                    "expected engines whose runs can be captured, found one that allocates; build it again"
                )
            return self._device.capture(self._stream, lambda: self._enqueue(*key))
        except EngineOutOfMemory:
            raise
        except EngineError as error:
            _log.warning("CUDA graphs are off for batches of %d: %s", self.size, error)
            self._capture = False
            return None

    def _keep(self, key: tuple[tuple[int, ...], tuple[int, int]], graph: CudaGraph | None) -> None:
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        if len(self._graphs) > _MOST_GRAPHS:
            _, old = self._graphs.popitem(last=False)
            if old is not None:
                self._stream.sync()
                old.close()


def _regions(
    graphs: Sequence[DeviceGraph], contexts: Sequence[RunContext], wiring: Wiring, size: int
) -> tuple[dict[str, Region], int]:
    """Value -> where it lies: what is fed first, then what is given, the smallest first; and the bytes of it all."""
    fed: dict[str, tuple[Port, tuple[int, ...]]] = {}
    given: dict[str, tuple[Port, tuple[int, ...]]] = {}
    for graph, wires, context in zip(graphs, wiring.graphs, contexts, strict=True):
        for port in graph.inputs:
            value = wires.inputs[port.name]
            if value in wiring.inputs:
                fed.setdefault(value, (port, tuple(size if side is None else side for side in port.shape)))
        given.update({port.name: (port, context.shapes[port.name]) for port in graph.outputs})
    by_size = sorted(given, key=lambda name: prod(given[name][1]) * given[name][0].dtype.itemsize)
    found: dict[str, Region] = {}
    stop = 0
    for name, (port, shape) in {**fed, **{name: given[name] for name in by_size}}.items():
        found[name] = Region(stop, shape, port.dtype, bool(port.shape) and port.shape[0] is None)
        stop = _aligned(found[name].stop, ALIGNMENT)
    return found, stop


def _aligned(address: int, alignment: int) -> int:
    """The first multiple of `alignment` that is not below."""
    return -(-address // alignment) * alignment
