"""Mask R-CNN as torchvision exports it: normalisation, resizing, NMS and the pasting of masks are in the graph.

n detections of all classes: `boxes` float32[n, 4], xyxy in pixels of the input, `labels` int64[n] (0 is the background,
which is never given; person = 1 for COCO), `scores` float32[n], `masks` float32[n, 1, H, W], probabilities over the
whole input. Zero detections are arrays without rows.

Source: torchvision/models/detection (mask_rcnn.py, transform.py, roi_heads.py: paste_masks_in_image).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError, ShapeError
from graftsdk.preprocess.boxmasks import BoxMasks, mask_box
from graftsdk.segment.base import Adapter, Instances
from graftsdk.segment.finite import check_finite
from graftsdk.segment.letterbox import Letterbox
from graftsdk.segment.shapes import Match, Shapes, Size, agree, arranged, image_input

__all__ = ["MEAN", "MaskRcnnAdapter"]

Float32 = npt.NDArray[np.float32]

# RGB 0..1, what the network itself subtracts. In its training batches images lie top left on zeros that are added after
# that: a border of this colour is the same. A stretched image would show people as no network was trained to see them.
MEAN = (0.485, 0.456, 0.406)

_ROUNDING = 1e-3  # by which an interpolated probability may leave 0..1


class MaskRcnnAdapter(Adapter):
    """The family "maskrcnn"."""

    family: ClassVar[str] = "maskrcnn"
    shapes: ClassVar[str] = (
        "torchvision's Mask R-CNN, one image: input [3, H, W] or [1, 3, H, W]; outputs boxes [n, 4], labels [n], "
        "scores [n], masks [n, 1, H, W]"
    )
    person_class: ClassVar[int] = 1
    score_threshold: ClassVar[float] = 0.5
    iou_threshold: ClassVar[float] = 0.5

    @classmethod
    def match(cls, inputs: Shapes, outputs: Shapes, size: Size | None) -> Match | None:
        """Labels and scores have one shape: they are told apart by their dtypes, when it runs."""
        image = image_input(inputs, size, unbatched=True)
        if image is None:
            return None
        sides = (None, None) if image.open_size else image.size
        names = arranged(outputs, (("n", 4), ("n",), ("n",), ("n", 1, *sides)))
        if names is None:
            return None
        boxes, labels, scores, masks = (outputs[name] for name in names)
        told = image.told and labels and scores and masks and [*boxes[1:]] == [4]
        return Match(
            image.name,
            image.size,
            names,
            batched=image.batched,
            open_size=image.open_size,
            open_family=not told,
        )

    def prepare(self, image: npt.NDArray[np.uint8]) -> tuple[Float32, Letterbox]:
        """float32[1, 3, H, W] or [3, H, W], RGB 0..1: the image top left, below and right of it the mean colour."""
        box = Letterbox.fit((image.shape[0], image.shape[1]), self.info.input_size, centred=False)
        feed = box.place(image, self.info.input_size, MEAN)
        return (feed if self.info.batched else feed[0]), box

    def decode(
        self, outputs: Sequence[npt.NDArray[Any]], geometry: Letterbox, min_score: float | None = None
    ) -> Instances:
        """The people in one image: detections labelled as the person that reach the score.

        Boxes are clamped to the image; what then has no area is nobody. Of the `max_persons` with the highest scores,
        one whose mask covers no pixel of the image inside its box is dropped, and nobody takes its place.

        Masks are cut out of the input's frame along whole pixels: one may reach beyond its box by less than a pixel of
        the input. They are copied: 100 frames of 800 x 1333 take 427 MB, which a view would hold as long as its person.

        Raises:
            InputError: masks that are no probabilities.
        """
        boxes, labels, scores, masks = self._checked(outputs)
        least = self.info.score_threshold if min_score is None else min_score
        good = np.flatnonzero((labels == self.info.person_class) & (scores >= least))
        good = good[np.argsort(-scores[good], kind="stable")]
        edges = (geometry.width, geometry.height) * 2
        in_image = np.clip(geometry.to_image(boxes[good]), 0.0, edges).astype(np.float32)
        whole = np.flatnonzero((in_image[:, :2] < in_image[:, 2:]).all(axis=1))
        people = whole[: self.info.max_persons]
        windows = _windows(geometry, in_image[people])
        cuts = [
            self._cut(masks[row, 0, y0:y1, x0:x1])
            for row, (x0, y0, x1, y1) in zip(good[people].tolist(), windows.tolist(), strict=True)
        ]
        found = BoxMasks(cuts, geometry.to_image(windows))
        size = (geometry.height, geometry.width)
        covering = np.array([index for index in range(len(found)) if _covers(found, index, size)], np.int64)
        people = people[covering]
        return Instances(
            in_image[people],
            scores[good[people]],
            found.select(covering),
            truncated=len(whole) > self.info.max_persons,
        )

    def _checked(self, outputs: Sequence[npt.NDArray[Any]]) -> tuple[Float32, npt.NDArray[Any], Float32, Float32]:
        """Boxes [n, 4], labels [n], scores [n], masks [n, 1, H, W]."""
        height, width = self.info.input_size
        shapes = [output.shape for output in outputs]
        if len(outputs) != 4 or not agree(shapes, (("n", 4), ("n",), ("n",), ("n", 1, height, width))):
            raise ShapeError(
                f"segmenter outputs: expected boxes [n, 4], labels [n], scores [n] and masks "
                f"[n, 1, {height}, {width}], found {[list(shape) for shape in shapes]}"
            )
        boxes, labels, scores, masks = outputs
        if labels.dtype.kind == "f" and scores.dtype.kind in "iu":  # one shape: the file may have them the other way
            labels, scores = scores, labels
        check_finite(self.info.outputs[:3], outputs[:3])
        return boxes.astype(np.float32, copy=False), labels, scores.astype(np.float32, copy=False), masks

    def _cut(self, window: npt.NDArray[Any]) -> Float32:
        """float32[h, w]: a copy of a mask's window, in 0..1."""
        least, most = float(window.min()), float(window.max())
        name = self.info.outputs[3]
        check_finite([name], [window])
        if least < -_ROUNDING or most > 1 + _ROUNDING:
            raise InputError(
                f"segmenter output {name!r}: expected probabilities from 0 to 1, found {least:g} to {most:g}; export "
                f"the network with its sigmoid"
            )
        cut = window.astype(np.float32)
        np.clip(cut, 0.0, 1.0, out=cut)
        return cut


def _windows(geometry: Letterbox, boxes: Float32) -> npt.NDArray[np.int64]:
    """int64[n, 4], xyxy: the pixels of the input that boxes in the image touch, each at least one."""
    inside = geometry.to_input(boxes)
    limits = np.array([geometry.inner_width, geometry.inner_height])
    first = np.minimum(np.floor(inside[:, :2]).astype(np.int64), limits - 1)
    last = np.minimum(np.ceil(inside[:, 2:]).astype(np.int64), limits)
    return np.concatenate([first, np.maximum(last, first + 1)], axis=1)


def _covers(masks: BoxMasks, index: int, size: Size) -> bool:
    """Whether a mask covers a pixel of the image (H, W)."""
    values, (x0, y0, x1, y1) = masks[index], masks.extents[index].astype(np.float64)
    row, column = divmod(int(values.argmax()), values.shape[1])
    if values[row, column] <= 0.5:
        return False
    # Nearly always the pixel under the strongest sample decides; where none is near enough, all are looked at.
    y = min(int(y0 + (row + 0.5) * (y1 - y0) / values.shape[0]), size[0] - 1)
    x = min(int(x0 + (column + 0.5) * (x1 - x0) / values.shape[1]), size[1] - 1)
    return bool(masks.values(index, y, y + 1, x, x + 1)[0, 0] > 0.5) or mask_box(masks, index, *size) is not None
