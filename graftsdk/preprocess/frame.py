"""A picture of a source of many pictures, and what every such source has in common."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import GraftError, InputError
from graftsdk.text import one_line

__all__ = ["Frame", "Frames"]

MAX_FAILURES = 1000  # kept by name; a folder of broken files must not fill the memory

_log = logging.getLogger("graftsdk")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8[H, W, 3], BGR; nobody else writes to it, except to an array of a list that was handed in.
        index: its place in the source, from 0; every frame counts, those skipped or dropped too.
        timestamp: seconds: of a video file from its beginning, of a camera or network source Unix time of reading;
            None for separate images, and where the file has none for this frame.
        source: path, URL (as `public_name` shows it) or device; None for an image that came without a path.
        decode_ms: what reading and decoding it took, those skipped before it included; of a live source, where
            reading means waiting, only what comes after that.
        read_at: `time.monotonic()` when it was grabbed, before its pixels were converted; of a file that is played
            live, when it was due.
    """

    image: npt.NDArray[np.uint8]
    index: int
    timestamp: float | None
    source: str | None
    decode_ms: float
    read_at: float


class Frames(ABC, Iterator[Frame]):
    """The frames of a source, one after another; for one thread. Close it, or use it in a `with` block.

    The end, an error, `close()` and garbage collection end its threads and close its files. A forked child has none of
    its threads: there, asking for a frame raises InputError.

    Attributes:
        live: the newest frame is given, others are dropped; else every frame.
        separate: the frames are images of their own, each can fail alone; else they are one video.
        rate: frames a second, as the source states it, all of them counted; None where it states nothing that can be.
        count: how many frames the source states to have; None where it states nothing. Some containers only estimate.
        failures: source (or "image 3", its place) -> error, of the last 1000 separate images that were left out; a
            source that fails again is named with its place, as in "a.jpg (image 3)".
        failed: how many separate images were left out.
    """

    live: bool = False
    separate: bool = False
    rate: float | None = None
    count: int | None = None
    failures: dict[str, GraftError]
    failed: int

    def __init__(self) -> None:
        self.failures = {}
        self.failed = 0
        self._process = os.getpid()

    @property
    def dropped(self) -> int:
        """How many frames were read and then replaced by a newer one before anybody took them."""
        return 0

    def __next__(self) -> Frame:
        if os.getpid() != self._process:  # nobody would ever answer
            raise InputError(
                "frames: expected the process that opened them, found a forked child; open the source there"
            )
        return self._take()

    @abstractmethod
    def _take(self) -> Frame:
        """The next frame; whatever is raised, StopIteration at the end too, closes the source."""

    @abstractmethod
    def close(self) -> None:
        """End threads, close files; no frame comes any more. May be called again."""

    def leave_out(self, index: int, source: str | None, error: GraftError) -> None:
        """Note that a separate image cannot be used, in the log and in `failures`."""
        name = source or f"image {index}"
        if name in self.failures:
            name = f"{name} (image {index})"
        self.failures[name] = type(error)(str(error))  # a traceback would hold on to pixels
        self.failed += 1
        if len(self.failures) > MAX_FAILURES:
            del self.failures[next(iter(self.failures))]
        _log.warning("%s is left out: %s", one_line(name), one_line(str(error)))

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
