"""`Shadow`: a new plan looks at a part of the live traffic, while the old one answers."""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from graftsdk.errors import GraftError, InputError
from graftsdk.prediction import Prediction
from graftsdk.predictor import Predictor
from graftsdk.preprocess import BoxMasks, LazyMask
from graftsdk.scores import check_fraction

__all__ = ["Shadow", "Told"]

_log = logging.getLogger("graftsdk.serving")

_WAITING = 2  # images; more would be memory for answers that nobody waits for
_NICENESS = 19  # of its thread: what it computes in there takes turns behind everybody else's


class Told(Protocol):
    """Who counts: `graftsdk.serving.metrics.Metrics`."""

    def shadow(self, label: str, agreed: bool) -> None:
        """A person's label was decided by both plans."""

    def shadow_left_out(self, reason: str) -> None:
        """An image was not compared: "busy", "failed", or "profile"."""


class Shadow:
    """Decides on the same crops as the answer did, in a thread of its own, and counts where it differs.

    The persons are the answer's, boxes and masks; so what differs is what branches, trunk and thresholds say. While it
    is busy, images are left out and counted: an answer never waits for it. Its errors are counted, and logged once.
    Its thread has the lowest priority; what an engine computes on a shared pool of threads has not.

    Args:
        source: path of the other plan.
        fraction: of the images, 0 to 1, drawn at random.
        told: who counts.
        options: of its `Predictor`; it computes all labels of its plan.
        labels: those that are answered.
        seed: of the drawing.

    Raises:
        InputError: a fraction outside 0..1; a plan that shares no label. GraftError: as `Predictor`.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        fraction: float,
        told: Told,
        options: Mapping[str, Any],
        labels: tuple[str, ...],
        seed: int = 0,
    ) -> None:
        self._fraction = check_fraction("fraction", fraction)
        self._told = told
        self._random = random.Random(seed)
        self._waiting: queue.Queue[tuple[Any, Prediction] | None] = queue.Queue(_WAITING)
        self._predictor = Predictor(source, **{**options, "labels": None})
        try:
            self.labels = tuple(label for label in self._predictor.labels if label in labels)
            if not self.labels:
                raise InputError(
                    f"shadow: expected a plan with some of {list(labels)}, found {list(self._predictor.labels)}"
                )
        except BaseException:
            self._predictor.close()
            raise
        self._failed = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="graftsdk-shadow", daemon=True)
        self._thread.start()

    def offer(self, prediction: Prediction, profile: str | None = None) -> None:
        """Maybe look at it; returns at once. One with a profile's thresholds, not the plan's, is left out."""
        if self._closing or not len(prediction) or self._random.random() >= self._fraction:
            return
        if profile is not None:
            self._told.shadow_left_out("profile")
            return
        try:
            self._waiting.put_nowait((prediction.image, prediction))
        except queue.Full:
            self._told.shadow_left_out("busy")

    def close(self) -> None:
        """Finish what waits, and let go of the plan. May be called again."""
        if not self._closing:
            self._closing = True
            self._waiting.put(None)  # its thread takes from the queue as long as it is open
        self._thread.join()
        self._predictor.close()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # of this thread alone, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (offered := self._waiting.get()) is not None:
            try:
                self._compare(*offered)
            except Exception as error:  # noqa: BLE001  (whatever it is: it is no answer's, and the thread has to go on)
                self._told.shadow_left_out("failed")
                if not self._failed:
                    self._failed = True
                    text = str(error) if isinstance(error, GraftError) else type(error).__name__
                    _log.error("the shadow plan failed; further errors are counted only: %s", text)
            del offered  # a thread that waits holds on to nobody's image

    def _compare(self, image: Any, answered: Prediction) -> None:
        wanted = [label for label in self.labels if label in answered.labels]
        if not wanted:
            return
        boxes = np.array([person.box for person in answered], np.float32)
        found = self._predictor.predict(image, boxes=boxes, masks=_masks(answered), labels=wanted)
        for before, after in zip(answered, found, strict=True):
            for label in wanted:
                same = before[label].classes == after[label].classes
                self._told.shadow(label, same and before[label].decisions() == after[label].decisions())


def _masks(answered: Prediction) -> Any:
    """Those of all persons, as small as they are: over the frame they would take the memory of it for each."""
    lazy = [person._mask for person in answered if isinstance(person._mask, LazyMask)]
    if len(lazy) == len(answered):
        extents = np.stack([mask.masks.extents[mask.index] for mask in lazy])
        return BoxMasks.unchecked([mask.masks[mask.index] for mask in lazy], extents)
    given = [mask for person in answered if (mask := person.mask) is not None]  # whole ones, made by somebody else
    return np.stack(given) if len(given) == len(answered) else None
