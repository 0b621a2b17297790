"""YOLACT, as exported with the softmax and the tanh in the graph.

P predictions for an input of H x W, one for each prior; K prototypes; class 0 is the background:
`loc` float32[1, P, 4], `conf` float32[1, P, 1 + classes] after the softmax, `mask` float32[1, P, K] after tanh,
`priors` float32[P, 4] (cx, cy, w, h as fractions of the input), `proto` float32[1, h, w, K] after ReLU.

Source: Bolya et al. 2019 (YOLACT: Real-time Instance Segmentation) and their code, dbolya/yolact 902073d:
layers/box_utils (decode, crop), layers/functions/detection (fast NMS), layers/output_utils (masks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from graftsdk.errors import NonFiniteOutput, ShapeError
from graftsdk.plan.cropspec import CropSpec
from graftsdk.segment.base import Instances
from graftsdk.segment.finite import ADVICE, check_finite
from graftsdk.segment.nms import suppress, suppress_fast
from graftsdk.segment.places import People, Place, Places, PrototypeAdapter
from graftsdk.segment.prototypes import cut_masks
from graftsdk.segment.shapes import Match, Shapes, Size, arranged, image_input

__all__ = ["MEAN", "OUTPUTS", "STD", "VARIANCES", "YolactAdapter"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Of the network's input: (x - MEAN) / STD, RGB, x from 0 to 255.
MEAN = (123.68, 116.78, 103.94)
STD = (58.40, 57.12, 57.38)

VARIANCES = (0.1, 0.2)  # of a box's centre and of its sides' logarithms, SSD's: what `loc` is multiplied by

TAKES_PART = 0.05  # a prior whose best class does not exceed it is nobody, whatever the score asked for (`conf_thresh`)

_MOST = 80.0  # of an exponent: e**80 times the input is everywhere, and a square of it still far from overflow

OUTPUTS = ("loc", "conf", "mask", "priors", "proto")  # their names in a network of ours, in the adapter's order
_SHAPES = ((1, "P", 4), (1, "P", None), (1, "P", "K"), ("P", 4), (1, None, None, "K"))

# float32[256] for each channel, RGB: the normalised value of a byte.
_LEVELS = [((np.arange(256.0) - mean) / std).astype(np.float32) for mean, std in zip(MEAN, STD, strict=True)]


class YolactAdapter(PrototypeAdapter):
    """The family "yolact"."""

    family: ClassVar[str] = "yolact"
    shapes: ClassVar[str] = (
        "YOLACT, with the softmax in the graph: input [n, 3, H, W]; outputs loc [n, P, 4], conf [n, P, 1 + classes], "
        "mask [n, P, K], priors [P, 4], proto [n, h, w, K], in any order and under any names"
    )
    score_threshold: ClassVar[float] = 0.15
    iou_threshold: ClassVar[float] = 0.5
    # The original's is "fast". Greedy loses nobody to a box that itself goes: on drawn scenes 2 points of mask AP50.
    nms: ClassVar[tuple[str, ...]] = ("greedy", "fast")
    masks = "cut"

    @classmethod
    def match(cls, inputs: Shapes, outputs: Shapes, size: Size | None) -> Match | None:
        """Outputs of equal shapes (three classes: `conf` is as wide as `loc`) stand in the order of the export."""
        image = image_input(inputs, size)
        names = arranged(outputs, _SHAPES)
        if image is None or names is None:
            return None
        loc, conf, mask, priors, proto = (outputs[name] for name in names)
        if conf and isinstance(conf[2], int) and conf[2] < 2:
            return None
        told = image.told and conf and mask and proto and [*loc[2:], *priors[1:]] == [4, 4]
        return Match(image.name, image.size, names, open_size=image.open_size, open_family=not told)

    def prepare(self, image: npt.NDArray[np.uint8]) -> tuple[Float32, tuple[int, int]]:
        """float32[1, 3, H, W], RGB, normalised: the image stretched by OpenCV without antialias; and its (H, W)."""
        import cv2

        size = (image.shape[0], image.shape[1])
        height, width = self.info.input_size
        inner: npt.NDArray[Any] = np.ascontiguousarray(image)
        if size != (height, width):
            inner = cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR)
        feed = np.empty((1, 3, height, width), np.float32)
        # Planes first, and a byte has few values: a table does in one pass what a difference and a quotient do in two.
        for plane, levels, target in zip(reversed(cv2.split(inner)), _LEVELS, feed[0], strict=True):
            cv2.LUT(plane, levels, dst=target)
        return feed, size

    def decode(
        self, outputs: Sequence[npt.NDArray[Any]], geometry: tuple[int, int], min_score: float | None = None
    ) -> Instances:
        """The people in one image, (H, W) `geometry`.

        Those whose score reaches the threshold, after NMS among them alone: other classes neither suppress a person
        nor take its place among the best. What has no area inside the image is nobody. The `max_persons` with the
        highest scores are given, but for those whose mask covers no pixel of the image; nobody takes their place.

        A mask is the sigmoid of the sum of prototypes, cut at one cell around the box, enlarged bilinearly to the
        image: it may reach beyond its box by about one cell.
        """
        height, width = geometry
        loc, conf, coefficients, priors, prototypes = self._checked(outputs)
        chosen = _candidates(conf, self.info.person_class, self.least(min_score))
        scores = conf[chosen, self.info.person_class + 1]
        people = self._people(decode_boxes(loc[chosen], priors[chosen]), scores, geometry)
        masks, windows = cut_masks(coefficients[chosen[people.rows]], prototypes, people.boxes)
        if np.isnan(masks.values).any():
            raise NonFiniteOutput("segmenter masks: expected finite sums of prototypes, found an overflow; " + ADVICE)
        cell = (width / prototypes.shape[1], height / prototypes.shape[0]) * 2
        found, covering = masks.covering((windows * cell).astype(np.float32), (height, width))
        return Instances(people.in_image[covering], people.scores[covering], found, people.truncated)

    @property
    def input_spec(self) -> CropSpec:
        """As `PrototypeAdapter` has it: stretched, without antialias."""
        mean, std = (tuple(value / 255 for value in values) for values in (MEAN, STD))
        return CropSpec(self.info.input_size, mean, std, antialias=False)  # type: ignore[arg-type]

    def geometry(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The image's (H, W)."""
        return image_size

    def places(self, shapes: Sequence[tuple[int, ...]]) -> Places:
        """As `PrototypeAdapter` has it. A prior takes part by its best class; see `_candidates`."""
        self._check_shapes(shapes)
        (_, count, classes), kinds, person = shapes[1], shapes[2][2], self.info.person_class
        return Places(
            count=count,
            score=Place(1, person + 1, classes),
            classes=Place(1, 1, classes),
            class_count=classes - 1,
            person=person,
            rule="over",
            bound=TAKES_PART,
            box=Place(0, 0, 4),
            prior=Place(3, 0, 4),
            coefficients=Place(2, 0, kinds),
            prototypes=4,
            grid=(shapes[4][1], shapes[4][2]),
            kinds=kinds,
        )

    def people(
        self, places: Places, boxes: Float32, priors: Float32, scores: Float32, geometry: tuple[int, int]
    ) -> People:
        """As `PrototypeAdapter` has it; `boxes` are `loc`."""
        return self._people(decode_boxes(boxes, priors), scores, geometry)

    def _people(self, boxes: Float64, scores: Float32, size: tuple[int, int]) -> People:
        """The people among candidates, whose boxes are xyxy as fractions of the image (H, W) `size`."""
        height, width = size
        with np.errstate(under="ignore"):
            in_image = np.clip(boxes * (width, height, width, height), 0.0, (width, height) * 2).astype(np.float32)
        whole = (in_image[:, 0] < in_image[:, 2]) & (in_image[:, 1] < in_image[:, 3])
        # As in the original, what lies outside the image suppresses like all others, and is dropped afterwards.
        limit = self.info.max_persons
        if self.info.nms == "fast":
            kept, cut = suppress_fast(boxes, scores, self.info.iou_threshold)
        else:
            spare = int(np.count_nonzero(~whole))
            kept, cut = suppress(boxes, scores, self.info.iou_threshold, limit + 1 + spare), np.empty(0, np.int64)
        kept = kept[whole[kept]]
        rows = kept[:limit]
        truncated = bool(whole[cut].any()) or len(kept) > limit
        return People(rows, boxes[rows], in_image[rows], scores[rows], truncated)

    def _checked(self, outputs: Sequence[npt.NDArray[Any]]) -> tuple[Float32, Float32, Float32, Float32, Float32]:
        """Without their batch: loc [P, 4], conf [P, 1 + classes], mask [P, K], priors [P, 4], proto [h, w, K]."""
        self._check_shapes([tuple(output.shape) for output in outputs])
        check_finite(self.info.outputs, outputs)
        loc, conf, mask, priors, proto = (output.astype(np.float32, copy=False) for output in outputs)
        return loc[0], conf[0], mask[0], priors, proto[0]

    def _check_shapes(self, shapes: Sequence[tuple[int, ...]]) -> None:
        if not _fit(shapes, self.info.person_class):
            raise ShapeError(
                f"segmenter outputs: expected loc [1, P, 4], conf [1, P, 1 + classes] with more than "
                f"{self.info.person_class} classes, mask [1, P, K], priors [P, 4] and proto [1, h, w, K], "
                f"found {[list(shape) for shape in shapes]}"
            )


def decode_boxes(loc: Float32, priors: Float32) -> Float64:
    """float64[n, 4]: boxes, xyxy as fractions of the input, not clamped. Finite, with no side below 0.

    centre = prior + 0.1 loc side, side = prior side * exp(0.2 loc).

    Args:
        loc: float32[n, 4]. priors: float32[n, 4], cx, cy, w, h as fractions of the input.
    """
    centre, side = priors[:, :2].astype(np.float64), priors[:, 2:].astype(np.float64)
    centre = centre + loc[:, :2] * VARIANCES[0] * side
    side = side * np.exp(np.clip(loc[:, 2:].astype(np.float64) * VARIANCES[1], -_MOST, _MOST))
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1)


def _candidates(conf: Float32, person: int, least: float) -> npt.NDArray[np.int64]:
    """Which priors may be a person: int64[n], rising.

    In the original a prior takes part where its best class exceeds TAKES_PART, NMS follows, and the score asked for is
    applied to what is left. Asking first gives the same people: NMS lets a box be suppressed, or pushed out of the best
    few, by better ones alone, and all that are better than one that reaches `least` reach it too.

    Nor is the best class looked for where `least` > TAKES_PART: it is no worse than the person, so a person who
    reaches `least` takes part.
    """
    good = np.flatnonzero(conf[:, person + 1] >= least)
    if np.float32(least) > np.float32(TAKES_PART):  # in the precision of the comparisons
        return good
    return good[conf[good, 1:].max(axis=1) > TAKES_PART] if len(good) else good


def _fit(shapes: Sequence[tuple[int, ...]], person: int) -> bool:
    if [len(shape) for shape in shapes] != [3, 3, 3, 2, 4]:
        return False
    loc, conf, mask, priors, proto = shapes
    count, kinds = mask[1:]
    return (
        conf[2] > person + 1
        and (loc, conf[:2], mask[:2], priors) == ((1, count, 4), (1, count), (1, count), (count, 4))
        and (proto[0], proto[3]) == (1, kinds)
        and min(proto) > 0
    )
