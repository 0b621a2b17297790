"""What a segmenter's adapter gives: people in an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from graftsdk.plan.manifest import MAX_PERSONS
from graftsdk.preprocess.boxmasks import BoxMasks
from graftsdk.segment.shapes import Match, Shapes, Size

if TYPE_CHECKING:
    from graftsdk.plan.manifest import SegmenterInfo

__all__ = ["MAX_PERSONS", "Adapter", "Instances"]


@dataclass(frozen=True, eq=False)
class Instances:
    """The people that a segmenter found, by falling score.

    Attributes:
        boxes: float32[N, 4], xyxy in pixels of the image, half-open, inside the image, each with an area.
        scores: float32[N], 0..1.
        masks: N BoxMasks that each cover at least one pixel of the image, or None where the network gives none.
            A mask's extent is its box, rounded out to the cells or pixels that the network gives masks in.
        truncated: True where more were found than the segmenter's `max_persons`.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    masks: BoxMasks | None
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.boxes)


class Adapter(ABC):
    """How one family of segmentation networks is known, wants its images and says what it found.

    Args:
        info: what the manifest says of the segmenter.

    Attributes:
        family: its name, in manifests too.
        shapes: one line that says whose networks these are and which inputs and outputs they have.
        person_class, score_threshold, iou_threshold: what a network of it has where nobody says otherwise.
        nms: the ways of suppression that it knows (the manifest's `nms`), its own first.
    """

    family: ClassVar[str]
    shapes: ClassVar[str]
    person_class: ClassVar[int] = 0
    score_threshold: ClassVar[float]
    iou_threshold: ClassVar[float]
    nms: ClassVar[tuple[str, ...]] = ("greedy",)

    @classmethod
    @abstractmethod
    def match(cls, inputs: Shapes, outputs: Shapes, size: Size | None) -> Match | None:
        """How a network of these shapes is read as one of this family; None where a shape contradicts that.

        Args:
            inputs: name -> shape; a free dimension is a string or None; a shape of which nothing is known is empty.
            outputs: likewise.
            size: (H, W) that it shall run at; None leaves it to the shapes.
        """

    def __init__(self, info: SegmenterInfo) -> None:
        self.info = info

    @abstractmethod
    def prepare(self, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], Any]:
        """(the network's input float32[1, 3, h, w] or [3, h, w] as it has it, the geometry that `decode` needs).

        Args:
            image: uint8[H, W, 3], BGR, as `check_image` returns it.
        """

    @abstractmethod
    def decode(self, outputs: Sequence[npt.NDArray[Any]], geometry: Any, min_score: float | None = None) -> Instances:
        """The people in one image.

        Args:
            outputs: the network's outputs for one image, in the order of the segmenter's `outputs`.
            geometry: what `prepare` gave with that image.
            min_score: the least score, 0..1, in place of the segmenter's own.

        Raises:
            NonFiniteOutput: a NaN or an infinite value among the outputs, or in a mask made of them.
            ShapeError: outputs of other shapes than the segmenter announced.
        """
