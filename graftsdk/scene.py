"""Images on their way through the predictor: who is in them, their crops in shared batches, their scores."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import GraftError, NonFiniteOutput, PlanCorrupt
from graftsdk.plan import BranchDocument, CropSpec
from graftsdk.prediction import Attribute, Person, Prediction
from graftsdk.preprocess import BoxMasks, LazyMask, mask_crop
from graftsdk.preprocess.ahead import Decoded
from graftsdk.preprocess.decode import source_name
from graftsdk.scores import are_probabilities, check_scores

__all__ = ["CROPS_AT_ONCE", "CropBatch", "GivenCrops", "Piece", "Scene", "Scored", "hand_out"]

CROPS_AT_ONCE = 32  # crops that are held at one time, 34 MB at 299x299; the engine takes them eight by eight

Scores = Mapping[str, npt.NDArray[np.float32]]


class Scored(ABC):
    """What has rows in batches, and gets their scores as they come.

    Attributes:
        timings: stage -> milliseconds.
        rows: label -> its scores, a piece for each batch that rows of it were in.
        error: why nothing can be said of it, or None.
        kind: what messages call its rows.
        labels: those that it asks for, where others that share the batch may ask for more: a branch that is none of
            its own cannot fail it. None: all that are computed, and a branch that gives no probabilities is raised.
    """

    kind = "person"

    def __init__(self) -> None:
        self.timings = {"decode": 0.0, "segment": 0.0, "crop": 0.0, "engine": 0.0}
        self.rows: dict[str, list[npt.NDArray[np.float32]]] = {}
        self.scored = 0  # rows whose scores came
        self.error: GraftError | None = None
        self.labels: tuple[str, ...] | None = None

    @property
    @abstractmethod
    def count(self) -> int:
        """Rows that it has in all."""

    @abstractmethod
    def fill(self, persons: slice, out: npt.NDArray[np.float32], spec: CropSpec, threads: int) -> None:
        """Write the crops of these persons to `out`. Raises InputError: as `mask_crop`."""

    def alive(self) -> bool:
        """Whether anybody still waits for it; asked right before its rows are computed."""
        return True

    def joined(self) -> dict[str, npt.NDArray[np.float32]]:
        """Label -> its scores, all rows."""
        return {label: found[0] if len(found) == 1 else np.concatenate(found) for label, found in self.rows.items()}


class GivenCrops(Scored):
    """Crops that somebody else cut: float32[N, 3, H, W]."""

    kind = "crop"

    def __init__(self, crops: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self._crops = crops

    @property
    def count(self) -> int:
        return len(self._crops)

    def fill(self, persons: slice, out: npt.NDArray[np.float32], spec: CropSpec, threads: int) -> None:
        out[...] = self._crops[persons]


class Scene(Scored):
    """One image: who is in it, and their scores as they come.

    Attributes:
        image: uint8[H, W, 3], BGR, or what has such a `shape` and gives it when called. source: its path, or None.
        boxes: [N, 4], xyxy. scores: float32[N] of the segmenter, or None. masks: N of them, or None; those of an image
            that is no array have a method `lazy`.
        truncated: there were more persons than are here.
    """

    def __init__(self, decoded: Decoded) -> None:
        assert not isinstance(decoded.image, GraftError)  # callers look
        super().__init__()
        self.image: Any = decoded.image
        self.source = source_name(decoded.source)
        self.boxes: npt.NDArray[Any] = np.empty((0, 4), np.float32)
        self.scores: npt.NDArray[np.float32] | None = None
        self.masks: Any = None
        self.truncated = False
        self.timings["decode"] = decoded.spent_ms

    @property
    def count(self) -> int:
        return len(self.boxes)

    def fill(self, persons: slice, out: npt.NDArray[np.float32], spec: CropSpec, threads: int) -> None:
        masks = None if self.masks is None else self.masks[persons]
        mask_crop(self.image, self.boxes[persons], masks, spec, threads=threads, out=out)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        height, width, _ = self.image.shape
        return height, width

    def prediction(
        self,
        labels: Sequence[str],
        documents: Mapping[str, BranchDocument],
        thresholds: Mapping[str, Mapping[str, float]],
        plan: str,
    ) -> Prediction:
        """What is said of the image, once all of its persons were scored; `plan` is the digest."""
        rows = {label: found.tolist() for label, found in self.joined().items()}

        def attributes(index: int) -> dict[str, Attribute]:
            found = {}
            for label in labels:
                classes = documents[label].classes
                scores = dict(zip(classes, rows[label][index], strict=True))
                found[label] = Attribute(label, classes, scores, thresholds[label])
            return found

        persons = []
        for index in range(len(self.boxes)):
            score = None if self.scores is None else float(self.scores[index])
            persons.append(Person(index, self.boxes[index], score, partial(attributes, index), self._mask(index)))
        timings = {**self.timings, "total": sum(self.timings.values())}
        return Prediction(tuple(persons), self.image, self.source, timings, self.truncated, plan, tuple(labels))

    def _mask(self, index: int) -> Any:
        if isinstance(self.masks, BoxMasks):
            return LazyMask(self.masks, index, self.size)
        if self.masks is None or isinstance(self.masks, np.ndarray):
            return None if self.masks is None else self.masks[index]
        return self.masks.lazy(index, self.size)


Piece = tuple[Scored, int, slice]  # a scene, its first person in a batch, their rows there


def hand_out(pieces: Sequence[Piece], scores: Scores, documents: Mapping[str, BranchDocument], spent: float) -> None:
    """Give each scene the scores of its persons. A score that is no number is its scene's error, not the others'.

    Args:
        pieces: whose rows these are. scores: label -> scores, [rows, C].
        documents: those of the labels. spent: milliseconds of the engine, shared by rows.

    Raises:
        PlanCorrupt: a branch gives something else than probabilities.
    """
    used = sum(rows.stop - rows.start for _, _, rows in pieces)
    widths = [len(documents[label].classes) for label in scores]
    sound = are_probabilities(list(scores.values()), used, widths)
    for scene, first, rows in pieces:
        count = rows.stop - rows.start
        scene.timings["engine"] += spent * count / used
        scene.scored += count
        for label, values in scores.items():
            if scene.labels is not None and label not in scene.labels:
                continue
            piece = values[rows]
            if not sound:  # whose it is, and what
                try:
                    check_scores(label, documents[label].classes, piece, count, _row_of(scene, first))
                except NonFiniteOutput as error:
                    scene.error = scene.error or error
                except PlanCorrupt as error:
                    if scene.labels is None:
                        raise
                    scene.error = scene.error or error
            scene.rows.setdefault(label, []).append(piece)


class CropBatch:
    """Crops of several scenes in one array: the kernel writes them where the engine reads them.

    Args:
        spec: what a crop is. threads: how many are cut at once.
        documents: those of the labels that are computed, by label.
        compute: float32[N, 3, H, W] -> label -> scores, N rows each, not yet checked.
        rows: crops that it holds.
    """

    def __init__(
        self,
        spec: CropSpec,
        threads: int,
        documents: Mapping[str, BranchDocument],
        compute: Callable[[npt.NDArray[np.float32]], Scores],
        rows: int = CROPS_AT_ONCE,
    ) -> None:
        self._room = rows
        self._spec = spec
        self._threads = threads
        self._documents = documents
        self._compute = compute
        self._crops = np.empty((rows, 3, *spec.size), np.float32)  # memory is taken when it is written
        self._pieces: list[Piece] = []
        self._used = 0

    def add(self, scene: Scored) -> None:
        """Cut out the scene's persons; score whatever fills the batch.

        Raises:
            InputError: as `mask_crop`.
        """
        first = 0
        while first < scene.count:
            count = min(scene.count - first, self._room - self._used)
            persons, rows = slice(first, first + count), slice(self._used, self._used + count)
            started = time.perf_counter()
            scene.fill(persons, self._crops[rows], self._spec, self._threads)
            scene.timings["crop"] += 1e3 * (time.perf_counter() - started)
            self._pieces.append((scene, first, rows))
            self._used += count
            first += count
            if self._used == self._room:
                self.flush()

    def flush(self) -> None:
        """Score the crops that wait. A score that is no number is its scene's error, not the others'.

        Raises:
            PlanCorrupt: a branch gives something else than probabilities. EngineError: the engine failed.
        """
        pieces, used = self._pieces, self._used
        self._pieces, self._used = [], 0
        if not all(scene.alive() for scene, _, _ in pieces):
            pieces, used = self._drop_dead(pieces)
        if not used:
            return
        started = time.perf_counter()
        scores = self._compute(self._crops[:used])
        spent = 1e3 * (time.perf_counter() - started)
        hand_out(pieces, scores, self._documents, spent)

    def _drop_dead(self, pieces: Sequence[Piece]) -> tuple[list[Piece], int]:
        """The pieces that somebody waits for, their rows moved together, and how many those are."""
        kept: list[Piece] = []
        used = 0
        for scene, first, rows in pieces:
            if scene.alive():
                count = rows.stop - rows.start
                if rows.start != used:
                    self._crops[used : used + count] = self._crops[rows].copy()  # they may overlap
                kept.append((scene, first, slice(used, used + count)))
                used += count
        return kept, used


def _row_of(scene: Scored, first: int) -> Callable[[int], str]:
    return lambda row: f"{scene.kind} {first + row}"
