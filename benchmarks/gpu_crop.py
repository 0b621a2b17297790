"""Crops on the device: the time of the kernels, as a share of the rate at which the device copies.

Counted are the bytes that have to move: the pixels of the frame that any window covers, masks, and the crops. Four
calls write to four places, so that no cache holds what they write. The kernels are timed in a captured graph, without
the host; the time of a call with all that the host does is beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from gpu_rows import Row

from graftsdk.engines.cuda.crop import DeviceCrop, DeviceFrame, DeviceMasks, crop_windows
from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import Stream

PEOPLE, SIDE, PLACES = 32, 299, 4
FRAME = (1080, 1920)


class Recorder:
    """Kernels that note each launch, so that it can be launched again without the host's share of a call."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels, self.device = kernels, kernels.device
        self.launches: list[Callable[[Stream], None]] = []

    def __getitem__(self, name: str) -> Any:
        function, launches = self._kernels[name], self.launches

        class Noted:
            def launch(self, stream: Stream, grid: Any, block: Any, *args: Any) -> None:
                launches.append(lambda where: function.launch(where, grid, block, *args))
                function.launch(stream, grid, block, *args)

        return Noted()


def timed(device: Device, stream: Stream, work: Callable[[], object], rounds: int, each: int) -> tuple[float, float]:
    """Least and median milliseconds of one of the `each` things that `work` does, by the device's own clock."""
    start, end = device.event(timing=True), device.event(timing=True)
    found = []
    for turn in range(rounds + 3):
        start.record(stream)
        work()
        end.record(stream)
        stream.sync()
        if turn >= 3:
            found.append(end.elapsed(start) / each)
    return min(found), median(found)


def copy_rate(device: Device, rounds: int, nbytes: int) -> float:
    """Bytes a second that the device reads and writes when it copies its own memory; the best of all rounds."""
    with device.stream() as stream, device.alloc(nbytes) as one, device.alloc(nbytes) as other:
        device.memset(one, 3, nbytes, stream)

        def copies() -> None:
            for _ in range(4):
                device.d2d(other, one, nbytes, stream)

        least, _ = timed(device, stream, copies, rounds, 4)
    return 2 * nbytes / (max(least, 1e-9) * 1e-3)


def crop_rows(device: Device, kernels: Kernels, rounds: int, *, small: bool) -> tuple[list[Row], list[str]]:
    """Each kind of crop, as a share of the copy rate."""
    rate = copy_rate(device, rounds, (1 if small else 512) << 20)
    lines = [f"device copies, bytes read and written: {rate / 1e9:.0f} GB/s"]
    rows = []
    for half, masked in ((False, False), (False, True), (True, False), (True, True)):
        case = Case(device, kernels, half=half, masked=masked)
        try:
            title = f"mask-crop, {PEOPLE} crops to {SIDE}, {'float16' if half else 'float32'}, "
            title += "float masks of 64x40" if masked else "boxes alone"
            least, middle = case.kernels_alone(rounds)
            whole = case.whole_call(rounds)
        finally:
            case.close()
        share = case.nbytes / (max(middle, 1e-9) * 1e-3) / rate
        said = f"{1e3 * middle:.1f} us (least {1e3 * least:.1f}) for {case.nbytes / 1e6:.1f} MB"
        said += f"; a call with the host's work {1e3 * whole:.0f} us"
        rows.append(Row(f"{title}: share of the copy rate", share, "at least", 0.6, "", said))
    rows.append(_graph_row(device, kernels, rounds))
    return rows, lines


def _graph_row(device: Device, kernels: Kernels, rounds: int) -> Row:
    """What a captured graph saves at batch 1, of our own work."""
    case = Case(device, kernels, half=False, masked=False, people=1)
    try:
        launches, stream = case.launches, case.stream
        if not device.can_capture:
            return Row("one crop's kernels, enqueued / captured", None, why=f"{device.kind} captures no graphs")

        def enqueued() -> None:
            for launch in launches:
                launch(stream)
            stream.sync()

        with device.capture(stream, lambda: [launch(stream) for launch in launches]) as graph:

            def captured() -> None:
                graph.launch(stream)
                stream.sync()

            one, other = (_wall(work, rounds) for work in (enqueued, captured))
    finally:
        case.close()
    said = f"{1e3 * one:.3f} / {1e3 * other:.3f} ms for {PLACES} crops"
    return Row("one crop's kernels at batch 1, enqueued / captured", one / max(other, 1e-12), why=said)


def _wall(work: Callable[[], object], rounds: int) -> float:
    """Median seconds on the host's clock."""
    found = []
    for _ in range(rounds + 3):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return median(found[3:])


class Case:
    """A frame, people and masks on the device, and four calls that were made once and can be launched again."""

    def __init__(self, device: Device, kernels: Kernels, *, half: bool, masked: bool, people: int = PEOPLE) -> None:
        rng = np.random.default_rng(0)
        height, width = FRAME
        frame = rng.integers(0, 256, (height, width, 3), np.uint8)
        corner = rng.uniform((0, 0), (width - 300, height - 640), (people, 2))
        boxes = np.concatenate([corner, corner + rng.uniform((200, 520), (300, 640), (people, 2))], axis=1)
        self.device, self.stream = device, device.stream()
        self._windows = crop_windows(boxes, height, width)
        self._buffers = [self._upload(frame)]
        self._frame = DeviceFrame(self._buffers[0].ptr, height, width, 3 * width)
        self._masks = self._make_masks(rng, boxes) if masked else None
        recorder = Recorder(kernels)
        self._crop = DeviceCrop(recorder, size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3, half=half)  # type: ignore[arg-type]
        self._out = [device.alloc(people * self._crop.nbytes) for _ in range(PLACES)]
        self._cut_all()  # memory grows to what is needed
        self.stream.sync()
        recorder.launches.clear()
        self._cut_all()
        self.stream.sync()
        self.launches: Sequence[Callable[[Stream], None]] = tuple(recorder.launches)
        covered = np.zeros(FRAME, bool)
        for x0, y0, x1, y1 in self._windows.tolist():
            covered[y0:y1, x0:x1] = True
        self.nbytes = 3 * int(covered.sum()) + people * self._crop.nbytes + (people * 64 * 40 * 4 if masked else 0)

    def kernels_alone(self, rounds: int) -> tuple[float, float]:
        """Least and median milliseconds of a call's kernels, behind one another in one captured graph."""
        turns = 5 * PLACES

        def launch_all() -> None:
            for _ in range(turns // PLACES):
                for launch in self.launches:
                    launch(self.stream)

        if not self.device.can_capture:
            return timed(self.device, self.stream, launch_all, rounds, turns)
        with self.device.capture(self.stream, launch_all) as graph:
            return timed(self.device, self.stream, lambda: graph.launch(self.stream), rounds, turns)

    def whole_call(self, rounds: int) -> float:
        """Median milliseconds of a call until its crops are there, on the host's clock."""

        def call() -> None:
            self._cut(0)
            self.stream.sync()

        return 1e3 * _wall(call, rounds)

    def close(self) -> None:
        self.device.sync()
        self._crop.close()
        for buffer in (*self._buffers, *self._out):
            buffer.close()
        self.stream.close()

    def _cut_all(self) -> None:
        for place in range(PLACES):
            self._cut(place)

    def _cut(self, place: int) -> None:
        out = self._out[place].ptr
        self._crop.cut(self._frame, self._windows, out, self.stream, masks=self._masks, reverse=True)

    def _upload(self, array: np.ndarray) -> Any:
        buffer = self.device.alloc(array.nbytes)
        self.device.h2d(buffer, array, array.nbytes, self.stream)
        self.stream.sync()
        return buffer

    def _make_masks(self, rng: np.random.Generator, boxes: np.ndarray) -> DeviceMasks:
        count = len(boxes)
        buffer = self._upload(rng.random((count, 64, 40), np.float32))
        self._buffers.append(buffer)
        return DeviceMasks(
            "floats",
            (buffer.ptr + 64 * 40 * 4 * np.arange(count)).astype(np.uint64),
            np.full(count, 4 * 40, np.int64),
            np.tile(np.array([64, 40], np.int32), (count, 1)),
            boxes.astype(np.float32),
            buffer,
        )
