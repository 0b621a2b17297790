"""Requests of many callers, and the batch that they share: each ends with its own answer or its own error."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import GraftError, InputError, Overloaded
from graftsdk.incoming import decode_or_take
from graftsdk.loaded import Loaded
from graftsdk.preprocess.ahead import Decoded
from graftsdk.scene import CropBatch, GivenCrops, Scene, Scored

__all__ = ["BatchRecord", "CropsRequest", "ImageRequest", "Request", "SharedBatch", "too_late"]


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
        waiting: it takes a place in the queue. prepared: nothing is to be decoded. nbytes: of its decoded image.
    """

    def __init__(self, loaded: Loaded, labels: tuple[str, ...], timeout: float | None) -> None:
        self.loaded, self.labels = loaded, labels
        self.submitted = time.monotonic()
        self._deadline = None if timeout is None else self.submitted + timeout
        self.future: Future[Any] = Future()
        self.waiting = self.prepared = False
        self.nbytes = 0

    def alive(self) -> bool:
        """Whether somebody still waits; one whose deadline has passed is told so."""
        if self.future.done():
            return False
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.fail(too_late(self._deadline - self.submitted))
            return False
        return True

    def answer(self, found: Any) -> None:
        """Hand out the result, if somebody waits for it."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(found)

    def fail(self, error: BaseException) -> None:
        """Hand out the error; does nothing where it has ended already."""
        with suppress(InvalidStateError):  # somebody else ended it just now
            if not self.future.done() and self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)

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
    """Crops, float32[N, 3, H, W]."""

    def __init__(
        self, loaded: Loaded, labels: tuple[str, ...], timeout: float | None, crops: npt.NDArray[np.float32]
    ) -> None:
        super().__init__(loaded, labels, timeout)
        self.prepared = True
        self._crops = crops

    def prepare(self) -> None:
        """Nothing to do."""

    def find(self) -> Scored:
        return GivenCrops(self._crops)

    def result(self, scored: Any) -> Any:
        if not scored.count:
            return {
                label: np.empty((0, len(self.loaded.documents[label].classes)), np.float32) for label in self.labels
            }
        found = scored.joined()
        return {label: found[label].copy() for label in self.labels}  # no part of others' arrays


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
        self._rows, self._report = rows, report
        self._batch = CropBatch(loaded.plan.manifest.crop, loaded.threads, loaded.documents, self._compute, rows)
        self._on_device: Any = None
        self._in_work: list[tuple[Request, Scored]] = []

    @property
    def empty(self) -> bool:
        """Whether no request waits in it."""
        return not self._in_work

    def add(self, request: Request) -> None:
        """Find its persons and cut them out; compute whatever fills the batch."""
        if not request.alive():
            return
        self.taken += 1
        try:
            scored = request.find()
        except Exception as error:  # noqa: BLE001  (whatever it is, it is this caller's, and the thread goes on)
            request.fail(error)
            return
        if not request.alive():
            return
        scored.labels, scored.alive = request.labels, request.alive  # type: ignore[method-assign]
        self._in_work.append((request, scored))
        self._work(lambda: self._batch_of(scored).add(scored), request)

    def flush(self) -> None:
        """Compute what waits."""
        self._work(self._batch.flush, None)
        if self._on_device is not None:
            self._work(self._on_device.flush, None)
        self.taken = 0

    def _work(self, work: Callable[[], object], added: Request | None) -> None:
        """Do it, and answer those that are complete."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  (callers get it)
            if added is not None and isinstance(error, InputError):  # it could not be cut out: nobody else's matter
                added.fail(error)
            else:
                for request, _ in self._in_work:
                    request.fail(error)
        left = []
        for request, scored in self._in_work:
            if scored.error is not None:
                request.fail(scored.error)
            elif scored.scored >= scored.count and not request.future.done():
                try:
                    request.answer(request.result(scored))
                except Exception as error:  # noqa: BLE001
                    request.fail(error)
            if not request.future.done():
                left.append((request, scored))
        self._in_work = left

    def _batch_of(self, scored: Scored) -> Any:
        if not isinstance(scored, Scene) or isinstance(scored.image, np.ndarray):
            return self._batch
        if self._on_device is None:
            self._on_device = self.loaded.batch(True, self.loaded.labels)
        return self._on_device

    def _compute(self, crops: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.float32]]:
        """The scores of all labels that somebody asked for."""
        asked = {label for request, _ in self._in_work for label in request.labels}
        started = time.monotonic()
        scores = self.loaded.scores(crops, _ordered(asked, self.loaded.labels))
        self.spent = time.monotonic() - started
        self.images, self.taken = len(self._in_work), 0
        oldest = min(request.submitted for request, _ in self._in_work)
        self._report(BatchRecord(self.images, len(crops), started - oldest, self.spent))
        return scores


def too_late(seconds: float) -> Overloaded:
    """What a request gets whose deadline has passed."""
    return Overloaded(f"deadline: expected an answer within {seconds:.3g} s, found others in front; try again later")


def _ordered(asked: set[str], labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label for label in labels if label in asked)
