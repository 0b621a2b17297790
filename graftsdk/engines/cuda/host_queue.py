"""The host device's streams: work waits in a queue until something synchronises, so that a forgotten wait shows.

What CUDA may do late is done as late as possible, and of two streams that do not wait for each other the one that was
filled last runs first: a test that reads, overwrites or frees too early gets wrong bytes here every time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from graftsdk.errors import EngineError

__all__ = ["Captured", "Mark", "Queue", "Queues"]


@dataclass(eq=False)
class Mark:
    """A recorded point of a queue; `reached` is the time at which it was run past, in seconds."""

    queue: Queue
    recording: Recording | None = None
    reached: float | None = None


@dataclass(frozen=True)
class _Op:
    """One step of a queue: work, a mark to record, or a mark to wait for."""

    run: Callable[[], None] | None = None
    record: Mark | None = None
    wait: Mark | None = None


@dataclass(eq=False)
class Queue:
    """The steps of a stream that are not done yet."""

    ops: deque[_Op] = field(default_factory=deque)
    recording: Recording | None = None


@dataclass(eq=False)
class Recording:
    """A capture that goes on: the steps of its first queue and of those that it drew in."""

    steps: dict[Queue, list[_Op]]
    over: bool = False


@dataclass(frozen=True)
class Captured:
    """Steps to run again: those of the stream that launches, and of the queues beside it."""

    first: Queue
    steps: dict[Queue, list[_Op]]


class Queues:
    """All queues of a device; one thread at a time runs their steps."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._busy: dict[Queue, None] = {}  # in the order in which they were last filled
        self._captures = 0  # that go on

    def put(self, queue: Queue, run: Callable[[], None]) -> None:
        """One piece of work behind the others."""
        with self._lock:
            self._append(queue, _Op(run=run))

    def record(self, queue: Queue) -> Mark:
        """The point behind all that is in the queue now."""
        with self._lock:
            mark = Mark(queue, queue.recording)
            self._append(queue, _Op(record=mark))
            return mark

    def wait(self, queue: Queue, mark: Mark) -> None:
        """What comes later waits for the mark. A mark inside a capture draws the queue into it.

        Raises:
            EngineError: a capture would depend on something outside it, or the other way round.
        """
        with self._lock:
            if queue.recording is None and mark.recording is not None:
                if mark.recording.over or queue.ops:
                    raise EngineError(
                        "event: expected one recorded outside a capture, or a stream without work to draw into the "
                        "capture, found neither; record it again"
                    )
                queue.recording = mark.recording
                mark.recording.steps[queue] = []
            if queue.recording is not mark.recording:
                raise EngineError("capture: expected events recorded in this capture, found one from outside it")
            self._append(queue, _Op(wait=mark))

    def finish(self, queue: Queue | None = None) -> None:
        """Run the queue, else all of them, newest first, and what they wait for.

        Raises:
            EngineError: the queue is being captured; with None, any is, as CUDA has it.
        """
        with self._lock:
            if queue is None and self._captures:
                raise EngineError("sync: expected no capture while the device is waited for, found one that goes on")
            if queue is not None:
                self._outside_capture(queue.recording)
                self._run(queue, None)
                return
            while self._busy:
                self._run(next(reversed(self._busy)), None)

    def reach(self, mark: Mark) -> None:
        """Run what the mark needs, and no more.

        Raises:
            EngineError: it was recorded in a capture.
        """
        with self._lock:
            self._outside_capture(mark.recording)
            if mark.reached is None:
                self._run(mark.queue, mark)

    def captured(self, queue: Queue, enqueue: Callable[[], object]) -> Captured:
        """What `enqueue` puts on the queue, and on those that wait for it.

        Raises:
            EngineError: a capture inside a capture; a queue that was drawn in and is not waited for at the end.
        """
        with self._lock:
            self._outside_capture(queue.recording)
            recording = Recording({queue: []})
            queue.recording = recording
            self._captures += 1
        try:
            enqueue()
        finally:
            with self._lock:
                self._captures -= 1
                recording.over = True
                for joined in recording.steps:
                    joined.recording = None
        waited = {op.wait for steps in recording.steps.values() for op in steps if op.wait is not None}
        for joined, steps in recording.steps.items():
            if joined is not queue and (not steps or steps[-1].record not in waited):
                raise EngineError(
                    "capture: expected every stream drawn in by an event to be joined again, found one that is not; "
                    "record an event on it and let the captured stream wait for that"
                )
        return Captured(queue, recording.steps)

    def launch(self, captured: Captured, queue: Queue) -> None:
        """Put the steps on the queue, with marks of their own each time."""
        with self._lock:
            queues = {old: Queue() for old in captured.steps}
            queues[captured.first] = queue
            marks: dict[Mark, Mark] = {}
            for old in captured.steps:  # marks first: a queue may wait for one that stands later in another
                for op in captured.steps[old]:
                    if op.record is not None:
                        marks[op.record] = Mark(queues[old], queue.recording)
            for old, steps in captured.steps.items():
                if queue.recording is not None:
                    queue.recording.steps.setdefault(queues[old], [])
                    queues[old].recording = queue.recording
                for op in steps:
                    self._append(queues[old], _translated(op, marks))

    def _append(self, queue: Queue, op: _Op) -> None:
        if queue.recording is not None:
            queue.recording.steps[queue].append(op)
            return
        queue.ops.append(op)
        self._busy.pop(queue, None)
        self._busy[queue] = None

    def _run(self, queue: Queue, until: Mark | None) -> None:
        """Without recursion: a chain of waits may be as long as a program."""
        stack = [(queue, until)]
        while stack:
            current, mark = stack[-1]
            if not current.ops:
                self._busy.pop(current, None)
            if not current.ops or (mark is not None and mark.reached is not None):
                stack.pop()
                continue
            op = current.ops[0]
            if op.wait is not None and op.wait.reached is None and op.wait.queue.ops:
                stack.append((op.wait.queue, op.wait))
                continue
            current.ops.popleft()
            if op.record is not None:
                op.record.reached = time.perf_counter()
            if op.run is not None:
                op.run()

    @staticmethod
    def _outside_capture(recording: Recording | None) -> None:
        if recording is not None:
            raise EngineError("expected work outside a capture, found a stream or event of one; launch its graph first")


def _translated(op: _Op, marks: dict[Mark, Mark]) -> _Op:
    return _Op(
        op.run,
        None if op.record is None else marks[op.record],
        None if op.wait is None else marks[op.wait],
    )
