"""From one thread that reads frames to one that uses them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from graftsdk.preprocess.frame import Frame

__all__ = ["Handover"]

_TURN = 0.1  # seconds


class Handover:
    """A bounded queue that knows of an end, of an error, and of frames that nobody wants any more.

    The consumer waits in short turns. What a signal's handler raises (Ctrl-C) leaves a wait, but a signal that comes
    just before one begins is seen only after it.

    Args:
        newest: a frame that waits is replaced by the next one; else the reader waits until there is room.

    Attributes:
        room: how many frames may wait. dropped: how many were replaced.
    """

    def __init__(self, newest: bool) -> None:
        self.room = 1
        self.dropped = 0
        self._newest = newest
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()  # reentrant: a finalizer may run where it is held
        self._opened: tuple[float | None, int | None] | None = None
        self._finished = False
        self._stopped = False
        self._error: BaseException | None = None

    # --- the reader's side

    @property
    def stopped(self) -> bool:
        """Nobody wants more."""
        return self._stopped

    def open(self, rate: float | None, count: int | None) -> None:
        """Say that the source could be opened, and what it states: frames a second, number of frames."""
        with self._changed:
            self._opened = rate, count
            self._changed.notify_all()

    def put(self, frame: Frame) -> None:
        """Hand a frame over, after waiting for room or in place of one that waits."""
        with self._changed:
            if not self._newest:
                self._changed.wait_for(lambda: self._stopped or len(self._waiting) < self.room)
            elif self._waiting:
                self._waiting.clear()
                self.dropped += 1
            if not self._stopped:
                self._waiting.append(frame)
                self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, max(seconds, 0.0))

    def finish(self, error: BaseException | None) -> None:
        """Say that no frame comes any more; `error` reaches the consumer after the frames that wait."""
        with self._changed:
            self._finished, self._error = True, None if self._stopped else error
            self._changed.notify_all()

    # --- the consumer's side

    def wait_open(self) -> tuple[float | None, int | None]:
        """Wait until the source is open; what it states. Raises what kept the reader from it."""
        with self._interruptible():
            while not (self._opened or self._finished):
                self._changed.wait(_TURN)
            if not self._opened:
                self._raise()
            return self._opened or (None, None)

    def get(self) -> Frame | None:
        """The next frame; None at the end, and for ever after `stop`. Raises what ended the reader, once."""
        with self._interruptible():
            while not (self._waiting or self._finished or self._stopped):
                self._changed.wait(_TURN)
            if self._waiting:
                self._changed.notify_all()
                return self._waiting.popleft()
            self._raise()
            return None

    def stop(self) -> None:
        """Say that nobody wants more; what waits is forgotten."""
        with self._changed:
            self._stopped, self._error = True, None
            self._waiting.clear()
            self._changed.notify_all()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Holds the condition, for waiting in the main thread."""
        leaving: BaseException | None = None
        try:
            with self._changed:
                try:
                    yield
                except BaseException as error:
                    leaving = error
                    raise
        except RuntimeError as error:
            # A signal that comes when a wait has just let go of the lock: leaving the block fails to let go again.
            if leaving is None or leaving is error:
                raise
            raise leaving from None
        finally:
            leaving = None  # it knows this frame

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
