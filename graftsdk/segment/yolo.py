"""YOLO-seg: YOLOv8 and YOLO11, YOLOv5, and what has its NMS inside.

`prototypes` float32[1, 32, H / 4, W / 4], and beside it `predictions` float32, in one of three layouts, told apart by
shapes alone; A predictions: one for each cell of three grids, 8400 at 640 x 640:

- by columns (v8, v11) [1, 4 + classes + 32, A]: cx, cy, w, h in pixels of the input, class scores after the sigmoid (no
  objectness), 32 raw mask coefficients;
- by rows (v5) [1, 3 A, 5 + classes + 32]: cx, cy, w, h, objectness, class scores, coefficients; a prediction's score is
  objectness x class;
- after NMS (`nms=True`, YOLO26) [1, N, 6 + 32]: x0, y0, x1, y1 in pixels of the input, score, class, coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from graftsdk.errors import NonFiniteOutput, ShapeError
from graftsdk.plan.cropspec import CropSpec
from graftsdk.segment.base import Instances
from graftsdk.segment.finite import ADVICE, check_finite
from graftsdk.segment.letterbox import Letterbox
from graftsdk.segment.nms import suppress
from graftsdk.segment.places import People, Place, Places, PrototypeAdapter
from graftsdk.segment.prototypes import sample_masks
from graftsdk.segment.shapes import Match, Shapes, Size, arranged, image_input

__all__ = ["COEFFICIENTS", "PROTOTYPE_STRIDE", "STRIDES", "YoloAdapter"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

COEFFICIENTS = 32  # of a mask, one for each prototype
PROTOTYPE_STRIDE = 4  # pixels of the input that one cell of a prototype covers
STRIDES = (8, 16, 32)  # of the three grids of predictions
BORDER = 114 / 255  # grey around a letterboxed image, as in training


@dataclass(frozen=True, eq=False)
class _People:
    """Predictions that are people, in the order of the output.

    Attributes:
        boxes: float64[n, 4], xyxy in pixels of the input. scores: float32[n]. coefficients: float32[n, 32].
    """

    boxes: Float64
    scores: Float32
    coefficients: Float32


class YoloAdapter(PrototypeAdapter):
    """The family "yolo"."""

    family: ClassVar[str] = "yolo"
    shapes: ClassVar[str] = (
        "YOLO-seg: input [n, 3, H, W], sides multiples of 32; outputs [n, 32, H / 4, W / 4] and one of "
        "[n, 4 + classes + 32, A] (v8, v11), [n, 3 A, 5 + classes + 32] (v5), [n, N, 6 + 32] (exported with nms)"
    )
    score_threshold: ClassVar[float] = 0.25
    iou_threshold: ClassVar[float] = 0.7
    masks = "sample"

    @classmethod
    def match(cls, inputs: Shapes, outputs: Shapes, size: Size | None) -> Match | None:
        """YOLOv5's own IoU threshold is 0.45. Shapes that leave the layout open are taken for v8's until it is run."""
        image = image_input(inputs, size, multiple=32)
        if image is None:
            return None
        grid = (None, None) if image.open_size else _grid(image.size)
        for layout in _LAYOUTS:
            rows, columns = layout.sides(None if image.open_size else _anchors(image.size))
            names = arranged(outputs, ((1, rows, columns), (1, COEFFICIENTS, *grid)))
            if names is None:
                continue
            predictions, prototypes = (outputs[name] for name in names)
            if predictions and not layout.has_class(predictions[1], predictions[2]):
                continue
            told = [*predictions[1:], *prototypes[1:]]
            return Match(
                image.name,
                image.size,
                names,
                open_size=image.open_size,
                open_family=not image.told or len(told) < 5 or not all(isinstance(side, int) for side in told),
                iou_threshold=layout.iou_threshold,
            )
        return None

    def prepare(self, image: npt.NDArray[np.uint8]) -> tuple[Float32, Letterbox]:
        """float32[1, 3, H, W], RGB 0..1: the image letterboxed on grey 114, as in training."""
        box = Letterbox.fit((image.shape[0], image.shape[1]), self.info.input_size)
        return box.place(image, self.info.input_size, (BORDER,) * 3), box

    def decode(
        self, outputs: Sequence[npt.NDArray[Any]], geometry: Letterbox, min_score: float | None = None
    ) -> Instances:
        """The people in one image: predictions whose best class is the person, thresholded, after NMS.

        A network that has its NMS inside did it for all classes and with its own threshold; no other follows.

        Boxes are clamped to the image; what then has no area is nobody. Of those that NMS leaves, the `max_persons`
        with the highest scores are decoded; one whose mask covers no pixel of the image is dropped, and nobody takes
        its place.
        """
        predictions, prototypes, layout = self._checked(outputs)
        found = layout.read(predictions, self.info.person_class, self.least(min_score))
        people = self._people(found.boxes, found.scores, geometry, suppressed=layout.suppressed)
        with np.errstate(over="ignore", invalid="ignore"):
            sampled = sample_masks(found.coefficients[people.rows], prototypes, people.boxes)
        if np.isnan(sampled.values).any():
            raise NonFiniteOutput("segmenter masks: expected finite sums of prototypes, found an overflow; " + ADVICE)
        masks, covering = sampled.covering(people.in_image, (geometry.height, geometry.width))
        return Instances(people.in_image[covering], people.scores[covering], masks, people.truncated)

    @property
    def input_spec(self) -> CropSpec:
        """As `PrototypeAdapter` has it: letterboxed on the same grey, without antialias."""
        return CropSpec(
            self.info.input_size, (0, 0, 0), (1, 1, 1), fill=round(255 * BORDER), antialias=False, fit="letterbox"
        )

    def geometry(self, image_size: Size) -> Letterbox:
        """The image as a letterboxed crop has it, which rounds its sides half up."""
        return Letterbox.placed(image_size, self.info.input_size)

    def places(self, shapes: Sequence[tuple[int, ...]]) -> Places:
        """As `PrototypeAdapter` has it."""
        layout = self._check_shapes(shapes)
        rows, columns = shapes[0][1:]
        count, row, step = (rows, columns, 1) if layout.by_rows else (columns, 1, columns)
        width, person, before = (columns if layout.by_rows else rows), self.info.person_class, layout.before

        def place(value: int) -> Place:
            return Place(0, value * step, row, step)

        return Places(
            count=count,
            score=place(4 if layout.suppressed else before + person),
            factor=place(4) if before == 5 else None,
            classes=place(5 if layout.suppressed else before),
            class_count=1 if layout.suppressed else width - before - COEFFICIENTS,
            person=person,
            rule="named" if layout.suppressed else "best",
            box=place(0),
            coefficients=place(width - COEFFICIENTS),
            prototypes=1,
            grid=(shapes[1][2], shapes[1][3]),
            kinds=COEFFICIENTS,
        )

    def people(self, places: Places, boxes: Float32, priors: Float32, scores: Float32, geometry: Letterbox) -> People:
        """As `PrototypeAdapter` has it; there are no priors."""
        suppressed = places.rule == "named"
        corners = boxes.astype(np.float64) if suppressed else _corners(boxes.T)
        return self._people(corners, scores, geometry, suppressed=suppressed)

    def _people(self, boxes: Float64, scores: Float32, geometry: Letterbox, *, suppressed: bool) -> People:
        """The people among candidates, whose boxes are xyxy in pixels of the input."""
        edges = (geometry.width, geometry.height) * 2
        in_image = np.clip(geometry.to_image(boxes), 0.0, edges).astype(np.float32)
        whole = np.flatnonzero((in_image[:, :2] < in_image[:, 2:]).all(axis=1))
        limit = self.info.max_persons
        if suppressed:
            kept = np.argsort(-scores[whole], kind="stable")
        else:  # one more than the limit: are there more?
            kept = suppress(boxes[whole], scores[whole], self.info.iou_threshold, limit + 1)
        rows = whole[kept[:limit]]
        extents = in_image[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            cells = geometry.to_input(extents) / PROTOTYPE_STRIDE
        return People(rows, cells, extents, scores[rows], truncated=len(kept) > limit)

    def _checked(self, outputs: Sequence[npt.NDArray[Any]]) -> tuple[Float32, Float32, _Layout]:
        """Predictions [rows, columns], prototypes [32, H / 4, W / 4], and the layout of the predictions."""
        layout = self._check_shapes([output.shape for output in outputs])
        check_finite(self.info.outputs, outputs)
        return outputs[0][0].astype(np.float32, copy=False), outputs[1][0].astype(np.float32, copy=False), layout

    def _check_shapes(self, shapes: Sequence[tuple[int, ...]]) -> _Layout:
        """The layout of the predictions."""
        grid, person = _grid(self.info.input_size), self.info.person_class
        layout = None
        if len(shapes) == 2 and len(shapes[0]) == 3 and shapes[0][0] == 1:
            layout = _layout(shapes[0][1], shapes[0][2], self.info.input_size)
        if (
            layout is None
            or not layout.has_class(shapes[0][1], shapes[0][2], person)
            or shapes[1] != (1, COEFFICIENTS, *grid)
        ):
            raise ShapeError(
                f"segmenter outputs: expected [1, 4 + classes + {COEFFICIENTS}, A], [1, 3 A, 5 + classes + "
                f"{COEFFICIENTS}] or [1, N, 6 + {COEFFICIENTS}], with more than {person} classes, and "
                f"[1, {COEFFICIENTS}, {grid[0]}, {grid[1]}], found {[list(shape) for shape in shapes]}"
            )
        return layout


@dataclass(frozen=True)
class _Layout:
    """How predictions lie in their output [1, rows, columns].

    Attributes:
        read: the people among them: float32[rows, columns], the person's class, the least score.
        by_rows: whether a prediction is a row, else a column.
        per_cell: predictions for each cell of the grids; 0 where NMS left a few.
        before: values of a prediction before its class scores.
        suppressed: whether NMS was done. iou_threshold: where it differs from the family's.
    """

    read: Callable[[Float32, int, float], _People]
    by_rows: bool
    per_cell: int
    before: int
    suppressed: bool = False
    iou_threshold: float | None = None

    def sides(self, anchors: int | None) -> tuple[int | None, int | None]:
        """(rows, columns) for so many cells in the grids; None where any number will do."""
        if self.suppressed:
            return None, self.before + COEFFICIENTS
        count = None if anchors is None else anchors * self.per_cell
        return (count, None) if self.by_rows else (None, count)

    def has_class(self, rows: int | str | None, columns: int | str | None, index: int = 0) -> bool:
        """Whether predictions of these sides have the class; True where the shapes leave it open."""
        width = columns if self.by_rows else rows
        return self.suppressed or not isinstance(width, int) or width > self.before + index + COEFFICIENTS


def _columns(predictions: Float32, person: int, least: float) -> _People:
    classes = predictions[4:-COEFFICIENTS]  # [classes, A]
    scores = classes[person]
    # Thresholded first: the best class is then looked for among a few of the A predictions.
    good = np.flatnonzero(scores >= least)
    good = good[classes[:, good].argmax(axis=0) == person]
    return _People(
        _corners(predictions[:4, good]), scores[good], np.ascontiguousarray(predictions[-COEFFICIENTS:, good].T)
    )


def _rows(predictions: Float32, person: int, least: float) -> _People:
    with np.errstate(over="ignore", under="ignore"):
        scores = predictions[:, 4] * predictions[:, 5 + person]
    good = np.flatnonzero(scores >= least)
    good = good[predictions[good, 5:-COEFFICIENTS].argmax(axis=1) == person]
    return _People(_corners(predictions[good, :4].T), scores[good], predictions[good, -COEFFICIENTS:])


def _after_nms(predictions: Float32, person: int, least: float) -> _People:
    good = np.flatnonzero((predictions[:, 4] >= least) & (predictions[:, 5].round() == person))
    rows = predictions[good]
    return _People(rows[:, :4].astype(np.float64), rows[:, 4], rows[:, 6:])


# Where several fit, the first counts: it is the only one that older plans can mean.
_LAYOUTS = (
    _Layout(_columns, by_rows=False, per_cell=1, before=4),
    _Layout(_rows, by_rows=True, per_cell=3, before=5, iou_threshold=0.45),
    _Layout(_after_nms, by_rows=True, per_cell=0, before=6, suppressed=True),
)


def _layout(rows: int, columns: int, input_size: Size) -> _Layout:
    """The layout of predictions that were made; v8's where the grids are others than usual."""
    for layout in _LAYOUTS:
        wanted = layout.sides(_anchors(input_size))
        if all(side in (None, found) for side, found in zip(wanted, (rows, columns), strict=True)):
            return layout
    return _LAYOUTS[0]


def _corners(boxes: Float32) -> Float64:
    """float64[n, 4], xyxy, of cx, cy, w, h in float32[4, n]; sums of floats cannot overflow in float64."""
    centre_x, centre_y, width, height = boxes.astype(np.float64)
    return np.stack([centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2], axis=1)


def _anchors(size: Size) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)


def _grid(size: Size) -> tuple[int, int]:
    return size[0] // PROTOTYPE_STRIDE, size[1] // PROTOTYPE_STRIDE
