"""Images decoded ahead of whoever works on them: in threads, in order, a few at a time."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import GraftError
from graftsdk.preprocess.decode import decode_image
from graftsdk.preprocess.image import Color

__all__ = ["Decoded", "decode_ahead", "decode_timed"]

THREADS = 2  # decoding takes a tenth of what follows it, or less: two keep up, and leave the cores to the engine
AHEAD = 4  # images that wait, decoded: a bound on memory, 600 MB of the largest ones


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


def decode_ahead(sources: Iterable[Any], color: Color = "bgr", reduce: int = 1) -> Iterator[Decoded]:
    """The images of `sources`, in order, each decoded as `decode_image` does; close it where it is left early.

    Paths and bytes are decoded ahead in threads. Everything else belongs to the caller, who may not want it read from
    another thread, and is decoded when its turn comes. At most AHEAD sources are taken before their turn.
    """
    decode = partial(decode_timed, color=color, reduce=reduce)
    waiting: deque[tuple[Any, Future[Decoded] | None]] = deque()
    pool = ThreadPoolExecutor(THREADS, "graftsdk-decode")  # starts its threads with the work
    try:
        for source in sources:
            apart = isinstance(source, (str, bytes, os.PathLike))
            waiting.append((source, pool.submit(decode, source) if apart else None))
            if len(waiting) > AHEAD:
                yield _turn(waiting, decode)
        while waiting:
            yield _turn(waiting, decode)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _turn(waiting: deque[tuple[Any, Future[Decoded] | None]], decode: Any) -> Decoded:
    source, future = waiting.popleft()
    found: Decoded = decode(source) if future is None else future.result()
    return found
