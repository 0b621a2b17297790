"""Draws a prediction on its image: masks, boxes, and a tag for each person that says what was decided.

Nothing here is random and nothing depends on the order of a dictionary of the caller: the same prediction gives the
same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.drawing.arguments import MAX_FONT_SIZE, MAX_SIDE, label_names
from graftsdk.drawing.overlay import draw_mask
from graftsdk.drawing.tags import Color, Pixels, Rect, Tag, draw_tags

if TYPE_CHECKING:
    from graftsdk.prediction import Person, Prediction

__all__ = ["Look", "color_of", "draw", "number_of"]

# Far apart in hue and alike in lightness, so that one text colour and one mask alpha suit all (seen on photographs).
PALETTE: tuple[Color, ...] = (
    (242, 140, 56),
    (76, 92, 250),
    (94, 201, 66),
    (46, 176, 255),
    (222, 92, 188),
    (190, 196, 32),
    (150, 120, 255),
    (40, 220, 210),
    (255, 120, 130),
    (120, 170, 120),
    (90, 140, 210),
    (220, 170, 150),
)


@dataclass(frozen=True)
class Look:
    """What is drawn. See `Prediction.plot`."""

    labels: Sequence[str] | None = None
    masks: bool = True
    boxes: bool = True
    tags: bool = True
    font_size: int | None = None
    side: int | None = None


def draw(prediction: Prediction, look: Look) -> Pixels:
    """A copy of the prediction's image with its persons drawn on it, uint8[h, w, 3], BGR.

    Raises:
        InputError: a label that the prediction has not; a font size or side that is no whole number from 1 to 1000
            or 16384.
        ShapeError: a mask of another size than the image.
    """
    labels = label_names(look.labels, prediction.labels)
    font_size = None if look.font_size is None else whole_number("font_size", look.font_size, 1, MAX_FONT_SIZE)
    side = None if look.side is None else whole_number("side", look.side, 1, MAX_SIDE)
    picture = _fitted(prediction.image, side)
    sx, sy = picture.shape[1] / prediction.size[1], picture.shape[0] / prediction.size[0]
    # Far persons first, near ones over them; tags are placed the other way round, near persons choose first.
    order = sorted(prediction.persons, key=lambda person: (_area(person.box), -person.index))
    boxes = [_rect(person.box * (sx, sy, sx, sy), picture) for person in order]
    colors = [color_of(number_of(person)) for person in order]
    thick = max(1, round(_scale(picture) / 450))
    if look.masks:
        for person, color in zip(order, colors, strict=True):
            draw_mask(picture, person, prediction.size, color, thick)
    if look.boxes:
        for (x0, y0, x1, y1), color in zip(boxes, colors, strict=True):
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), color, thick)
    if look.tags:
        alone = len(order) == 1
        told = [_tag(person, labels, box, alone) for person, box in zip(order, boxes, strict=True)]
        draw_tags(picture, told[::-1], font_size or _font_size(picture, len(told)))
    return picture


def number_of(person: Person) -> int:
    """What tells this person from others: of a track its number, which stays from frame to frame, else the index."""
    return person.index if person.track is None else person.track


def color_of(index: int) -> Color:
    """The colour of the person with this number, BGR; after the palette's end it begins again, darker."""
    turn, place = divmod(index, len(PALETTE))
    fade = 0.85 ** (turn % 4)
    blue, green, red = PALETTE[place]
    return int(blue * fade), int(green * fade), int(red * fade)


def _scale(picture: Pixels) -> float:
    """One length for the picture: its root area, held back where it is a strip."""
    height, width = picture.shape[:2]
    return float(min(math.sqrt(height * width), 4.0 * min(height, width)))


def _font_size(picture: Pixels, persons: int) -> int:
    crowd = min(1.0, math.sqrt(8.0 / max(persons, 1)))  # as the room that each has
    return max(9, round(_scale(picture) * max(0.0155 * crowd, 0.008)))


def _fitted(image: Pixels, side: int | None) -> Pixels:
    """A copy of the image whose longer side is `side`."""
    height, width = image.shape[:2]
    if side is None or side == max(height, width) or not image.size:
        return image.copy()
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def _rect(box: npt.NDArray[np.float32], picture: Pixels) -> Rect:
    """The box in whole pixels, inside the picture and at least one pixel wide and high."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in box)
    left, top = int(min(max(math.floor(x0), 0), width - 1)), int(min(max(math.floor(y0), 0), height - 1))
    right, bottom = int(min(max(math.ceil(x1), left + 1), width)), int(min(max(math.ceil(y1), top + 1), height))
    return left, top, right, bottom


def _area(box: npt.NDArray[np.float32]) -> float:
    x0, y0, x1, y1 = (float(value) for value in box)
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)


def _tag(person: Person, labels: Sequence[str] | None, box: Rect, alone: bool) -> Tag:
    untold = alone and person.score is None and person.track is None  # nobody to tell it from
    number = "" if untold else str(number_of(person))
    title = number if person.score is None else f"{number}   {person.score:.2f}"
    told = (attribute.finding() for attribute in person if labels is None or attribute.label in labels)
    findings = tuple(finding for finding in told if finding is not None)
    return Tag(number, title, findings, box, color_of(number_of(person)))
