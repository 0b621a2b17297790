"""Draws a prediction on its image: masks, boxes, and a tag for each person that says what was decided.

Nothing here is random and nothing depends on the order of a dictionary of the caller: the same prediction gives the
same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from graftsdk.errors import InputError, ShapeError
from graftsdk.tags import Color, Pixels, Rect, Tag, draw_tags

if TYPE_CHECKING:
    from graftsdk.prediction import Person, Prediction

__all__ = ["draw", "encode"]

MASK_ALPHA = 0.38
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


def draw(
    prediction: Prediction,
    *,
    labels: Sequence[str] | None = None,
    masks: bool = True,
    boxes: bool = True,
    tags: bool = True,
    font_size: int | None = None,
) -> Pixels:
    """A copy of the prediction's image with its persons drawn on it, uint8[H, W, 3], BGR. See `Prediction.plot`.

    Raises:
        InputError: a label that the prediction has not, or a font size below 1.
        ShapeError: a mask of another size than the image.
    """
    for label in labels or ():
        if label not in prediction.labels:
            raise InputError(f"expected labels of {list(prediction.labels)}, found {label!r}")
    if font_size is not None and font_size < 1:
        raise InputError(f"expected a font size of 1 pixel or more, found {font_size}")
    picture: Pixels = prediction.image.copy()
    # Far persons first, near ones over them; tags are placed the other way round, near persons choose first.
    order = sorted(prediction.persons, key=lambda person: (_area(person), -person.index))
    thick = max(1, round(_scale(picture) / 450))
    for person in order:
        if masks:
            _draw_mask(picture, person, thick)
    for person in order:
        if boxes:
            _draw_box(picture, person, thick)
    if tags:
        told = [_tag(person, labels, picture) for person in order[::-1]]
        draw_tags(picture, told, font_size or _font_size(picture, len(told)))
    return picture


def encode(picture: Pixels, suffix: str) -> bytes:
    """The picture, uint8[H, W, 3], BGR, as the bytes of a file with this suffix.

    Raises:
        InputError: the kind of file cannot hold it (WebP ends at 16383 pixels a side, JPEG at 65500).
    """
    qualities = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [qualities[suffix], 95] if suffix in qualities else []
    try:
        done, content = cv2.imencode(suffix, picture, options)
    except cv2.error as error:
        raise InputError(f"{picture.shape[1]}x{picture.shape[0]} pixels as {suffix}: {error}; save as .png") from error
    if not done:
        raise InputError(f"{picture.shape[1]}x{picture.shape[0]} pixels do not fit into {suffix}; save as .png")
    return content.tobytes()


def color_of(index: int) -> Color:
    """The colour of the person with this index, BGR; after the palette's end it begins again, darker."""
    turn, place = divmod(index, len(PALETTE))
    fade = 0.85 ** (turn % 4)
    blue, green, red = PALETTE[place]
    return int(blue * fade), int(green * fade), int(red * fade)


def _scale(picture: Pixels) -> float:
    """One length for the picture: its root area, held back where it is a strip."""
    height, width = picture.shape[:2]
    return float(min(math.sqrt(height * width), 4.0 * min(height, width)))


def _font_size(picture: Pixels, persons: int) -> int:
    crowd = 1.0 if persons <= 8 else max(0.7, 1.0 - 0.012 * (persons - 8))
    return max(9, round(_scale(picture) * 0.018 * crowd))


def _rect(person: Person, picture: Pixels) -> Rect:
    """The person's box in whole pixels, inside the picture and at least one pixel wide and high."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (float(value) for value in person.box)
    left, top = int(min(max(math.floor(x1), 0), width - 1)), int(min(max(math.floor(y1), 0), height - 1))
    right, bottom = int(min(max(math.ceil(x2), left + 1), width)), int(min(max(math.ceil(y2), top + 1), height))
    return left, top, right, bottom


def _area(person: Person) -> float:
    x1, y1, x2, y2 = (float(value) for value in person.box)
    return float(max(x2 - x1, 0.0) * max(y2 - y1, 0.0))


def _draw_mask(picture: Pixels, person: Person, thick: int) -> None:
    mask = person.mask
    if mask is None:
        return
    if mask.shape != picture.shape[:2]:
        raise ShapeError(f"person {person.index}: expected a mask {picture.shape[:2]}, found {mask.shape}")
    x, y, wide, high = cv2.boundingRect(mask.view(np.uint8))
    if not wide:
        return
    inside = np.ascontiguousarray(mask[y : y + high, x : x + wide])
    view = picture[y : y + high, x : x + wide]
    color = color_of(person.index)
    tinted = cv2.addWeighted(view, 1.0 - MASK_ALPHA, np.full_like(view, color), MASK_ALPHA, 0.0)
    view[inside] = tinted[inside]
    contours, _ = cv2.findContours(inside.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    canvas = np.ascontiguousarray(view)
    cv2.drawContours(canvas, contours, -1, color, thick, cv2.LINE_AA)
    view[...] = canvas


def _draw_box(picture: Pixels, person: Person, thick: int) -> None:
    x1, y1, x2, y2 = _rect(person, picture)
    cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), color_of(person.index), thick)


def _tag(person: Person, labels: Sequence[str] | None, picture: Pixels) -> Tag:
    number = str(person.index)
    title = number if person.score is None else f"{number}  {person.score:.2f}"
    told = [attribute.finding() for attribute in person if labels is None or attribute.label in labels]
    findings = tuple(": ".join(filter(None, finding)) for finding in told if finding is not None)
    return Tag(number, title, findings, _rect(person, picture), color_of(person.index))
