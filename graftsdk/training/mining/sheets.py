"""Contact sheets of clusters: whole images in rows of twelve, for a person to judge what was kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.drawing.lettering import Lettering
from graftsdk.drawing.pictures import write_picture
from graftsdk.errors import GraftError
from graftsdk.preprocess import decode_image
from graftsdk.text import counted, one_line
from graftsdk.training.mining.mined import Mined
from graftsdk.training.mining.report import MiningReport
from graftsdk.training.mining.selection import Decision

__all__ = ["crop_sheet", "draw_sheets"]

Pixels = npt.NDArray[np.uint8]
Group = tuple[str, Sequence[Path]]  # what they are, and they

SHOWN = 12  # crops of each group
_LIKE = 512  # positives that single negatives are compared with
_OWN = re.compile(r"(kept|review)-\d{3,}\.jpg|positives\.jpg")
WIDTH = 1600  # pixels
_GAP = 8
_CELL = (240, (WIDTH - _GAP) // SHOWN - _GAP)  # height, width; persons are twice as high as wide
_GROUND, _EMPTY = (30, 26, 24), (66, 62, 60)  # BGR, as on the sheets of predictions
_TITLE, _HEADING, _NAME = Lettering(24), Lettering(17), Lettering(11)


def crop_sheet(title: str, groups: Sequence[Group]) -> Pixels:
    """uint8[H, 1600, 3], BGR: a title, and each group's crops under its heading, twelve a row, names beneath.

    A crop that cannot be read any more has a grey cell.
    """
    parts = [_line(title, _TITLE, 1.0)]
    for heading, paths in groups:
        parts.append(_line(heading, _HEADING, 0.8))
        parts += [_row(paths[start : start + SHOWN]) for start in range(0, len(paths), SHOWN)]
    return np.concatenate(parts)


def draw_sheets(folder: Path, mined: Mined, report: MiningReport, sides: tuple[Sequence[Path], Sequence[Path]]) -> None:
    """Sheets of the positives and of each cluster that is kept whole or for review; those of an earlier run go.

    Args:
        folder: where they are written.
        mined: clusters and rows.
        report: what their titles say.
        sides: paths of positives and negatives, in the order of their features.
    """
    for old in folder.iterdir():
        if _OWN.fullmatch(old.name) and old.is_file() and not old.is_symlink():
            old.unlink()
    rng = np.random.default_rng([int(report.options["seed"]), 5])
    some = [sides[0][index] for index in rng.permutation(len(sides[0]))[: 2 * SHOWN]]
    title = f"{report.label}: {counted(report.positives, 'positive')} ({report.positive})"
    write_picture(folder / "positives.jpg", crop_sheet(title, [("drawn at random", some)]))
    sample = mined.reduced.positives[np.sort(rng.permutation(report.positives)[:_LIKE])]
    for row in mined.rows:
        if row.decision is Decision.THINNED:
            continue
        members = np.flatnonzero(mined.clusters.labels == row.cluster)
        central, like = _typical(mined, members, row.cluster, sample)
        title = (
            f"{report.label}, cluster {row.cluster}, {row.decision.value}: {counted(row.size, 'negative')}, EMD "
            f"{row.emd:.4g} ± {row.spread:.2g} (floor {report.floor:.4g}), similarity {row.similarity:.2f}"
        )
        groups = [
            ("in the middle of the cluster", [sides[1][index] for index in central]),
            ("most like a positive", [sides[1][index] for index in like]),
        ]
        write_picture(folder / f"{row.decision.value}-{row.rank:03d}.jpg", crop_sheet(title, groups))


def _line(text: str, letters: Lettering, bright: float) -> Pixels:
    strip: Pixels = np.full((letters.line + _GAP, WIDTH, 3), _GROUND, np.uint8)
    _write(strip, letters.shortened(one_line(text), WIDTH - 2 * _GAP), (_GAP, _GAP // 2), letters, bright)
    return strip


def _row(paths: Sequence[Path]) -> Pixels:
    height, width = _CELL
    strip: Pixels = np.full((height + _NAME.line + _GAP, WIDTH, 3), _GROUND, np.uint8)
    for place, path in enumerate(paths):
        left = _GAP + place * (width + _GAP)
        strip[:height, left : left + width] = _cell(path)
        _write(strip, _NAME.shortened(one_line(path.name), width), (left, height), _NAME, 0.65)
    return strip


def _cell(path: Path) -> Pixels:
    """The image as large as it fits, in the middle."""
    cell: Pixels = np.full((*_CELL, 3), _GROUND, np.uint8)
    try:
        image = decode_image(path)
    except GraftError:  # the lists stand; what it shows is for people
        cell[:] = _EMPTY
        return cell
    scale = min(_CELL[0] / image.shape[0], _CELL[1] / image.shape[1])
    size = [max(1, round(side * scale)) for side in image.shape[:2]]
    top, left = ((whole - side) // 2 for whole, side in zip(_CELL, size, strict=True))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cell[top : top + size[0], left : left + size[1]] = cv2.resize(image, (size[1], size[0]), interpolation=way)
    return cell


def _write(picture: Pixels, text: str, at: tuple[int, int], letters: Lettering, bright: float) -> None:
    """White letters of this brightness, their upper left corner `at` (x, y)."""
    ink = letters.ink(text)
    view = picture[at[1] : at[1] + ink.shape[0], at[0] : at[0] + ink.shape[1]]
    part = ink[: view.shape[0], : view.shape[1], None] * np.float32(bright / 255.0)
    view[...] = (view + (255.0 - view) * part + 0.5).astype(np.uint8)


def _typical(
    mined: Mined, members: npt.NDArray[np.int64], cluster: int, positives: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of the cluster's members, those nearest to its centre and those nearest to any of the positives."""
    from sklearn.metrics import pairwise_distances_argmin_min

    rows = mined.reduced.negatives[members]
    to_centre = np.linalg.norm(rows - mined.clusters.centres[cluster], axis=1)
    to_positives = pairwise_distances_argmin_min(rows, positives)[1]
    return tuple(members[np.argsort(each, kind="stable")[:SHOWN]] for each in (to_centre, to_positives))  # type: ignore[return-value]
