"""Families whose masks are sums of prototypes, in plain values: what reads such a network where its outputs lie.

On a GPU the outputs stay in device memory. What selects candidates and makes masks there (`graftsdk.engines.cuda`)
knows no family; this says where scores, boxes and coefficients lie, and chooses among the candidates that come back.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from graftsdk.plan.cropspec import CropSpec
from graftsdk.segment.base import Adapter

__all__ = ["People", "Place", "Places", "PrototypeAdapter"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where one value of every prediction lies, or the first of several; counted in floats.

    Attributes:
        output: which of the network's outputs. start: from its first float to prediction 0.
        row: from prediction to prediction. step: from value to value of one prediction.
    """

    output: int
    start: int
    row: int
    step: int = 1


@dataclass(frozen=True)
class Places:
    """Where the values of a network's predictions lie, and which of them may be people.

    Attributes:
        count: predictions. score: of the person's class. factor: what it is multiplied by, or None.
        classes: the scores of all `class_count` classes. person: which of them is the person.
        rule: what a prediction must fulfil beside the score: "any" nothing; "best" no class is better, nor as good and
            earlier; "over" its best class exceeds `bound`; "named" its class, a number, rounds to `person`.
        box: 4 values. prior: 4 values, or None. coefficients: one for each of `kinds` prototypes.
        prototypes: which output they are. grid: their (h, w).
    """

    count: int
    score: Place
    classes: Place
    class_count: int
    person: int
    rule: Literal["any", "best", "over", "named"]
    box: Place
    coefficients: Place
    prototypes: int
    grid: tuple[int, int]
    kinds: int
    bound: float = 0.0
    factor: Place | None = None
    prior: Place | None = None


@dataclass(frozen=True, eq=False)
class People:
    """The people among candidates, the surest first; that their masks cover something is not looked at yet.

    Attributes:
        rows: int64[n], which candidates. boxes: float64[n, 4], xyxy as their masks are made over: fractions of the
            image ("cut") or cells of the prototypes ("sample").
        in_image: float32[n, 4], xyxy in pixels of the image. scores: float32[n].
        truncated: whether there were more than the segmenter's `max_persons`.
    """

    rows: npt.NDArray[np.int64]
    boxes: Float64
    in_image: Float32
    scores: Float32
    truncated: bool


class PrototypeAdapter(Adapter):
    """An adapter of such a family.

    Attributes:
        masks: how they are made, see `graftsdk.segment.prototypes`: "cut" out of the prototypes' own grid (`cut_masks`)
            or "sample"d over boxes (`sample_masks`).
    """

    masks: ClassVar[Literal["cut", "sample"]]

    def least(self, min_score: float | None) -> float:
        """The least score of a person: the caller's, else the segmenter's own."""
        return self.info.score_threshold if min_score is None else min_score

    @property
    @abstractmethod
    def input_spec(self) -> CropSpec:
        """The network's input as a crop of the whole image; within one grey level of what `prepare` makes by OpenCV."""

    @abstractmethod
    def geometry(self, image_size: tuple[int, int]) -> Any:
        """For `decode` and `people`, of an image (H, W) that a crop by `input_spec` became the input of."""

    @abstractmethod
    def places(self, shapes: Sequence[tuple[int, ...]]) -> Places:
        """Where the values lie in outputs of these shapes, in the order of the segmenter's `outputs`.

        Raises:
            ShapeError: shapes of no network of this family.
        """

    @abstractmethod
    def people(self, places: Places, boxes: Float32, priors: Float32, scores: Float32, geometry: Any) -> People:
        """The people among candidates.

        Args:
            places: what they were read by. boxes, priors: float32[n, 4], as the network gave them.
            scores: float32[n]. geometry: of their image.
        """
