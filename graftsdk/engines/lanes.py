"""Where runs of device engines happen: a lane is a stream and the buckets that it was asked for.

A lane is used by one thread at a time; a pool lends them out, as many as threads run at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from graftsdk.engines.cuda import Device, Event, Stream
from graftsdk.engines.cuda.resources import Resource
from graftsdk.engines.device_bucket import Bucket
from graftsdk.engines.tensorrt_graph import DeviceGraph
from graftsdk.engines.wiring import Wiring
from graftsdk.errors import EngineClosed, EngineError, EngineOutOfMemory

__all__ = ["Lane", "LanePool", "Options"]

_log = logging.getLogger("graftsdk")


@dataclass(frozen=True)
class Options:
    """How lanes run.

    Attributes:
        capture: run from captured CUDA graphs where the device can.
        aux_streams: give engines that were built for streams beside the main one such streams, shared in the lane.
        lanes: most lanes at once; further threads wait for one.
    """

    capture: bool = True
    aux_streams: bool = True
    lanes: int = 8


class Lane:
    """A stream of its own, and the buckets that were needed so far. One thread at a time.

    Attributes:
        stream: on which everything runs. aux: handles of the streams beside it. ready: an event for other streams.
        spared: the last `bucket` found the device out of memory, and the one to use instead is there.
    """

    def __init__(self, device: Device, graphs: Sequence[DeviceGraph], wiring: Wiring, options: Options) -> None:
        self._device, self._graphs, self._wiring, self._options = device, graphs, wiring, options
        self.stream: Stream = device.stream()
        self.ready: Event = device.event()
        count = max(graph.aux_streams for graph in graphs) if options.aux_streams else 0
        self._aux = [device.stream() for _ in range(count)]
        self.aux = [stream.handle for stream in self._aux]
        self._buckets: dict[int, Bucket] = {}
        self.spared = False

    def bucket(self, size: int, instead: int | None = None) -> Bucket:
        """The bucket of `size`, made at its first use.

        Args:
            size: the batch.
            instead: the size that the work will be done at where there is no memory for it.

        Raises:
            EngineOutOfMemory: the device has not enough memory for it.
        """
        self.spared = False
        if size not in self._buckets:
            try:
                self._buckets[size] = Bucket(
                    self._device, self._graphs, self._wiring, size, self.stream, self.aux, capture=self._options.capture
                )
            except EngineOutOfMemory:
                self.stream.sync()  # what contexts that go now have put on it is done
                self.spared = instead in self._buckets  # else what this lane holds may be the memory that is missing
                raise
        return self._buckets[size]

    def close(self) -> None:
        """Give everything back, each although another cannot be, the device's context current if it is still open."""
        with ExitStack() as stack:
            with suppress(EngineError):
                stack.enter_context(self._device.active())
            try:
                self.stream.sync()
            except EngineError as error:  # its work failed, which somebody was told already
                _log.debug("a lane is dropped: %s", error)
            parts: list[Bucket | Resource] = [*self._buckets.values(), self.stream, *self._aux, self.ready]
            for part in parts:
                with suppress(EngineError):
                    part.close()
            self._buckets.clear()
            self._graphs = ()  # the engines with their weights, where nobody else has them


class LanePool:
    """The lanes of an engine. Safe to use from many threads."""

    def __init__(self, device: Device, graphs: Sequence[DeviceGraph], wiring: Wiring, options: Options) -> None:
        self._device, self._graphs, self._wiring, self._options = device, tuple(graphs), wiring, options
        self._changed = threading.Condition()
        self._idle: list[Lane] = []
        self._lent = 0
        self._closed = False

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane for this thread alone, the one that was used last where there is one.

        After an error it is not used again: what its stream did is unknown. Where the device is out of memory, all
        lanes that nobody uses are given back; this one stays if only a bucket could not be made (`Lane.spared`).
        """
        lane = self._take()
        sound = False
        try:
            yield lane
            sound = True
        except EngineOutOfMemory:
            sound = lane.spared
            self.trim()
            raise
        finally:
            self._put(lane, sound)

    def trim(self) -> None:
        """Give back the memory of the lanes that nobody uses."""
        with self._changed:
            idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()
        with suppress(EngineError):  # a closed device
            self._device.trim()

    def close(self) -> None:
        """Give back every lane and the engines: idle ones now, those that run when their runs end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.trim()
        self._graphs = ()

    def _take(self) -> Lane:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._lent < self._options.lanes)
            if self._closed:
                raise EngineClosed("expected an open engine or predictor, found one after close(); open another")
            self._lent += 1
            if self._idle:
                return self._idle.pop()
            graphs = self._graphs  # `close` drops them
        try:
            return Lane(self._device, graphs, self._wiring, self._options)
        except BaseException:
            self._returned(None)
            raise

    def _put(self, lane: Lane, sound: bool) -> None:
        if not self._returned(lane if sound else None):
            lane.close()

    def _returned(self, lane: Lane | None) -> bool:
        """Whether the lane is kept for the next thread."""
        with self._changed:
            self._lent -= 1
            kept = lane is not None and not self._closed
            if kept:
                self._idle.append(lane)  # type: ignore[arg-type]
            self._changed.notify()
            return kept
