"""Many predictions in one picture: a grid of cells, what they are beneath."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.drawing.arguments import MAX_SIDE, label_names
from graftsdk.drawing.lettering import Lettering
from graftsdk.drawing.pictures import check_suffix, write_picture
from graftsdk.errors import GraftError, InputError
from graftsdk.prediction import Prediction
from graftsdk.text import counted, one_line

__all__ = ["contact_sheet", "save_contact_sheet"]

Pixels = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

GROUND: Color = (30, 26, 24)
FAILED: Color = (66, 62, 60)
NAME, DETAIL = 1.0, 0.65  # how bright
LEAST_CELL = 48  # pixels; narrower ones show nothing
GOOD_CELL = 220  # pixels; narrower ones hold no tag: reached before columns become more
TALLEST = 1.25  # a cell's picture to its width; taller pictures are fitted in
CLOCK = 1e8  # seconds; what is later is Unix time (1973), not a place in a file (three years of film)

Item = Prediction | GraftError


def contact_sheet(
    predictions: Iterable[Item],
    *,
    columns: int | None = None,
    width: int = 1600,
    labels: Sequence[str] | None = None,
    masks: bool = True,
    boxes: bool = True,
    tags: bool = True,
) -> Pixels:
    """Many predictions in one picture, uint8[H, width, 3], BGR: each as large as its cell, name and count beneath.

    Args:
        predictions: in the order of reading. A `GraftError` among them (`predict(..., errors="return")`) has a cell
            that says why there is no picture. All are held at once.
        columns: cells a row; None fits them to their number.
        width: of the picture in pixels, at most 16384; its height follows.
        labels, masks, boxes, tags: as in `Prediction.plot`; labels that one prediction lacks are left out in it.

    Raises:
        InputError: nothing to show, something else than predictions, a label that none of them has, columns or width
            that are no whole numbers, or more columns than the width has room for.
    """
    items = list(predictions)
    if not items:
        raise InputError("expected one prediction or more, found none; an empty sheet shows nothing")
    for place, item in enumerate(items):
        if not isinstance(item, Prediction | GraftError):
            raise InputError(f"item {place}: expected a Prediction or a GraftError, found {type(item).__name__}")
    known = [item.labels for item in items if isinstance(item, Prediction)]
    names = label_names(labels, list(dict.fromkeys(chain.from_iterable(known))) if known else None)
    grid = _grid(len(items), columns, width)
    shown = [_Shown(names, masks, boxes, tags).picture(item, grid) for item in items]
    rows = [shown[start : start + grid.columns] for start in range(0, len(items), grid.columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    caption = 2 * grid.letters.line + grid.gap // 2
    sheet = np.full((sum(heights) + len(rows) * (caption + grid.gap) + grid.gap, grid.width, 3), GROUND, np.uint8)
    top = grid.gap
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for column, picture in enumerate(row):
            place = number * grid.columns + column
            left = grid.gap + column * (grid.cell + grid.gap)
            sheet[top + height - picture.shape[0] : top + height, left : left + picture.shape[1]] = picture
            for line, (text, bright) in enumerate(_caption(items[place], place)):
                at = top + height + grid.gap // 2 + line * grid.letters.line
                _write(sheet, grid.letters.shortened(text, grid.cell), left, at, bright, grid.letters)
        top += height + caption + grid.gap
    return sheet


def save_contact_sheet(path: str | os.PathLike[str], predictions: Iterable[Item], **options: Any) -> None:
    """Write `contact_sheet(predictions, **options)` to a picture file, as `Prediction.save` does.

    Raises:
        InputError: as `contact_sheet` and `Prediction.save`. PlanPathError: a path that must not be written.
    """
    target = check_suffix(path)
    write_picture(target, contact_sheet(predictions, **options))


@dataclass(frozen=True)
class _Grid:
    """How the sheet is divided; all in pixels but `columns`."""

    width: int
    columns: int
    cell: int
    gap: int
    letters: Lettering


def _grid(count: int, columns: int | None, width: int) -> _Grid:
    width = whole_number("width", width, 1, MAX_SIDE)
    if columns is not None:
        columns = whole_number("columns", columns, 1, MAX_SIDE)
    else:
        columns = max(1, min(math.ceil(math.sqrt(count)), width // GOOD_CELL))
    gap = max(6, width // 160)
    cell = (width - gap) // columns - gap
    if cell < LEAST_CELL:
        raise InputError(
            f"expected one column or more of at least {LEAST_CELL} pixels, found {columns} in a width of {width}"
        )
    # As a page's type: it grows slower than what it stands beneath, until the whole is looked at from further away.
    size = max(10.0, 0.7 * math.sqrt(cell), 0.0175 * cell)
    return _Grid(width, columns, cell, gap, Lettering(round(size)))


@dataclass(frozen=True)
class _Shown:
    labels: Sequence[str] | None
    masks: bool
    boxes: bool
    tags: bool

    def picture(self, item: Item, grid: _Grid) -> Pixels:
        """The cell's picture, as large as fits into the cell."""
        if isinstance(item, GraftError):
            return _reason(item, grid)
        height, width = item.size
        scale = min(grid.cell / width, TALLEST * grid.cell / height)
        labels = None if self.labels is None else [label for label in self.labels if label in item.labels]
        side = max(1, int(max(height, width) * scale + 1e-6))
        return item.plot(labels=labels, masks=self.masks, boxes=self.boxes, tags=self.tags, side=side)


def _reason(error: GraftError, grid: _Grid) -> Pixels:
    """A grey cell that says what the error says."""
    letters, room = grid.letters, grid.cell - 2 * grid.gap
    cell: Pixels = np.full((round(0.6 * grid.cell), grid.cell, 3), FAILED, np.uint8)
    lines = letters.wrapped(one_line(str(error)), room, max((cell.shape[0] - 2 * grid.gap) // letters.line, 1))
    top = (cell.shape[0] - len(lines) * letters.line) // 2
    for number, line in enumerate(lines):
        _write(cell, line, (grid.cell - letters.width(line)) // 2, top + number * letters.line, NAME, letters)
    return cell


def _caption(item: Item, place: int) -> tuple[tuple[str, float], tuple[str, float]]:
    """((text, brightness), (text, brightness)): what it is, and what is in it."""
    if isinstance(item, GraftError):
        return (one_line(Path(item.source or f"image {place}").name), NAME), (item.code, DETAIL)
    name = Path(item.source).name if item.source else ""
    details = []
    if item.frame is not None:
        details.append(f"frame {item.frame}")
    if item.timestamp is not None:
        details.append(_moment(item.timestamp))
    details.append(counted(len(item), "person") + (" or more" if item.truncated else ""))
    return (one_line(name or f"image {place}"), NAME), (" · ".join(details), DETAIL)


def _moment(seconds: float) -> str:
    """As in 0:01:04.25, or 2031-05-06 07:08:09 UTC for what is Unix time."""
    if seconds >= CLOCK:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    hundredths = round(seconds * 100)
    return f"{hundredths // 360000}:{hundredths // 6000 % 60:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def _write(picture: Pixels, text: str, left: int, top: int, bright: float, letters: Lettering) -> None:
    """Write a line in white of this brightness; what reaches past the picture is cut off."""
    ink = letters.ink(text)
    view = picture[max(top, 0) : top + ink.shape[0], max(left, 0) : left + ink.shape[1]]
    part = ink[: view.shape[0], : view.shape[1], None] * np.float32(bright / 255.0)
    view[...] = (view + (255.0 - view) * part + 0.5).astype(np.uint8)
