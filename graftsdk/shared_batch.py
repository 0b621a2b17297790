"""Requests of many callers, and the batch that they share: each ends with its own answer or its own error."""

from __future__ import annotations

import math
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import GraftError, InputError, Overloaded
from graftsdk.incoming import decode_or_take
from graftsdk.loaded import Loaded
from graftsdk.plan import CropSpec, Plan
from graftsdk.preprocess.ahead import Decoded
from graftsdk.scene import CropBatch, GivenCrops, Scene, Scored

__all__ = [
    "BatchRecord",
    "CropScores",
    "CropsRequest",
    "CutCrops",
    "ImageRequest",
    "Request",
    "SharedBatch",
    "too_late",
]

CutCrops = Callable[[CropSpec, Callable[[], bool]], npt.NDArray[np.float32]]


class CropScores(dict[str, npt.NDArray[np.float32]]):
    """Label -> float32[N, C].

    Attributes:
        plan: the one that answered; it may be closed since, what it says of its labels stays.
    """

    def __init__(self, plan: Plan, scores: Mapping[str, npt.NDArray[np.float32]]) -> None:
        super().__init__(scores)
        self.plan = plan


@dataclass(frozen=True)
class BatchRecord:
    """One batch that was computed.

    Attributes:
        images: callers' images (or arrays of crops) that had rows in it. crops: its rows.
        waited_s: seconds from the oldest one's submission to the start of the engine.
        compute_s: seconds of the engine.
    """

    images: int
    crops: int
    waited_s: float
    compute_s: float


class Request(ABC):
    """What one caller wants.

    Args:
        loaded: the plan that serves it, held. labels: those it asks for.
        timeout: seconds after which nobody needs the answer, or None.

    Attributes:
        deadline: when nobody needs it any more, by the monotonic clock, or None.
        waiting: it takes a place in the queue. prepared: nothing is to be decoded. nbytes: of its decoded image.
    """

    def __init__(self, loaded: Loaded, labels: tuple[str, ...], timeout: float | None) -> None:
        self.loaded, self.labels = loaded, labels
        self.submitted = time.monotonic()
        self.deadline = None if timeout is None else self.submitted + timeout
        self.future: Future[Any] = Future()
        self.waiting = self.prepared = False
        self.nbytes = 0
        self._claiming, self._claimed = threading.Lock(), False

    def alive(self) -> bool:
        """Whether somebody still waits; one whose deadline has passed is told so."""
        if self.future.done():
            return False
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.fail(too_late(self.deadline - self.submitted))
            return False
        return True

    def answer(self, found: Any) -> None:
        """Hand out the result, if somebody waits for it and it has not ended."""
        if self._claim():
            self.future.set_result(found)

    def fail(self, error: BaseException) -> None:
        """Hand out the error; does nothing where it has ended already."""
        if self._claim():
            self.future.set_exception(error)

    def _claim(self) -> bool:
        """Whether the caller is the one to end it: several threads may want to, and some waits no more."""
        with self._claiming:
            if self._claimed:
                return False
            self._claimed = True
        return self.future.set_running_or_notify_cancel()

    @abstractmethod
    def prepare(self) -> None:
        """What can be done in any thread; errors are kept for `find`."""

    @abstractmethod
    def find(self) -> Scored:
        """Whose rows are to be computed. Raises GraftError: none can be."""

    @abstractmethod
    def result(self, scored: Any) -> Any:
        """What the caller gets, once all rows were computed."""


class ImageRequest(Request):
    """One image; arguments as for `Batcher.submit`."""

    def __init__(
        self,
        loaded: Loaded,
        labels: tuple[str, ...],
        timeout: float | None,
        source: Any,
        color: Any,
        persons: tuple[Any, Any],
        thresholds: Mapping[str, Mapping[str, float]],
    ) -> None:
        super().__init__(loaded, labels, timeout)
        self._source, self._color, self._persons, self._thresholds = source, color, persons, thresholds
        self._decoded: Decoded | None = None
        if isinstance(source, np.ndarray) and source.flags.c_contiguous and color == "bgr":
            self.prepare()  # looks at shape and dtype only: a change of threads would cost more
            self.prepared = True

    def prepare(self) -> None:
        self._decoded = decode_or_take(self._source, self._color, 1, self.loaded.frames)
        self.nbytes = self._decoded.image.nbytes if isinstance(self._decoded.image, np.ndarray) else 0

    def find(self) -> Scored:
        decoded = self._decoded
        assert decoded is not None  # it was prepared
        if isinstance(decoded.image, GraftError):
            raise decoded.image
        scene = Scene(decoded)
        self.loaded.find(scene, *self._persons)
        return scene

    def result(self, scored: Any) -> Any:
        return self.loaded.prediction(scored, self.labels, self._thresholds)


class CropsRequest(Request):
    """Crops, float32[N, 3, H, W], or what makes them."""

    def __init__(
        self,
        loaded: Loaded,
        labels: tuple[str, ...],
        timeout: float | None,
        crops: npt.NDArray[np.float32] | CutCrops,
    ) -> None:
        super().__init__(loaded, labels, timeout)
        self._source = crops
        self._crops: npt.NDArray[np.float32] | None = None
        if not callable(crops):
            self._crops = loaded.check_crops(crops)
            self.prepared = True

    def prepare(self) -> None:
        if callable(self._source):
            self._crops = self.loaded.check_crops(self._source(self.loaded.plan.manifest.crop, self.alive))
            self.nbytes = self._crops.nbytes

    def find(self) -> Scored:
        assert self._crops is not None  # it was prepared
        return GivenCrops(self._crops)

    def result(self, scored: Any) -> Any:
        if not scored.count:
            found = {
                label: np.empty((0, len(self.loaded.documents[label].classes)), np.float32) for label in self.labels
            }
        else:
            joined = scored.joined()
            found = {label: joined[label].copy() for label in self.labels}  # no part of others' arrays
        return CropScores(self.loaded.plan, found)


class SharedBatch:
    """Rows of requests of one plan. For one thread.

    Args:
        loaded: the plan. rows: that are computed at once.
        report: called after each batch.

    Attributes:
        images: how many took part in the last batch. spent: seconds that its engine took.
        taken: images that were looked at since.
    """

    def __init__(self, loaded: Loaded, rows: int, report: Callable[[BatchRecord], object]) -> None:
        self.loaded = loaded
        self.images, self.spent, self.taken = 0, 0.0, 0
        self._report = report
        compute = weakref.WeakMethod(self._compute)  # a ring would keep its memory until the garbage collector comes
        self._batch = CropBatch(
            loaded.plan.manifest.crop, loaded.threads, loaded.documents, lambda crops: _alive(compute)(crops), rows
        )
        self._on_device: Any = None
        self._in_work: list[tuple[Request, Scored, Any]] = []  # with the batch that has its rows
        self._waits_since: float | None = None

    @property
    def empty(self) -> bool:
        """Whether no request waits in it."""
        return not self._in_work

    def waits_since(self, now: float) -> float:
        """When it first had nothing to do but to wait for more; now, where that is now."""
        if self._waits_since is None:
            self._waits_since = now
        return self._waits_since

    def due(self) -> float:
        """When it stops to wait, whatever there is to wait for: half of the least time that a caller gave."""
        return min(
            ((each.submitted + each.deadline) / 2 for each, _, _ in self._in_work if each.deadline is not None),
            default=math.inf,
        )

    def add(self, request: Request) -> None:
        """Find its persons and cut them out; compute whatever fills the batch."""
        if not request.alive():
            return
        self.taken += 1
        try:
            scored = request.find()
        except InputError as error:
            request.fail(error.with_traceback(None))  # which would hold the image as long as the error is kept
            return
        except BaseException as error:  # noqa: BLE001  (whatever it is, it is this caller's, and the thread goes on)
            request.fail(error)
            return
        if not request.alive():
            return
        scored.labels, scored.alive = request.labels, request.alive  # type: ignore[method-assign]
        batch = self._batch_of(scored)
        self._in_work.append((request, scored, batch))
        self._work(lambda: batch.add(scored), batch, request)

    def flush(self) -> None:
        """Compute what waits."""
        self._work(self._batch.flush, self._batch, None)
        if self._on_device is not None:
            self._work(self._on_device.flush, self._on_device, None)
        self.taken = 0

    def _work(self, work: Callable[[], object], batch: Any, added: Request | None) -> None:
        """Do it, and answer those that are complete."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  (callers get it)
            if added is not None and isinstance(error, InputError):  # it could not be cut out: nobody else's matter
                added.fail(error.with_traceback(None))
            else:
                for request, _, theirs in self._in_work:
                    if theirs is batch:
                        request.fail(error)
        left = []
        for request, scored, theirs in self._in_work:
            if scored.error is not None:
                request.fail(scored.error)
            elif scored.scored >= scored.count and not request.future.done():
                try:
                    request.answer(request.result(scored))
                except Exception as error:  # noqa: BLE001
                    request.fail(error)
            if not request.future.done():
                left.append((request, scored, theirs))
        self._in_work = left
        if not left:
            self._waits_since = None

    def _batch_of(self, scored: Scored) -> Any:
        if not isinstance(scored, Scene) or isinstance(scored.image, np.ndarray):
            return self._batch
        if self._on_device is None:
            self._on_device = self.loaded.batch(True, self.loaded.labels)
        return self._on_device

    def _compute(self, crops: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.float32]]:
        """The scores of all labels that somebody asked for."""
        mine = [request for request, _, batch in self._in_work if batch is self._batch]
        asked = {label for request in mine for label in request.labels}
        started = time.monotonic()
        scores = self.loaded.scores(crops, _ordered(asked, self.loaded.labels))
        self.spent = time.monotonic() - started
        self.images, self.taken = sum(not request.future.done() for request in mine), 0
        self._waits_since = None
        oldest = min(request.submitted for request in mine)
        self._report(BatchRecord(self.images, len(crops), started - oldest, self.spent))
        return scores


def _alive(method: weakref.WeakMethod[Any]) -> Any:
    found = method()
    assert found is not None  # the batch that it belongs to is what calls
    return found


def too_late(seconds: float) -> Overloaded:
    """What a request gets whose deadline has passed."""
    return Overloaded(
        f"deadline: expected an answer within {seconds:.3g} s, found none; try again later, or allow more time"
    )


def _ordered(asked: set[str], labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label for label in labels if label in asked)
