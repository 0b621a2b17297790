"""Images decoded ahead of whoever works on them: in threads, in order, a few at a time."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import GraftError
from graftsdk.preprocess.decode import decode_image
from graftsdk.preprocess.image import Color

__all__ = ["Decoded", "decode_ahead", "decode_timed"]

WORKERS = 4  # at most; decoding shares the CPUs with the engine
AHEAD = 2  # images a worker that are decoded or waiting: one in work, one ready
AHEAD_BYTES = 256 * 2**20  # of pixels, as large as the last image's: 7 photographs of 12 million pixels


@dataclass(frozen=True, eq=False)
class Decoded:
    """One image, or why it is none.

    Attributes:
        source: what it was decoded from.
        image: uint8[H, W, 3], BGR, or the error that `decode_image` raised.
        spent_ms: milliseconds that decoding took.
    """

    source: Any
    image: npt.NDArray[np.uint8] | GraftError
    spent_ms: float


def decode_timed(source: Any, color: Color = "bgr", reduce: int = 1) -> Decoded:
    """One image as `decode_image` gives it, or its error, and the time that it took."""
    started = time.perf_counter()
    try:
        image: npt.NDArray[np.uint8] | GraftError = decode_image(source, color, reduce)
    except GraftError as error:
        image = error
    return Decoded(source, image, 1e3 * (time.perf_counter() - started))


def decode_ahead(
    sources: Iterable[Any], color: Color = "bgr", reduce: int = 1, *, copy: bool = False
) -> Generator[Decoded]:
    """The images of `sources`, in order, each decoded as `decode_image` does. Close it where it is left early.

    Paths and bytes are decoded in threads. Everything else (arrays, PIL images, open files) belongs to the caller,
    who may not want it read from another thread: it is decoded when it is drawn from `sources`, one at a time. Sources
    are drawn in the consumer's thread, only a few ahead. What `sources` itself raises is raised after what came before.

    Args:
        sources: what `decode_image` takes.
        color, reduce: as for `decode_image`.
        copy: arrays are copied when they are drawn: an iterator may fill one again and again.
    """
    process, workers = os.getpid(), list[threading.Thread]()
    count = min(WORKERS, len(os.sched_getaffinity(0)))
    pool = ThreadPoolExecutor(
        count, "graftsdk-decode", initializer=lambda: workers.append(threading.current_thread())
    )  # its threads start with their work
    try:
        drawn, waiting = iter(sources), deque[Decoded | Future[Decoded]]()
        room = AHEAD * count
        broken: Exception | None = None
        more = True
        while more or waiting:
            # What is decoded when it is drawn gains nothing from being drawn early, and its maker may wait for us.
            while more and len(waiting) < room and not (waiting and isinstance(waiting[-1], Decoded)):
                try:
                    source = next(drawn)
                except StopIteration:
                    more = False
                except Exception as error:  # noqa: BLE001  (the caller's own iterator: it gets back what it raised)
                    more, broken = False, error
                else:
                    apart = isinstance(source, (str, bytes, os.PathLike))
                    waiting.append(
                        pool.submit(decode_timed, source, color, reduce)
                        if apart
                        else _own(decode_timed(source, color, reduce), copy)
                    )
            if waiting:
                first = waiting.popleft()
                found = first if isinstance(first, Decoded) else first.result()
                if not isinstance(found.image, GraftError):
                    room = min(AHEAD * count, max(1, AHEAD_BYTES // found.image.nbytes))
                yield found
                del first, found  # nobody else holds on to the pixels while the next ones are decoded
        if broken is not None:
            raise broken
    finally:
        if os.getpid() == process:  # in a forked child the threads are not here, but locks that they held would be
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                if worker is not threading.current_thread():  # the collector runs in any thread
                    worker.join()


def _own(decoded: Decoded, copy: bool) -> Decoded:
    if not copy or decoded.image is not decoded.source or isinstance(decoded.image, GraftError):
        return decoded
    return replace(decoded, image=decoded.image.copy())
