"""Tags beside persons: what each may say, where it hides least, and its pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Color", "Pixels", "Rect", "Tag", "draw_tags"]

Pixels = npt.NDArray[np.uint8]
Rect = tuple[int, int, int, int]  # x1, y1, x2, y2, half-open
Color = tuple[int, int, int]  # BGR

PANEL: Color = (34, 28, 26)
PANEL_ALPHA = 0.78
MAX_LETTERS = 40  # of one finding; hostile or long-winded names must not fill the picture
TAG_SHARE = 0.3  # of the picture, for all tags together
FREE = 3.0  # letters' squares: a place that hides less is taken, for it hides a little of another head at most


@dataclass(frozen=True)
class Tag:
    """What there is to say beside one person.

    Attributes:
        number: of the person, the least that a tag says. title: number and score.
        findings: what was decided, the most that a tag says.
        box: the person's, in pixels of the picture. color: of the title's ground.
    """

    number: str
    title: str
    findings: tuple[str, ...]
    box: Rect
    color: Color


@dataclass(frozen=True)
class _Style:
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


def draw_tags(picture: Pixels, tags: Sequence[Tag], size: int) -> None:
    """Lay a tag beside each person, in this order: the longest that finds a free place, else what hides least.

    Args:
        picture: uint8[H, W, 3], BGR; is drawn on.
        tags: one for each person; who comes first chooses first.
        size: of the font, in pixels.
    """
    height, width = picture.shape[:2]
    font = ImageFont.load_default(size)
    line = math.ceil(size * 1.25)
    style = _Style(font, size, line, TAG_SHARE * height * width / max(len(tags), 4), width)
    taken: list[Rect] = []
    for place, tag in enumerate(tags):
        others = [other.box for other in (*tags[:place], *tags[place + 1 :])]
        best: tuple[float, Rect, tuple[str, ...]] | None = None
        for lines in _variants(tag, style):
            hidden, rect = _best_place(_extent(lines, style), tag.box, taken, others, (height, width), size)
            if best is None or hidden < best[0]:
                best = hidden, rect, lines
            if hidden < FREE:
                break
        if best is not None:
            taken.append(best[1])
            _lay(picture, _render(best[2], tag.color, style), best[1])


def _variants(tag: Tag, style: _Style) -> Iterator[tuple[str, ...]]:
    """What the tag may say, line by line, from the most to the least: ever fewer findings, title only, number only."""
    texts = [_shortened(finding) for finding in tag.findings]
    room = min(max(tag.box[2] - tag.box[0], 9 * style.size), 15 * style.size, style.width) - 2 * style.pad
    keep = len(texts)
    while keep:
        rest = [f"+{len(texts) - keep}"] if keep < len(texts) else []
        lines = (tag.title, *_wrap(texts[:keep] + rest, room, style))
        width, height = _extent(lines, style)
        if width * height <= style.area:
            yield lines
            keep //= 2
        else:
            keep -= 1
    yield (tag.title,)
    yield (tag.number,)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 3] + "..."


def _wrap(texts: Sequence[str], room: int, style: _Style) -> list[str]:
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


def _extent(lines: Sequence[str], style: _Style) -> tuple[int, int]:
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


def _render(lines: Sequence[str], color: Color, style: _Style) -> npt.NDArray[np.float32]:
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
