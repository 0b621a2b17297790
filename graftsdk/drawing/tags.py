"""Tags beside persons: what each may say, where it hides least, and its pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.drawing.lettering import Lettering

__all__ = ["Color", "Finding", "Pixels", "Rect", "Tag", "draw_tags"]

Pixels = npt.NDArray[np.uint8]
Rect = tuple[int, int, int, int]  # x0, y0, x1, y1, half-open
Color = tuple[int, int, int]  # BGR
Finding = tuple[str, str]  # question and answer; a yes is its question alone
Run = tuple[str, float]  # letters and how bright they are
Line = tuple[Run, ...]

PANEL: Color = (34, 28, 26)
PANEL_ALPHA = 0.78
BRIGHT, DIM = 1.0, 0.7  # answers stand out from their questions
BETWEEN: Run = (" · ", DIM)
MAX_LETTERS = 40  # of a question and of an answer; hostile or long-winded names must not fill the picture
TAG_SHARE = 0.3  # of the picture, for all tags together
# What a tag hides, in letters' squares, weighed: another tag's words are lost, a head is what one looks for, and a body
# may be hidden in part, the person's own too, but not most of it. Chosen on photographs of 1 to 80 persons.
TAGS, HEADS, BODIES = 8.0, 1.0, 0.1
WHOLE = 4.0  # for a body that is hidden wholly, its share for one in part
FREE = 4.0  # a place that hides less is taken
LOST = 8.0  # the shortest tag that hides more than this, a letter of another, is left out


@dataclass(frozen=True)
class Tag:
    """What there is to say beside one person.

    Attributes:
        number: of the person, the least that a tag says; empty where there is no other person.
        title: number and score; empty where there is neither.
        findings: what was decided, the most that a tag says.
        box: the person's, in pixels of the picture. color: of the title's ground.
    """

    number: str
    title: str
    findings: tuple[Finding, ...]
    box: Rect
    color: Color


@dataclass(frozen=True)
class _Words:
    """What one tag says: a title that may be empty, and lines below it."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class _Style:
    """What the tags of one picture share."""

    letters: Lettering
    area: float  # pixels that one tag may cover
    width: int  # of the picture

    @property
    def pad(self) -> int:
        """Pixels between the text and the tag's edge."""
        return max(2, round(self.letters.size * 0.4))

    def measure(self, line: Line) -> int:
        return sum(self.letters.width(text) for text, _ in line)

    def extent(self, words: _Words) -> tuple[int, int]:
        """(width, height) in pixels of the tag."""
        lines = [*([((words.title, BRIGHT),)] if words.title else []), *words.lines]
        foot = self.pad if words.lines else 0
        return max(map(self.measure, lines)) + 2 * self.pad, len(lines) * self.letters.line + foot


def draw_tags(picture: Pixels, tags: Sequence[Tag], size: int) -> None:
    """Lay a tag beside each person, in this order: the longest that finds a free place, else what hides least.

    Where even a number would hide another tag, there is none.

    Args:
        picture: uint8[H, W, 3], BGR; is drawn on.
        tags: one for each person; who comes first chooses first.
        size: of the font, in pixels.
    """
    height, width = picture.shape[:2]
    style = _Style(Lettering(size), TAG_SHARE * height * width / max(len(tags), 2), width)
    boxes = np.array([tag.box for tag in tags], np.int64).reshape(-1, 4)
    ground = _Ground((height, width), boxes, _heads(boxes), size)
    for place, tag in enumerate(tags):
        best: tuple[float, Rect, _Words] | None = None
        for words in _variants(tag, style):
            hidden, rect = ground.best_place(style.extent(words), place)
            if best is None or hidden < best[0]:
                best = hidden, rect, words
            if hidden < FREE:
                break
        if best is not None and best[0] < LOST:
            ground.take(best[1])
            _lay(picture, _render(best[2], tag.color, style), best[1])


def _variants(tag: Tag, style: _Style) -> Iterator[_Words]:
    """What the tag may say, from the most to the least: ever fewer findings, title only, number only."""
    findings = [_runs(finding) for finding in tag.findings]
    size = style.letters.size
    room = min(max(tag.box[2] - tag.box[0], 12 * size), 20 * size, style.width) - 2 * style.pad
    keep = len(findings)
    while keep:
        rest: list[Line] = [((f"+{len(findings) - keep}", DIM),)] if keep < len(findings) else []
        words = _Words(tag.title, tuple(_wrap([*findings[:keep], *rest], room, style)))
        wide, high = style.extent(words)
        if wide * high <= style.area and wide <= style.width:
            yield words
            keep //= 2
        else:
            keep -= 1
    for title in dict.fromkeys(filter(None, (tag.title, tag.number))):
        yield _Words(title, ())


def _runs(finding: Finding) -> Line:
    question, answer = (_shortened(text) for text in finding)
    return ((f"{question}  ", DIM), (answer, BRIGHT)) if answer else ((question, BRIGHT),)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 1] + "…"


def _wrap(findings: Sequence[Line], room: int, style: _Style) -> list[Line]:
    """The findings in lines of at most `room` pixels; one too wide for that has a line of its own."""
    lines: list[Line] = []
    for finding in findings:
        if lines and style.measure((*lines[-1], BETWEEN, *finding)) <= room:
            lines[-1] = (*lines[-1], BETWEEN, *finding)
        else:
            lines.append(finding)
    return lines


def _heads(boxes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where heads may be: the middle of each box's upper fifth."""
    x0, y0, x1, y1 = boxes.T
    side = (x1 - x0) // 5
    return np.stack([x0 + side, y0, x1 - side, y0 - (y0 - y1) // 5], axis=1)


def _overlaps(rects: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64[R, O]: the pixels that each of `rects` [R, 4] and each of `others` [O, 4] share."""
    one, other = rects[:, None], others[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared: npt.NDArray[np.int64] = np.maximum(sides, 0).prod(axis=2)
    return shared


class _Ground:
    """What stands in the picture already, and the places that are left.

    Args:
        size: (height, width) of the picture. letter: the font's size.
        boxes: int64[N, 4]. heads: int64[N, 4].
    """

    def __init__(
        self, size: tuple[int, int], boxes: npt.NDArray[np.int64], heads: npt.NDArray[np.int64], letter: int
    ) -> None:
        self.size, self.boxes, self.heads, self.letter = size, boxes, heads, letter
        self.areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        self._taken = np.empty((len(boxes), 4), np.int64)
        self._count = 0

    def take(self, rect: Rect) -> None:
        """A tag stands there now."""
        self._taken[self._count] = rect
        self._count += 1

    def best_place(self, extent: tuple[int, int], person: int) -> tuple[float, Rect]:
        """The best place at or in the person's box for a tag, inside the picture, and how much it hides.

        Between places, distance from the box counts too: a letter's width as much as a letter's square of a head.
        """
        wide, high = extent
        x0, y0, x1, y1 = (int(value) for value in self.boxes[person])
        asked = np.array(
            [
                (x0, y0 - high),  # above
                (x1 - wide, y0 - high),
                (x1, y0),  # beside
                (x0 - wide, y0),
                (x0, y1),  # below
                (x1 - wide, y1),
                (x1, y1 - high),
                (x0 - wide, y1 - high),
                (x1, (y0 + y1 - high) // 2),
                (x0 - wide, (y0 + y1 - high) // 2),
                (x0, y1 - high),  # inside
                (x1 - wide, y1 - high),
                ((x0 + x1 - wide) // 2, y1 - high),
                (x0, (y0 + y1 - high) // 2),
                (x0, y0),
            ],
            np.int64,
        )
        room = np.array([max(self.size[1] - wide, 0), max(self.size[0] - high, 0)])
        corners = np.clip(asked, 0, room)
        rects = np.concatenate([corners, corners + (wide, high)], axis=1)
        around = np.concatenate([corners.min(axis=0), corners.max(axis=0) + (wide, high)])[None]
        near = np.flatnonzero(_overlaps(around, self.boxes)[0])  # few of a crowd
        bodies = _overlaps(rects, self.boxes[near])
        share = (bodies / self.areas[near]).sum(axis=1)
        others = bodies[:, near != person].sum(axis=1)
        heads = _overlaps(rects, self.heads[near]).sum(axis=1)
        tags = _overlaps(rects, self._taken[: self._count]).sum(axis=1)
        hidden = (TAGS * tags + HEADS * heads + BODIES * others) / self.letter**2 + WHOLE * share
        distance = np.abs(corners - asked).sum(axis=1) / self.letter
        best = int(np.argmin(hidden + distance + 0.1 * np.arange(len(asked))))
        left, top, right, bottom = (int(value) for value in rects[best])
        return float(hidden[best]), (left, top, right, bottom)


def _render(words: _Words, color: Color, style: _Style) -> npt.NDArray[np.float32]:
    """The tag, float32[h, w, 4]: BGR 0..255 and opacity 0..1. Title on the colour, the rest on a dark panel."""
    (wide, high), line = style.extent(words), style.letters.line
    tag = np.empty((high, wide, 4), np.float32)
    tag[..., :3], tag[..., 3] = PANEL, PANEL_ALPHA
    top = 0
    if words.title:
        tag[:line, :, :3], tag[:line, :, 3] = color, 1.0
        dark = (20.0, 16.0, 16.0)
        _write(tag, ((words.title, BRIGHT),), 0, dark if _reads_dark(color) else (255.0, 255.0, 255.0), style)
        top = line
    for row, text in enumerate(words.lines):
        _write(tag, text, top + row * line + style.pad // 2, (255.0, 255.0, 255.0), style)
    tag[..., 3] *= _rounded(wide, high, max(1, round(style.pad * 0.75)))
    return tag


def _write(tag: npt.NDArray[np.float32], line: Line, top: int, ink: tuple[float, ...], style: _Style) -> None:
    x = style.pad
    for text, brightness in line:
        stroke = style.letters.ink(text)[..., None].astype(np.float32) * (brightness / 255.0)
        view = tag[top : top + stroke.shape[0], x : x + stroke.shape[1]]
        stroke = stroke[: view.shape[0], : view.shape[1]]
        view[..., :3] += (np.array(ink, np.float32) - view[..., :3]) * stroke
        view[..., 3:] += (1.0 - view[..., 3:]) * stroke
        x += style.letters.width(text)


def _rounded(wide: int, high: int, radius: int) -> npt.NDArray[np.float32]:
    """float32[high, wide]: 1 inside a rectangle with rounded corners, 0 outside, smooth between."""
    across = np.maximum(np.abs(np.arange(wide) + 0.5 - wide / 2) - (wide / 2 - radius), 0.0)
    down = np.maximum(np.abs(np.arange(high) + 0.5 - high / 2) - (high / 2 - radius), 0.0)
    far = np.hypot(across[None], down[:, None])
    shape: npt.NDArray[np.float32] = np.clip(radius + 0.5 - far, 0.0, 1.0).astype(np.float32)
    return shape


def _reads_dark(color: Color) -> bool:
    """Whether dark letters on this colour have more contrast than white ones (WCAG 2.2, relative luminance)."""
    linear = [(value / 255.0 / 12.92) if value <= 10 else ((value / 255.0 + 0.055) / 1.055) ** 2.4 for value in color]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    return (luminance + 0.05) ** 2 > 1.05 * 0.057  # 0.057: of the dark letters, with the 0.05 that the rule adds


def _lay(picture: Pixels, tag: npt.NDArray[np.float32], rect: Rect) -> None:
    """Blend the tag into the picture at `rect`; what reaches past the picture is cut off."""
    view = picture[rect[1] : rect[3], rect[0] : rect[2]]
    part = tag[: view.shape[0], : view.shape[1]]
    view[...] = (view + (part[..., :3] - view) * part[..., 3:] + 0.5).astype(np.uint8)
