"""Grafted graphs on TensorRT: engines that were built ahead, run on a device at a few batch sizes.

A batch is put into the smallest bucket that holds it; larger ones are cut by the largest. All graphs of a layout run
on one stream, one after another: a trunk's taps lie where its branches read them, and the outputs that were asked
for come back in one copy. Tested on a stand-in for library and device; not run on a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from graftsdk.arguments import whole_number
from graftsdk.engines.base import Engine, Gather, Graph, OpenGraph
from graftsdk.engines.buckets import bucket_sizes, smallest_bucket
from graftsdk.engines.cuda import Device
from graftsdk.engines.device_feeds import Intake
from graftsdk.engines.exits import in_flight
from graftsdk.engines.feeds import Port, check_feed, chunk_sizes, on_device
from graftsdk.engines.forks import leak_in_child
from graftsdk.engines.lanes import LanePool, Options
from graftsdk.engines.lease import Lease
from graftsdk.engines.tensorrt import Library
from graftsdk.engines.tensorrt_graph import DeviceGraph
from graftsdk.errors import EngineError, EngineOutOfMemory, InputError

__all__ = ["TensorRTEngine"]

_log = logging.getLogger("graftsdk")


class TensorRTEngine(Engine):
    """Engines of the TensorRT family, run in order; see `base.Engine`.

    Args:
        graphs: what was compiled, in the order in which it runs.
        contents: each graph's engine, serialised. **Engines are code**: see `trust`.
        library: the library that built them. device: where they run; it stays open as long as the engine is.
        names: for each graph how its parts are called inside the engine, see `Refittable`; empty where all are as in
            the graphs.
        buckets: batch sizes to run at; None takes those that the engines were tuned for.
        options: how to run.

    Raises:
        EngineIncompatible: an engine of another version, GPU, runtime or graph, or batch sizes that do not fit.
        EngineOutOfMemory: the device has not enough memory for the engines.

    Attributes:
        buckets: the batch sizes, ascending.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        contents: Sequence[bytes | memoryview],
        *,
        library: Library,
        device: Device,
        names: Sequence[Mapping[str, str]] = (),
        buckets: Iterable[int] | None = None,
        options: Options = Options(),  # noqa: B008 - frozen
    ) -> None:
        if len(graphs) != len(contents):
            raise InputError(f"engines: expected one for each of {len(graphs)} graphs, found {len(contents)}")
        self._graphs, self._contents = tuple(graphs), list(contents)
        self._names = names or [{}] * len(graphs)
        self._library, self._device, self._options = library, device, options
        self._asked_buckets = None if buckets is None else tuple(buckets)
        super().__init__(graphs, device="cuda", max_batch=1)
        self._contents.clear()  # the device has them now
        self._max_batch = self.buckets[-1]

    def warm_up(self, outputs: Sequence[str] | None = None) -> None:
        """Run every bucket twice with zeros, so that no caller waits for its contexts, kernels and captured graph.

        Args:
            outputs: those that callers will ask for; None for what no other graph takes: the scores, no taps.
        """
        taken = {value for wires in self._wiring.graphs for value in wires.inputs.values()}
        usual = [name for name in self.outputs if name not in taken]
        asked, runners = self._asked(usual if outputs is None else outputs), self._current()
        fed = self._wiring.feeds(self._wiring.needed(asked))
        ports = {name: runners[index].inputs[position] for name, (index, position) in fed.items()}
        for size in self.buckets:
            feeds = {
                name: np.zeros((size, *(side or 1 for side in port.shape[1:])), port.dtype)
                for name, port in ports.items()
            }
            for _ in range(2):
                self.run(feeds, asked)

    @contextmanager
    def lease(self, rows: int) -> Iterator[Lease]:
        """A lane for this thread alone, to fill its inputs on the device and keep its outputs there.

        Args:
            rows: at most the largest of `buckets`; they are put into the smallest that holds them.

        Raises:
            InputError: another number of rows. EngineClosed: `close` was called.
            EngineOutOfMemory: the device has not enough memory for that bucket; smaller ones may fit.
        """
        self._current()
        count = whole_number("lease: rows", rows, 1, self.buckets[-1])
        size = smallest_bucket(count, self.buckets)
        with in_flight(), self._device.active(), self._lanes.lane() as lane:
            yield Lease(lane, lane.bucket(size, self._smaller(size)), count, self._device, self._wiring, self._asked)

    def close(self) -> None:
        """Let go of engines and device memory. Runs in flight finish; later ones raise EngineClosed."""
        super().close()
        if not self._forked:  # else they are the parent's, and destroying them here may crash
            with ExitStack() as stack:
                with suppress(EngineError):  # a device that was closed before
                    stack.enter_context(self._device.active())
                self._lanes.close()
                self._intake.close()

    def _open(self) -> tuple[tuple[OpenGraph, ...], bool]:
        with in_flight(), self._device.active():
            opened = [
                DeviceGraph(self._library, content, graph, names)
                for content, graph, names in zip(self._contents, self._graphs, self._names, strict=True)
            ]
        self.buckets = bucket_sizes([graph.profiles for graph in opened], self._asked_buckets)
        self._lanes = LanePool(self._device, opened, self._wiring, self._options)
        self._intake = Intake(self._device)
        for each in (*opened, self._lanes, self._intake):
            leak_in_child(each)
        return tuple(opened), False

    def _chunks(self, batch: int, fixed: set[int]) -> list[int]:
        if fixed:
            return chunk_sizes(batch, self._max_batch, fixed)
        most = self.buckets[-1]
        return [most] * (batch // most) + [batch % most] * (batch % most > 0)

    def _run_chunk(
        self,
        values: dict[str, Any],
        runners: Sequence[OpenGraph],
        needed: Sequence[int],
        asked: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """The asked values of one chunk; where the device is out of memory, of parts of it, in smaller buckets."""
        rows = len(next(iter(values.values())))
        size = smallest_bucket(rows, self.buckets)
        problem = ""
        try:
            return self._run_bucket(values, size, needed, asked)
        except EngineOutOfMemory as error:
            problem = str(error)  # and not the error itself, whose frames keep alive what has to go
        size = self._smaller(size)  # idle lanes gave theirs back
        _log.warning("a batch of %d is run in parts of %d: %s", rows, size, problem)
        gather = Gather(asked, [runners[index] for index in needed], rows)
        for start in range(0, rows, size):
            part = {name: array[start : start + size] for name, array in values.items()}
            count = min(size, rows - start)
            gather.add(self._run_bucket(part, size, needed, asked), start, count)
        return gather.results

    def _smaller(self, size: int) -> int:
        """The next smaller bucket; of the smallest itself."""
        return max((bucket for bucket in self.buckets if bucket < size), default=size)

    def _run_bucket(
        self, values: Mapping[str, Any], size: int, needed: Sequence[int], asked: Sequence[str]
    ) -> dict[str, np.ndarray]:
        with in_flight(), self._device.active(), self._lanes.lane() as lane:
            bucket = lane.bucket(size, self._smaller(size))
            rows = 0
            for name, value in values.items():
                rows = len(value)
                bucket.feed(name, value)
            bucket.run(needed, asked)
            lane.stream.sync()
            return bucket.fetch(asked, rows)

    def _check_feed(self, name: str, value: Any, port: Port) -> Any:
        return self._intake.take(name, value, port) if on_device(value) else check_feed(name, value, port)
