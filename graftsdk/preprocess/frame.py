"""A picture of a source of many pictures, and what every such source has in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import GraftError
from graftsdk.text import one_line

__all__ = ["Frame", "Frames"]

_log = logging.getLogger("graftsdk")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8[H, W, 3], BGR; nobody else writes to it, except to an array of a list that was handed in.
        index: its place in the source, from 0; every frame counts, those skipped or dropped too.
        timestamp: seconds: of a video file from its beginning, of a camera or network source Unix time of reading;
            None for separate images, and where the file has none for this frame.
        source: path, URL (without user and password) or device; None for an image that came without a path.
        decode_ms: what reading and decoding it took, those skipped before it included; of a live source, where
            reading means waiting, only what comes after that.
        read_at: `time.monotonic()` when it was read; of a file that is played live, when it was due.
    """

    image: npt.NDArray[np.uint8]
    index: int
    timestamp: float | None
    source: str | None
    decode_ms: float
    read_at: float


class Frames(ABC, Iterator[Frame]):
    """The frames of a source, one after another; for one thread. Close it, or use it in a `with` block.

    The end, an error, `close()` and garbage collection end its threads and close its files. In a forked child its
    threads are missing: iterate where it was opened.

    Attributes:
        live: the newest frame is given, others are dropped; else every frame.
        separate: the frames are images of their own, each can fail alone; else they are one video.
        rate: frames a second, as the source states it, all of them counted; None where it states nothing that can be.
        count: how many frames the source states to have; None where it states nothing. Some containers only estimate.
        failures: source (or "image 3") -> error, of separate images that were left out.
    """

    live: bool = False
    separate: bool = False
    rate: float | None = None
    count: int | None = None
    failures: dict[str, GraftError]

    def __init__(self) -> None:
        self.failures = {}

    @property
    def dropped(self) -> int:
        """How many frames were read and then replaced by a newer one before anybody took them."""
        return 0

    @abstractmethod
    def __next__(self) -> Frame: ...

    @abstractmethod
    def close(self) -> None:
        """End threads, close files; no frame comes any more. May be called again."""

    def leave_out(self, index: int, source: str | None, error: GraftError) -> None:
        """Note that a separate image cannot be used, in the log and in `failures`."""
        name = source or f"image {index}"
        self.failures[name] = type(error)(str(error))  # a traceback would hold on to pixels
        _log.warning("%s is left out: %s", one_line(name), one_line(str(error)))

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
