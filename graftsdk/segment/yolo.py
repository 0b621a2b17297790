"""YOLOv8-seg and YOLO11-seg as exported without NMS.

`predictions` float32[1, 4 + classes + 32, A]: cx, cy, w, h in pixels of the input, class scores after the sigmoid (no
objectness), 32 raw mask coefficients. `prototypes` float32[1, 32, S / 4, S / 4].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from graftsdk.errors import NonFiniteOutput, ShapeError
from graftsdk.segment.base import Adapter, Instances
from graftsdk.segment.nms import suppress
from graftsdk.segment.prototypes import sample_masks

__all__ = ["COEFFICIENTS", "PROTOTYPE_STRIDE", "STRIDES", "Letterbox", "YoloAdapter"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

COEFFICIENTS = 32  # of a mask, one for each prototype
PROTOTYPE_STRIDE = 4  # pixels of the input that one cell of a prototype covers
STRIDES = (8, 16, 32)  # of the three grids of predictions
BORDER = 114  # grey around a letterboxed image, as in training

_ADVICE = "check the segmenter's weights with graftsdk verify"


@dataclass(frozen=True)
class Letterbox:
    """How an image lies in the network's input.

    Attributes:
        height, width: of the image, pixels.
        scale_y, scale_x: pixels of the input for one pixel of the image; they differ by rounding only.
        top, left: where the image begins in the input, pixels.
        inner_height, inner_width: of the image in the input, pixels.
    """

    height: int
    width: int
    scale_y: float
    scale_x: float
    top: int
    left: int
    inner_height: int
    inner_width: int

    @classmethod
    def fit(cls, image_size: tuple[int, int], input_size: tuple[int, int]) -> Letterbox:
        """An image (H, W) in an input (H, W): as large as fits, centred; the odd pixel goes below and right."""
        (height, width), (target_height, target_width) = image_size, input_size
        ratio = min(target_height / height, target_width / width)
        # Python's round, halves to even, as in training; never 0 for an image that is all but a line.
        inner_height, inner_width = max(1, round(height * ratio)), max(1, round(width * ratio))
        return cls(
            height=height,
            width=width,
            scale_y=inner_height / height,
            scale_x=inner_width / width,
            top=round((target_height - inner_height) / 2 - 0.1),
            left=round((target_width - inner_width) / 2 - 0.1),
            inner_height=inner_height,
            inner_width=inner_width,
        )

    def to_image(self, boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """float64[..., 4]: boxes, xyxy in pixels of the input, in pixels of the image. Not clamped."""
        moved = boxes.astype(np.float64) - (self.left, self.top, self.left, self.top)
        scaled: npt.NDArray[np.float64] = moved / (self.scale_x, self.scale_y, self.scale_x, self.scale_y)
        return scaled

    def to_input(self, boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """float64[..., 4]: the way back."""
        scaled = boxes.astype(np.float64) * (self.scale_x, self.scale_y, self.scale_x, self.scale_y)
        moved: npt.NDArray[np.float64] = scaled + (self.left, self.top, self.left, self.top)
        return moved


class YoloAdapter(Adapter):
    """The family "yolo"."""

    family: ClassVar[str] = "yolo"

    def prepare(self, image: npt.NDArray[np.uint8]) -> tuple[Float32, Letterbox]:
        """float32[1, 3, H, W], RGB 0..1: the image letterboxed on grey 114, resized by OpenCV without antialias.

        Values are v / 255 in float32. 1080p to 640x640: 1.2 ms, of which OpenCV's resize takes 0.6.
        """
        import cv2

        height, width = self.info.input_size
        box = Letterbox.fit((image.shape[0], image.shape[1]), (height, width))
        bottom, right = box.top + box.inner_height, box.left + box.inner_width
        inner: npt.NDArray[Any] = np.ascontiguousarray(image)
        if (box.inner_height, box.inner_width) != (box.height, box.width):
            inner = cv2.resize(inner, (box.inner_width, box.inner_height), interpolation=cv2.INTER_LINEAR)
        feed = np.empty((1, 3, height, width), np.float32)
        grey = np.float32(BORDER) / np.float32(255)
        for edge in (feed[..., : box.top, :], feed[..., bottom:, :], feed[..., : box.left], feed[..., right:]):
            edge[...] = grey
        # Planes first: a division that reads every third byte takes twice as long.
        for plane, target in zip(
            reversed(cv2.split(inner)), feed[0, :, box.top : bottom, box.left : right], strict=True
        ):
            np.divide(plane, np.float32(255), out=target, dtype=np.float32)
        return feed, box

    def decode(
        self, outputs: Sequence[npt.NDArray[Any]], geometry: Letterbox, min_score: float | None = None
    ) -> Instances:
        """The people in one image: predictions whose best class is the person, thresholded, after NMS.

        Boxes are clamped to the image; what then has no area is nobody. Of those that NMS leaves, the `max_persons`
        with the highest scores are decoded; one whose mask covers no pixel of the image is dropped, and nobody takes
        its place.
        """
        predictions, prototypes = self._checked(outputs)
        boxes, scores, coefficients = self._people(predictions, min_score)
        edges = (geometry.width, geometry.height) * 2
        in_image = np.clip(geometry.to_image(boxes), 0.0, edges).astype(np.float32)
        whole = np.flatnonzero((in_image[:, :2] < in_image[:, 2:]).all(axis=1))
        limit = self.info.max_persons
        kept = suppress(boxes[whole], scores[whole], self.info.iou_threshold, limit + 1)  # one more: are there more?
        people = whole[kept[:limit]]
        extents = in_image[people]
        with np.errstate(over="ignore", invalid="ignore"):
            found = sample_masks(coefficients[people], prototypes, geometry.to_input(extents) / PROTOTYPE_STRIDE)
        if np.isnan(found.values).any():
            raise NonFiniteOutput("segmenter masks: expected finite sums of prototypes, found an overflow; " + _ADVICE)
        masks, covering = found.covering(extents, (geometry.height, geometry.width))
        return Instances(extents[covering], scores[people[covering]], masks, truncated=len(kept) > limit)

    def _checked(self, outputs: Sequence[npt.NDArray[Any]]) -> tuple[Float32, Float32]:
        """Predictions [4 + classes + 32, A], prototypes [32, H / 4, W / 4]."""
        height, width = self.info.input_size
        grid = (height // PROTOTYPE_STRIDE, width // PROTOTYPE_STRIDE)
        shapes = [list(output.shape) for output in outputs]
        if (
            len(outputs) != 2
            or outputs[0].ndim != 3
            or outputs[0].shape[0] != 1
            or outputs[0].shape[1] <= 4 + self.info.person_class + COEFFICIENTS
            or outputs[1].shape != (1, COEFFICIENTS, *grid)
        ):
            raise ShapeError(
                f"segmenter outputs: expected [1, 4 + classes + {COEFFICIENTS}, A], with more than "
                f"{self.info.person_class} classes, and [1, {COEFFICIENTS}, {grid[0]}, {grid[1]}], found {shapes}"
            )
        for name, output in zip(self.info.outputs, outputs, strict=True):
            if not np.isfinite(output).all():
                raise NonFiniteOutput(
                    f"segmenter output {name!r}: expected finite values, found NaN or infinity; " + _ADVICE
                )
        return outputs[0][0].astype(np.float32, copy=False), outputs[1][0].astype(np.float32, copy=False)

    def _people(self, predictions: Float32, min_score: float | None) -> tuple[Float64, Float32, Float32]:
        """Boxes float64[n, 4] (xyxy, pixels of the input), scores float32[n], coefficients float32[n, 32]."""
        classes = predictions[4:-COEFFICIENTS]  # [classes, A]
        scores = classes[self.info.person_class]
        least = self.info.score_threshold if min_score is None else min_score
        # Thresholded first: the best class is then looked for among a few of the A predictions.
        good = np.flatnonzero(scores >= least)
        good = good[classes[:, good].argmax(axis=0) == self.info.person_class]
        centre_x, centre_y, width, height = predictions[:4, good].astype(np.float64)  # sums of floats cannot overflow
        boxes = np.stack(
            [centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2], axis=1
        )
        return boxes, scores[good], np.ascontiguousarray(predictions[-COEFFICIENTS:, good].T)
