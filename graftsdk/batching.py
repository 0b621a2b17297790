"""`Batcher`: callers in any thread or event loop share an engine's batches, and each gets its own answer or error.

Images are decoded ahead in worker threads. One thread finds people, cuts them out and computes: these stages use all
cores by themselves, and two of them at once would only take turns on them.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number

# Registered at exit before `_leave_all` is, so that it runs after it: it lets nobody into the runtime any more.
from graftsdk.engines import exits  # noqa: F401
from graftsdk.errors import EngineClosed, EngineError, InputError, Overloaded
from graftsdk.preprocess.decode import check_decoding
from graftsdk.shared_batch import (
    BatchRecord,
    CropScores,
    CropsRequest,
    CutCrops,
    ImageRequest,
    Request,
    SharedBatch,
    too_late,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graftsdk.loaded import Loaded
    from graftsdk.prediction import Prediction
    from graftsdk.preprocess.image import Color
    from graftsdk.scores import Thresholds

__all__ = ["BatchRecord", "Batcher"]

_log = logging.getLogger("graftsdk")

DECODERS = 4  # at most
DECODED_BYTES = 256 * 2**20  # of pixels that wait decoded
STRAGGLERS = 0.2  # part of the last batch's time for which a batch with room waits for images that are being decoded
RETURNING = 0.01  # part of it for which it waits for callers who got an answer just now and may have the next image
PATIENCE = 10.0  # seconds that the interpreter's exit waits for a batch that is being computed


class Batcher:
    """Shares batches between callers; made by `Predictor.batcher`. Use it in a `with` block, or `close()` it.

    Threads start with the first image, and anew in a forked child, where what waited in the parent is not there.
    A request is answered by the plan that served when it was submitted, and shares batches with such ones only.

    Args:
        hold: gives the plan that serves now, held.
        max_batch: crops that are computed at once.
        max_wait_ms: how long a batch with room waits for more images, from when nothing else was left to do; at most
            half of the least `timeout` in it. 0 takes what is there.
        queue: images that may wait to be looked at; more are refused.

    Attributes:
        observe: called with a `BatchRecord` after each batch, in the computing thread; or None.

    Raises:
        InputError: an argument.
    """

    def __init__(
        self, hold: Callable[[], Loaded], *, max_batch: int = 32, max_wait_ms: float = 0.0, queue: int = 64
    ) -> None:
        self._max_batch = whole_number("max_batch", max_batch, 1, 1024)
        self._room = whole_number("queue", queue, 1, 1_000_000)
        if isinstance(max_wait_ms, bool) or not isinstance(max_wait_ms, (int, float)) or not 0 <= max_wait_ms <= 60_000:
            raise InputError(f"max_wait_ms: expected a number from 0 to 60000, found {max_wait_ms!r:.40}")
        self.observe: Callable[[BatchRecord], object] | None = None
        self._hold_plan = hold
        self._max_wait = max_wait_ms / 1e3
        self._closed = False
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        """Nothing waits, and no thread runs: at first, and in a forked child."""
        self._lock = threading.RLock()
        self._to_decode = threading.Condition(self._lock)
        self._to_compute = threading.Condition(self._lock)
        self._drained = threading.Condition(self._lock)
        self._queue: deque[Request] = deque()
        self._ready: deque[Request] = deque()
        self._open: set[Request] = set()  # submitted and not done
        self._born = object()  # what was submitted before, in the parent of a fork, is none of ours
        self._decoding = 0
        self._decoded, self._decoded_bytes = 0, 0  # of those that are ready: images that a thread of ours decoded
        self._waiting = 0
        self._threads: list[threading.Thread] = []
        self._stopped = False

    # ------------------------------------------------------------------------------------------------ what callers do

    @property
    def waiting(self) -> int:
        """Images that nobody has looked at yet."""
        return self._waiting

    @property
    def full(self) -> bool:
        """Whether one more image would be refused now."""
        return self._waiting >= self._room

    def submit(
        self,
        image: Any,
        *,
        masks: Any = None,
        boxes: Any = None,
        color: Color = "bgr",
        labels: Sequence[str] | None = None,
        thresholds: Thresholds | None = None,
        timeout: float | None = None,
    ) -> Future[Prediction]:
        """The prediction of one image, later. Its `cancel()` drops what was not computed yet.

        An array, PIL image or file object is read in another thread: leave it alone until the future is done.

        Args:
            image, masks, boxes, color, labels, thresholds: as for `Predictor.predict`, one image.
            timeout: seconds after which nobody needs the answer. The future then has Overloaded, at the next stage.

        Raises:
            Overloaded: `queue` images wait already. EngineClosed: the batcher or the predictor was closed.
            InputError: labels, thresholds, color or timeout. What is wrong with the image is the future's error.
        """
        check_decoding(color, 1)
        future: Future[Prediction] = self._submit(
            lambda loaded: ImageRequest(
                loaded,
                loaded.wanted(labels),
                _seconds(timeout),
                image,
                color,
                (masks, boxes),
                loaded.overridden(thresholds),
            )
        )
        return future

    def submit_crops(
        self,
        crops: npt.NDArray[np.float32] | CutCrops,
        labels: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Future[CropScores]:
        """As `Predictor.run`, in batches with everybody's: crops float32[N, 3, H, W] -> label -> float32[N, C].

        The answer says in its `plan` which one gave it: another may serve by then.

        Args:
            crops: they, or a function that makes them when their turn comes, in another thread. It is given the
                CropSpec of the plan that answers, and a function that says whether anybody still waits.
            labels, timeout: as for `submit`.

        Raises:
            DTypeError, ShapeError: other crops; those that a function made are the future's error. Else as `submit`.
        """
        future: Future[CropScores] = self._submit(
            lambda loaded: CropsRequest(loaded, loaded.wanted(labels), _seconds(timeout), crops)
        )
        return future

    def predict(self, image: Any, **options: Any) -> Prediction:
        """As `submit`, and waits: not beyond `timeout`. An interrupt (Ctrl-C) drops the work."""
        future, timeout = self.submit(image, **options), options.get("timeout")
        try:
            return future.result(timeout)
        except TimeoutError:
            if timeout is None:  # the image's own
                raise
            raise too_late(timeout) from None
        finally:
            future.cancel()  # does nothing where it is done

    async def apredict(self, image: Any, **options: Any) -> Prediction:
        """As `submit`, awaited: not beyond `timeout`. Cancelling the task drops the work."""
        found: Prediction = await _awaited(self.submit(image, **options), options.get("timeout"))
        return found

    async def arun(
        self,
        crops: npt.NDArray[np.float32] | CutCrops,
        labels: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> CropScores:
        """As `submit_crops`, awaited: not beyond `timeout`. Cancelling the task drops the work."""
        found: CropScores = await _awaited(self.submit_crops(crops, labels, timeout), timeout)
        return found

    def close(self, timeout: float | None = None) -> None:
        """Take nothing more, finish what was taken, end the threads. May be called again.

        Args:
            timeout: seconds; what is not finished then gets EngineClosed. None waits as long as it takes.
        """
        timeout = _seconds(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._closed = True
            mine = threading.current_thread() in self._threads  # an answer's callback closes: it cannot wait for itself
            if not mine and not self._stopped:
                self._drained.wait_for(lambda: not self._open, timeout)
            left = [] if mine else list(self._open)
            threads = self._threads
            if not self._open or left:
                self._stop()
        for request in left:
            request.fail(
                EngineClosed(
                    "expected an answer before the batcher's close(timeout) was over, found none; submit it to another "
                    "batcher, or close without a timeout"
                )
            )
        for thread in threads:
            if not mine:
                thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Batcher(max_batch={self._max_batch}, waiting={self._waiting}, queue={self._room})"

    # ---------------------------------------------------------------------------------------------------- their queue

    def _submit(self, make: Callable[[Loaded], Request]) -> Any:
        if self._closed:
            raise _closed()
        if self.full:
            raise self._refusal()  # before anything is looked at: refusing must cost nothing
        loaded = self._hold_plan()
        try:
            request = make(loaded)
        except BaseException:
            loaded.release()
            raise
        # First of all, so that whatever happens (an interrupt too) it can be ended. Not by a reference to itself: that
        # would keep its image until the garbage collector comes. `_open` keeps it as long as it is not done.
        born, ended = self._born, weakref.ref(request)
        request.future.add_done_callback(lambda _: self._done(ended(), born))
        try:
            with self._lock:
                if self._closed:
                    raise _closed()
                if self.full:
                    raise self._refusal()
                self._start_threads()
                self._open.add(request)
                self._waiting += 1
                request.waiting = True
                if request.prepared:
                    self._ready.append(request)
                    self._to_compute.notify()
                else:
                    self._queue.append(request)
                    self._to_decode.notify()
        except BaseException:
            request.future.cancel()
            raise
        return request.future

    def _refusal(self) -> Overloaded:
        return Overloaded(
            f"batcher: expected fewer than {self._room} waiting images, found {self._waiting}; try again later, or "
            f"refuse the request (HTTP: 503 with Retry-After)"
        )

    def _done(self, request: Request | None, born: object) -> None:
        """It has its answer, its error, or was cancelled: once for each, in whatever thread that was."""
        if request is None or born is not self._born:  # a forked child has neither its place nor its hold on the plan
            return
        with self._lock:
            self._leave(request)
            self._open.discard(request)
            with contextlib.suppress(ValueError):  # a cancelled one; elsewhere its next stage drops it
                self._queue.remove(request)
            with contextlib.suppress(ValueError):
                self._ready.remove(request)
                self._count(request, -1)
                self._to_decode.notify()
            if self._closed and not self._open:
                self._drained.notify_all()
                self._stop()
            self._to_compute.notify()
        request.loaded.release()

    def _count(self, request: Request, change: int) -> None:
        """It came to those that are ready, 1, or left them, -1. What needed no decoding holds up nobody's."""
        if not request.prepared:
            self._decoded += change
            self._decoded_bytes += change * request.nbytes

    def _leave(self, request: Request) -> None:
        """It waits no more."""
        if request.waiting:
            request.waiting = False
            self._waiting -= 1

    def _start_threads(self) -> None:
        """Those that do not run yet: all of them at first, later what the system had no room for."""
        jobs = [self._compute_all] + [self._decode_all] * min(DECODERS, len(os.sched_getaffinity(0)))
        for job in jobs[len(self._threads) :]:
            name = f"graftsdk-batcher-{len(self._threads)}"
            thread = threading.Thread(target=job, name=name, daemon=True)  # `_leave_all` stops them
            try:
                thread.start()
            except RuntimeError as error:
                raise EngineError(
                    f"batcher: expected to start {len(jobs)} threads, found {error} after {len(self._threads)}; allow "
                    f"this process more (ulimit -u, pids.max)"
                ) from error
            self._threads.append(thread)

    def _stop(self) -> None:
        self._stopped = True
        self._to_decode.notify_all()
        self._to_compute.notify_all()

    # ---------------------------------------------------------------------------------------------------- the threads

    def _decode_all(self) -> None:
        while True:
            with self._lock:
                while not self._stopped and not (self._queue and self._may_decode()):
                    self._to_decode.wait()
                if self._stopped:
                    return
                request = self._queue.popleft()
                self._decoding += 1
            try:
                if request.alive():
                    request.prepare()
            except BaseException as error:  # noqa: BLE001  (the caller's own object may raise anything)
                self._fail(request, error)
            with self._lock:
                self._decoding -= 1
                self._ready.append(request)
                self._count(request, 1)
                self._to_compute.notify()
            del request  # an idle thread holds on to nobody's image

    def _may_decode(self) -> bool:
        ahead = self._decoded + self._decoding
        return not ahead or (ahead < self._max_batch and self._decoded_bytes < DECODED_BYTES)

    def _next(self, batch: SharedBatch | None) -> Request | None:
        """The next image, decoded; None where the batch shall not wait for one, or all is over.

        A batch without requests waits for ever.
        """
        with self._lock:
            while not self._ready:
                if self._stopped:
                    return None
                if batch is None or batch.empty:
                    self._to_compute.wait()
                    continue
                now = time.monotonic()
                left = min(batch.waits_since(now) + self._patience(batch), batch.due()) - now
                if left <= 0:
                    return None
                self._to_compute.wait(left)
            request = self._ready.popleft()
            self._count(request, -1)
            self._leave(request)
            self._to_decode.notify()
            return request

    def _patience(self, batch: SharedBatch) -> float:
        """Seconds that a batch with requests and with room waits for more."""
        if self._queue or self._decoding:
            return max(self._max_wait, batch.spent * STRAGGLERS)
        return max(self._max_wait, batch.spent * RETURNING if batch.taken < batch.images else 0.0)

    def _compute_all(self) -> None:
        batch: SharedBatch | None = None
        while True:
            request = self._next(batch)
            if batch is not None and not batch.empty:
                if request is None or request.loaded is not batch.loaded or batch.taken >= self._max_batch:
                    try:
                        batch.flush()
                    except BaseException:  # noqa: BLE001  (what a future's callback raises; others still wait)
                        _log.exception("a callback of the batcher's futures failed")
            elif request is None:
                return
            if request is not None:
                try:
                    if batch is None or request.loaded is not batch.loaded:
                        batch = None  # its memory first
                        batch = SharedBatch(request.loaded, self._max_batch, self._report)
                    batch.add(request)
                except BaseException as error:  # noqa: BLE001  (memory, or what a caller's own object raises)
                    self._fail(request, error)
            del request  # a thread that waits holds on to nobody's image

    def _fail(self, request: Request, error: BaseException) -> None:
        """As `request.fail`, in a thread that goes on whatever a callback raises."""
        try:
            request.fail(error)
        except BaseException:  # noqa: BLE001
            _log.exception("a callback of the batcher's futures failed")

    def _report(self, record: BatchRecord) -> None:
        if self.observe is not None:
            try:
                self.observe(record)
            except Exception:  # noqa: BLE001  (the watcher's fault is nobody's answer)
                _log.exception("the batcher's `observe` failed")


_alive: weakref.WeakSet[Batcher] = weakref.WeakSet()


def _leave_all() -> None:
    """At exit: a daemon thread that comes back from C++ later would end the process with an abort."""
    until = time.monotonic() + PATIENCE
    for batcher in list(_alive):
        batcher.close(max(0.0, until - time.monotonic()) if batcher._closed else 0.0)
        for thread in batcher._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _after_fork_in_child() -> None:
    for batcher in list(_alive):
        batcher._begin()


atexit.register(_leave_all)
os.register_at_fork(after_in_child=_after_fork_in_child)


async def _awaited(future: Future[Any], timeout: float | None) -> Any:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
    except TimeoutError:
        if timeout is None:  # the image's own
            raise
        raise too_late(timeout) from None


def _closed() -> EngineClosed:
    return EngineClosed("expected an open batcher, found one after close(); make another")


def _seconds(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout < 1e9:
        raise InputError(f"timeout: expected seconds from 0 on, or None, found {timeout!r:.40}")
    return float(timeout)
