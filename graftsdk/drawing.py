"""Draws a prediction on its image: masks, boxes, and a tag for each person that says what was decided.

Nothing here is random and nothing depends on the order of a dictionary of the caller: the same prediction gives the
same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from graftsdk.errors import InputError, ShapeError

if TYPE_CHECKING:
    from graftsdk.prediction import Person, Prediction

__all__ = ["draw", "encode"]

Pixels = npt.NDArray[np.uint8]
Rect = tuple[int, int, int, int]  # x1, y1, x2, y2, half-open
Color = tuple[int, int, int]  # BGR

MASK_ALPHA = 0.38
PANEL_ALPHA = 0.78
PANEL: Color = (34, 28, 26)
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
MAX_LETTERS = 40  # of one finding; hostile or long-winded names must not fill the picture
TAG_SHARE = 0.3  # of the picture, for all tags together
FREE = 3.0  # letters' squares: a place that hides less is taken, for it hides a little of another head at most


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
        _draw_tags(picture, order[::-1], labels, font_size or _font_size(picture, len(order)))
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


# Tags ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """What the tags of one picture share: font, its size in pixels, and the most that a tag may cover."""

    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    size: int
    line: int  # height of a line in pixels
    area: float  # pixels that one tag may cover
    width: int  # pixels that one tag may be wide
    measured: dict[str, int] = field(default_factory=dict, repr=False)  # a label is measured once, not once a person

    @property
    def pad(self) -> int:
        """Pixels between the text and the tag's edge."""
        return max(2, round(self.size * 0.35))

    def measure(self, text: str) -> int:
        """The text's width in pixels."""
        if text not in self.measured:
            self.measured[text] = math.ceil(self.font.getlength(text))
        return self.measured[text]


def _draw_tags(picture: Pixels, persons: Sequence[Person], labels: Sequence[str] | None, size: int) -> None:
    """Lay a tag beside each person: the longest that finds a free place, else the one that hides least."""
    height, width = picture.shape[:2]
    font = ImageFont.load_default(size)
    line = math.ceil(size * 1.25)
    style = Style(font, size, line, TAG_SHARE * height * width / max(len(persons), 4), width)
    boxes = [_rect(person, picture) for person in persons]
    taken: list[Rect] = []
    for place, person in enumerate(persons):
        others = boxes[:place] + boxes[place + 1 :]
        best: tuple[float, Rect, tuple[str, ...]] | None = None
        for lines in _variants(person, labels, style, boxes[place]):
            hidden, rect = _best_place(_extent(lines, style), boxes[place], taken, others, (height, width), size)
            if best is None or hidden < best[0]:
                best = hidden, rect, lines
            if hidden < FREE:
                break
        if best is not None:
            taken.append(best[1])
            _lay(picture, _render(best[2], color_of(person.index), style), best[1])


def _variants(person: Person, labels: Sequence[str] | None, style: Style, box: Rect) -> Iterator[tuple[str, ...]]:
    """What the tag may say, line by line, from the most to the least: ever fewer findings, title only, number only."""
    number = str(person.index)
    title = number if person.score is None else f"{number}  {person.score:.2f}"
    told = [attribute.finding() for attribute in person if labels is None or attribute.label in labels]
    texts = [_shortened(": ".join(filter(None, finding))) for finding in told if finding is not None]
    room = min(max(box[2] - box[0], 9 * style.size), 15 * style.size, style.width) - 2 * style.pad
    keep = len(texts)
    while keep:
        rest = [f"+{len(texts) - keep}"] if keep < len(texts) else []
        lines = (title, *_wrap(texts[:keep] + rest, room, style))
        width, height = _extent(lines, style)
        if width * height <= style.area:
            yield lines
            keep //= 2
        else:
            keep -= 1
    yield (title,)
    yield (number,)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 3] + "..."


def _wrap(texts: Sequence[str], room: int, style: Style) -> list[str]:
    """The texts, joined by commas, in lines of at most `room` pixels; a text too wide for one has its own line."""
    lines: list[str] = []
    used = 0
    for text in texts:
        wide = style.measure(text)
        more = used + style.measure(", ") + wide
        if lines and more <= room:
            lines[-1] += f", {text}"
            used = more
        else:
            lines.append(text)
            used = wide
    return lines


def _extent(lines: Sequence[str], style: Style) -> tuple[int, int]:
    """(width, height) in pixels of a tag with these lines."""
    foot = style.pad if len(lines) > 1 else 0
    return max(style.measure(line) for line in lines) + 2 * style.pad, len(lines) * style.line + foot


def _head(box: Rect) -> Rect:
    """Where the head may be: the middle of the box's upper fifth. A tag should not hide it."""
    x1, y1, x2, y2 = box
    return x1 + (x2 - x1) // 5, y1, x2 - (x2 - x1) // 5, y1 + math.ceil((y2 - y1) / 5)


def _overlap(one: Rect, other: Rect) -> int:
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0) * max(high, 0)


def _best_place(
    extent: tuple[int, int],
    box: Rect,
    taken: Sequence[Rect],
    others: Sequence[Rect],
    size: tuple[int, int],
    letter: int,
) -> tuple[float, Rect]:
    """The best place at or in the box for a tag, inside the picture, and how much it hides.

    Hidden is counted in letters' squares: tags twice, heads once. Between places, other persons' bodies count a
    little too, and a letter's width of distance from the box as much as a letter's square of a head.
    """
    (wide, high), (x1, y1, x2, y2) = extent, box
    corners = (
        (x1, y1 - high),
        (x2 - wide, y1 - high),
        (x2, y1),
        (x1 - wide, y1),
        (x1, y2 - high),
        (x1, y2),
        (x2 - wide, y2 - high),
        (x2, y2 - high),
        (x1 - wide, y2 - high),
        (x1, (y1 + y2 - high) // 2),
        (x1, y1),
    )
    heads = [_head(other) for other in others]
    places: list[tuple[float, int, float, Rect]] = []
    for rank, (left, top) in enumerate(corners):
        x, y = max(min(left, size[1] - wide), 0), max(min(top, size[0] - high), 0)
        rect = (x, y, x + wide, y + high)
        hidden = (
            2 * sum(_overlap(rect, tag) for tag in taken) + sum(_overlap(rect, head) for head in heads)
        ) / letter**2
        bodies = 0.05 * sum(_overlap(rect, other) for other in others) / letter**2
        distance = (abs(x - left) + abs(y - top)) / letter
        places.append((hidden + bodies + distance + 0.1 * rank, rank, hidden, rect))
    _, _, hidden, rect = min(places)
    return hidden, rect


def _render(lines: Sequence[str], color: Color, style: Style) -> npt.NDArray[np.float32]:
    """The tag, float32[h, w, 4]: BGR 0..255 and opacity 0..1. Title on the colour, the rest on a dark panel."""
    wide, high = _extent(lines, style)
    letters = Image.new("L", (wide, high), 0)
    pen = ImageDraw.Draw(letters)
    foot = style.pad // 2  # half of it above the findings, half below
    for row, text in enumerate(lines):
        middle = row * style.line + style.line / 2 + (foot if row else 0)
        pen.text((style.pad, middle), text, fill=255, font=style.font, anchor="lm")
    corner = Image.new("L", (wide * 4, high * 4), 0)  # drawn fourfold and reduced: smooth edges
    ImageDraw.Draw(corner).rounded_rectangle((0, 0, wide * 4 - 1, high * 4 - 1), radius=style.pad * 3, fill=255)
    shape = np.asarray(corner.resize((wide, high), Image.Resampling.BOX), np.float32) / 255.0

    tag = np.empty((high, wide, 4), np.float32)
    tag[..., :3], tag[..., 3] = PANEL, PANEL_ALPHA
    tag[: style.line, :, :3], tag[: style.line, :, 3] = color, 1.0
    ink = np.full((high, 1, 3), 255.0, np.float32)
    ink[: style.line] = (20.0, 16.0, 16.0) if _luminance(color) > 120 else 255.0
    stroke = np.asarray(letters, np.float32)[..., None] / 255.0
    tag[..., :3] += (ink - tag[..., :3]) * stroke
    tag[..., 3:] += (1.0 - tag[..., 3:]) * stroke
    tag[..., 3] *= shape
    return tag


def _luminance(color: Color) -> float:
    return 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2]


def _lay(picture: Pixels, tag: npt.NDArray[np.float32], rect: Rect) -> None:
    """Blend the tag into the picture at `rect`; what reaches past the picture is cut off."""
    view = picture[rect[1] : rect[3], rect[0] : rect[2]]
    part = tag[: view.shape[0], : view.shape[1]]
    view[...] = (view + (part[..., :3] - view) * part[..., 3:] + 0.5).astype(np.uint8)
