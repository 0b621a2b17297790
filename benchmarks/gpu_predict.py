"""predict() on frames that lie in device memory: what the host does for each, and what is copied from the device.

The host's work is the time of the call less the time in which it waits for the device (`Stream.sync`, `Event.sync`,
`Device.sync`). ONNX Runtime waits inside its own call, which cannot be told apart: there the whole of it is taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from gpu_engines import Kind, build
from gpu_plans import Workload
from gpu_rows import Row

from graftsdk import Predictor
from graftsdk.engines import onnxruntime
from graftsdk.engines.cuda import Device
from graftsdk.engines.cuda.resources import Event, Stream
from graftsdk.errors import GraftError

PEOPLE = 4
FRAME = (1080, 1920, 3)


class Watch:
    """Seconds that calls waited, and bytes that were copied to the host one by one (not in captured graphs)."""

    def __init__(self) -> None:
        self.waited, self.fetched = 0.0, 0
        self._deep = 0

    def waiting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self._deep += 1
            started = time.perf_counter()
            try:
                return method(*args, **options)
            finally:
                self._deep -= 1
                if not self._deep:  # one that calls another counts once
                    self.waited += time.perf_counter() - started

        return wrapped

    def fetching(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(device: Any, dst: Any, src: Any, nbytes: int, stream: Any) -> Any:
            self.fetched += nbytes
            return method(device, dst, src, nbytes, stream)

        return wrapped

    @contextmanager
    def over(self, kind: Kind) -> Iterator[None]:
        """While the block runs, this watches."""
        waits: list[tuple[type, str]] = [(Stream, "sync"), (Event, "sync"), (Device, "sync")]
        if kind.runtime is None:
            waits += [(onnxruntime.Session, "run"), (onnxruntime.BoundSession, "run")]
        with ExitStack() as stack:
            for owner, name in waits:
                stack.enter_context(mock.patch.object(owner, name, self.waiting(getattr(owner, name))))
            stack.enter_context(mock.patch.object(Device, "d2h", self.fetching(Device.d2h)))
            yield


def predict_rows(kind: Kind, work: Workload, rounds: int) -> list[Row]:
    """Frames on the device, and for comparison on the host."""
    build(kind, work.full, "merged", work.batches)
    options: dict[str, Any] = {"device": kind.device}
    if kind.precision != "float32":
        options["precision"] = kind.precision
    if kind.runtime is not None:
        options |= {"engine": "tensorrt", "runtime": kind.runtime, "engines": kind.folder}
    frame = np.random.default_rng(0).integers(0, 256, FRAME, np.uint8)
    boxes = np.array([[100 + 300 * index, 200, 350 + 300 * index, 800] for index in range(PEOPLE)], np.float32)
    with Predictor(work.full, **options) as predictor:
        return [
            _row(kind, predictor, _on_device(frame, kind), boxes, rounds, "device"),
            _row(kind, predictor, frame, boxes, rounds, "host"),
        ]


def _on_device(frame: np.ndarray, kind: Kind) -> Any:
    import torch

    return torch.tensor(frame, device=kind.place)


def _row(kind: Kind, predictor: Predictor, frame: Any, boxes: np.ndarray, rounds: int, where: str) -> Row:
    aimed = where == "device"
    title = f"{kind.title}: predict() on a 1080p frame in {where} memory, {PEOPLE} people, host work a frame"
    watch, found, whole = Watch(), [], []
    try:
        for _ in range(3):
            predictor.predict(frame, boxes=boxes)
        with watch.over(kind):
            for _ in range(rounds):
                watch.waited = 0.0
                started = time.perf_counter()
                predictor.predict(frame, boxes=boxes)
                whole.append(time.perf_counter() - started)
                found.append(whole[-1] - watch.waited)
    except (GraftError, TypeError) as error:
        return Row(title, None, "at most" if aimed else "", 0.3, "ms", " ".join(str(error).split())[:200])
    said = f"the whole call {1e3 * median(whole):.2f} ms; {watch.fetched / rounds / 1024:.1f} KiB a frame to the host"
    said += " beside those in captured graphs" if kind.runtime else " by graftsdk, the scores by ONNX Runtime"
    return Row(title, 1e3 * median(found), "at most" if aimed else "", 0.3 if aimed else 0.0, "ms", said)
