"""Frames that are images of their own: a folder's, or those of a list. Decoded ahead in threads, in order."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import GraftError
from graftsdk.preprocess.decode import decode_image
from graftsdk.preprocess.frame import Frame, Frames

__all__ = ["ImageFrames"]

WORKERS = 4  # at most; decoding shares the CPUs with the engine
AHEAD = 2  # images a worker that are decoded or waiting: one in work, one ready
AHEAD_BYTES = 256 * 2**20  # of pixels, as large as the last image's: 7 photographs of 12 million pixels

Decoded = tuple[npt.NDArray[np.uint8], float]  # image, milliseconds


class ImageFrames(Frames):
    """The images of a folder or a list, in order. See `open_frames`.

    Paths and bytes are decoded in threads. Everything else (arrays, PIL images, open files) belongs to the caller,
    who may change it once the next one is asked for: it is decoded, or copied, when it is drawn from `sources`.

    Args:
        sources: image sources, drawn in the consumer's thread and only a few ahead.
        stride: every how many one is given; the others are not decoded.
        reduce: sides are divided by it.
        strict: an image that cannot be used is an error; else it is left out.
    """

    separate = True

    def __init__(self, sources: Iterable[Any], *, stride: int, reduce: int, strict: bool = False) -> None:
        super().__init__()
        self._sources = enumerate(sources)
        self._copied = not isinstance(sources, (list, tuple))  # an iterator may fill one array again and again
        self._stride = stride
        self._reduce = reduce
        self._strict = strict
        self._ahead: deque[tuple[int, str | None, Future[Decoded]]] = deque()
        self._drained = False
        self._broken: Exception | None = None  # what drawing from `sources` raised, told after what came before it
        count = min(WORKERS, len(os.sched_getaffinity(0)))
        self._most = self._room = AHEAD * count
        workers: list[threading.Thread] = []
        self._pool = ThreadPoolExecutor(
            count, "graftsdk-images", initializer=lambda: workers.append(threading.current_thread())
        )
        self._end = weakref.finalize(self, _end, self._pool, workers, os.getpid())

    def __next__(self) -> Frame:
        try:
            while True:
                self._fill()
                if not self._ahead:
                    broken, self._broken = self._broken, None
                    raise broken or StopIteration
                index, source, decoded = self._ahead.popleft()
                try:
                    image, spent = decoded.result()
                except GraftError as error:
                    if self._strict:
                        raise
                    self.leave_out(index, source, error)
                    continue
                self._room = min(self._most, max(1, AHEAD_BYTES // image.nbytes))
                return Frame(image, index, None, source, spent, time.monotonic())
        except BaseException:  # the end and Ctrl-C too
            self.close()
            raise

    def close(self) -> None:
        self._drained = True
        self._ahead.clear()
        self._end()

    def _fill(self) -> None:
        """Draw and begin to decode until as many are ahead as may be."""
        while not self._drained and len(self._ahead) < self._room:
            try:
                index, source = next(self._sources)
            except StopIteration:
                self._drained = True
            except Exception as error:  # noqa: BLE001  (the caller's own iterator: it gets back what it raised)
                self._drained, self._broken = True, error
            else:
                if index % self._stride == 0:
                    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
                    self._ahead.append((index, name, self._begin(source)))

    def _begin(self, source: Any) -> Future[Decoded]:
        if isinstance(source, (str, bytes, os.PathLike)):
            return self._pool.submit(_decode, source, self._reduce)
        decoded: Future[Decoded] = Future()
        try:
            image, spent = _decode(source, self._reduce)
            decoded.set_result((image.copy() if self._copied and image is source else image, spent))
        except GraftError as error:
            decoded.set_exception(error)
        return decoded


def _decode(source: Any, reduce: int) -> Decoded:
    started = time.perf_counter()
    image = decode_image(source, reduce=reduce)
    return image, 1e3 * (time.perf_counter() - started)


def _end(pool: ThreadPoolExecutor, workers: list[threading.Thread], process: int) -> None:
    if os.getpid() != process:  # forked: the threads are not here, but locks that they held would be
        return
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        if worker is not threading.current_thread():  # the collector runs in any thread
            worker.join()
