"""A frame in which persons were found: some labels of some of them are computed on demand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graftsdk.plan import BranchDocument
from graftsdk.prediction import Prediction
from graftsdk.preprocess import BoxMasks
from graftsdk.scene import Scene
from graftsdk.scores import check_scores

__all__ = ["Batch", "Look"]


class Batch(Protocol):
    """Cuts persons out and scores them, as `CropBatch` does."""

    def add(self, scene: Any) -> None:
        """Cut out the scene's persons; score whatever fills the batch."""

    def flush(self) -> None:
        """Score the crops that wait."""


class Look:
    """One frame on its way, its persons found, nothing cut out yet.

    Args:
        scene: its persons. labels: those that are told. batch: labels -> a new batch that computes them.
        documents: those of the labels. thresholds: label -> class -> threshold. plan: the digest.
    """

    def __init__(
        self,
        scene: Scene,
        labels: tuple[str, ...],
        batch: Callable[[tuple[str, ...]], Batch],
        documents: Mapping[str, BranchDocument],
        thresholds: Mapping[str, Mapping[str, float]],
        plan: str,
    ) -> None:
        self._scene = scene
        self.labels = labels
        self._batch = batch
        self._documents = documents
        self._thresholds = thresholds
        self.plan = plan

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3], BGR."""
        image: npt.NDArray[np.uint8] = self._scene.image
        return image

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """float32[N, 4], xyxy; a copy."""
        return np.array(self._scene.boxes, np.float32).reshape(-1, 4)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """float32[N] of the segmenter; ones where there is none."""
        found = self._scene.scores
        return np.ones(len(self._scene.boxes), np.float32) if found is None else np.array(found, np.float32)

    def spend(self, stage: str, milliseconds: float) -> None:
        """Note what a stage of the caller's took."""
        self._scene.timings[stage] = self._scene.timings.get(stage, 0.0) + milliseconds

    def score(self, persons: Sequence[int], labels: tuple[str, ...]) -> dict[str, npt.NDArray[np.float32]]:
        """Label -> float32[len(persons), C], probabilities of some persons. Only these are cut out.

        Raises:
            NonFiniteOutput, PlanCorrupt, EngineError: as `Predictor.predict`.
        """
        part = copy.copy(self._scene)  # shares the timings
        rows = np.asarray(persons, np.int64)
        part.boxes, part.rows, part.error = part.boxes[rows], {}, None
        if part.scores is not None:
            part.scores = part.scores[rows]
        if isinstance(part.masks, BoxMasks):
            part.masks = part.masks.select(rows)
        elif part.masks is not None:
            part.masks = part.masks[rows]
        batch = self._batch(labels)
        batch.add(part)
        batch.flush()
        found = {label: np.concatenate(part.rows[label]) for label in labels}
        if part.error is not None:
            for label, rows in found.items():  # again, by the numbers that these persons have in the frame
                check_scores(
                    label, self._documents[label].classes, rows, len(persons), lambda row: f"person {persons[row]}"
                )
            raise part.error
        return found

    def prediction(self, rows: Mapping[str, npt.NDArray[Any]]) -> Prediction:
        """What is said of the frame. `rows`: label -> scores [N, C]."""
        self._scene.rows = {label: [rows[label]] for label in self.labels} if len(self._scene.boxes) else {}
        return self._scene.prediction(self.labels, self._documents, self._thresholds, self.plan)
