"""The folder that `graftsdk crop` fills: pictures under names that never collide, their index, a contact sheet."""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graftsdk.attribute import shortest
from graftsdk.cli.saving import Chosen, picture_paths
from graftsdk.cli.sources import Source
from graftsdk.drawing.pictures import write_picture
from graftsdk.errors import InputError
from graftsdk.files import atomic_write, check_target
from graftsdk.prediction import Person, Prediction
from graftsdk.preprocess.cutout import Cutout
from graftsdk.sheet import save_contact_sheet

__all__ = ["COLUMNS", "Crop", "CropFolder"]

INDEX, SHEET = "index.csv", "contact_sheet.jpg"
COLUMNS = (
    *("crop", "source", "frame", "x0", "y0", "x1", "y1", "score", "mask_area"),
    *("left", "top", "width", "height", "truncated"),
)

LONGEST = 180  # bytes of a name, before numbers and suffix are added; file systems take 255
INDEX_SECONDS = 10.0  # how much work a killed process may leave without its rows
INDEX_SHARE = 20  # the index is written again after so many times what it took


@dataclass(frozen=True)
class Crop:
    """One person that was cut out: a row of the index.

    Attributes:
        name: its file's, "" until it has one. source: the image's or video's path. frame: of a video, else None.
        box: float32 values, xyxy in pixels of the source. score: the segmenter's. mask_area: pixels that are covered.
        left, top: where the picture begins in the source. width, height: of the picture, pixels.
        truncated: the image had more persons than were taken.
    """

    name: str
    source: str
    frame: int | None
    box: tuple[float, float, float, float]
    score: float
    mask_area: int
    left: int
    top: int
    width: int
    height: int
    truncated: bool

    def row(self) -> str:
        """The line of the index, with its end."""
        text = io.StringIO(newline="")
        corners = map(shortest, self.box)
        place = (self.left, self.top, self.width, self.height, int(self.truncated))
        csv.writer(text).writerow(
            (self.name, self.source, self.frame, *corners, shortest(self.score), self.mask_area, *place)
        )
        # Written with csv's own "\r\n": with another end it would not quote a name with a "\r" in it.
        return text.getvalue().removesuffix("\r\n") + "\n"


class CropFolder:
    """Writes crops, each whole or not at all, and at the end an index of them and a picture of some.

    Args:
        folder: it is made where it is missing.
        sources: what is read; never in the same folder.
        overwrite: the crops of an earlier index are removed.

    Raises:
        InputError: a folder that cannot be made or written, in which a source is, or which has crops already.
        PlanPathError: a link, a folder or the like in the index's place.
    """

    def __init__(self, folder: str, sources: Sequence[Source], *, overwrite: bool) -> None:
        self.path = Path(folder)
        if any(isinstance(each.place, Path) and each.place.parent.resolve() == self.path.resolve() for each in sources):
            raise InputError(f"-o {folder}: expected another folder than the sources', where crops would be read again")
        picture_paths((), folder)  # makes the folder, and a file in it to see that it can
        for name in (INDEX, SHEET):
            check_target(self.path / name)
        self._earlier = _earlier_crops(self.path)
        if not overwrite and (self._earlier or (self.path / SHEET).exists()):
            raise InputError(
                f"-o {folder}: expected a folder without crops, found an {INDEX} or {SHEET} in it; name another, or "
                f"replace them with --overwrite"
            )
        self._taken: set[str] = set()
        self._lines: list[str] = []
        self._written = (0.0, 0.0)  # when the index was written the last time, and how long it took
        self._chosen = Chosen()

    def begin(self) -> None:
        """Remove what is to be replaced; from here on there is an index, which is true."""
        for path in (*self._earlier, self.path / SHEET):
            path.unlink(missing_ok=True)
        # What is there and ours no more, or never was, is not replaced: its name counts as given.
        names = (path.name for path in self.path.iterdir())
        self._taken = {name.rpartition("_")[0].casefold() for name in names if name.lower().endswith(".png")}
        self._save_index()

    def name(self, source: Source, frame: int | None) -> str:
        """What the names of an image's or frame's crops begin with; no other's begin so, whatever the letters' case."""
        own = source.place.stem if isinstance(source.place, Path) else re.sub(r"[^\w.-]+", "-", source.name)
        while len(os.fsencode(own)) > LONGEST:
            own = own[:-1]
        stem = own if frame is None else f"{own}_{frame:06d}"
        found, count = stem, 1
        while found.casefold() in self._taken:
            count += 1
            found = f"{stem}-{count}"
        self._taken.add(found.casefold())
        return found

    def add(self, crop: Crop, cutout: Cutout) -> int:
        """Write one crop; its file's bytes."""
        path, before = self.path / crop.name, len(self._lines)
        try:
            self._lines.append(crop.row())
            write_picture(path, cutout.pixels)
        finally:
            del self._lines[before + path.exists() :]  # an interrupt may come right after the file is there
        x0, y0, x1, y1 = crop.box
        box = (x0 - crop.left, y0 - crop.top, x1 - crop.left, y1 - crop.top)
        person = Person(0, box, crop.score, {}, cutout.mask)
        self._chosen.offer(Prediction((person,), cutout.pixels[:, :, :3], crop.name))
        when, took = self._written
        if time.monotonic() - when > max(INDEX_SECONDS, INDEX_SHARE * took):
            self._save_index()
        return path.stat().st_size

    def finish(self) -> None:
        """Write the index and, where there are crops, the contact sheet."""
        self._save_index()
        if self._chosen.items:
            save_contact_sheet(self.path / SHEET, self._chosen.items)

    def _save_index(self) -> None:
        started = time.monotonic()
        head = ",".join(COLUMNS) + "\n"
        with atomic_write(self.path / INDEX) as file:
            for line in (head, *self._lines):
                file.write(line.encode("utf-8", "surrogateescape"))  # a path that is not UTF-8 stays the path it is
        self._written = (time.monotonic(), time.monotonic() - started)


def _earlier_crops(folder: Path) -> list[Path]:
    """The pictures that an index in the folder lists. Raises InputError: an index that is none of ours."""
    index = folder / INDEX
    try:
        with index.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            ours = tuple(reader.fieldnames or ()) == COLUMNS
            names = [row["crop"] for row in reader] if ours else []
    except FileNotFoundError:
        return []
    except (OSError, csv.Error):
        ours, names = False, []
    if not ours:
        raise InputError(
            f"{index}: expected an index that graftsdk crop wrote, found another file; name another folder"
        )
    # Files of the folder itself only, whatever the index says by now.
    own = [folder / name for name in names if name == Path(name).name and name.endswith(".png")]
    return [path for path in own if path.is_file() and not path.is_symlink()]
