"""Where `graftsdk predict` saves pictures, under names that never collide, and which of them a sheet shows."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from graftsdk.cli.sources import Source
from graftsdk.drawing.pictures import PICTURES, check_suffix
from graftsdk.errors import GraftError, InputError
from graftsdk.files import check_target
from graftsdk.prediction import Prediction
from graftsdk.text import public_name, reason

__all__ = ["Chosen", "check_sheet", "picture_paths"]

MOST_CHOSEN = 48  # pictures on a contact sheet; more of them, and none can be recognised
MOST_BYTES = 512 * 2**20  # of their pixels, which wait for the end


def picture_paths(sources: Sequence[Source], folder: str | None) -> dict[Source, Path]:
    """Source -> its picture's path: its own name, numbered where two share one; videos and live sources as .mp4.

    A name goes to the file that has it already, before one that would get it: of `clip.avi` and `clip.mp4` the second
    keeps its name. The folder is made.

    Raises:
        InputError: `folder` is one that a source is in, or cannot be made or written.
        PlanPathError: a folder, a link or the like has a picture's name.
    """
    if folder is None:
        return {}
    target = Path(folder)
    files = [source.place for source in sources if isinstance(source.place, Path)]
    if any(path.parent.resolve() == target.resolve() for path in files):
        raise InputError(f"-o {folder}: expected another folder than the sources', or pictures replace their originals")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"-o {folder}: expected a folder, found a file; name another") from error
    except OSError as error:
        raise InputError(f"-o {folder}: expected a folder that can be made, found: {error.strerror}") from error
    _check_written(target, f"-o {folder}")
    taken: set[str] = set()
    pictures = {}
    own = [each for each in sources if isinstance(each.place, Path) and "".join(_parts(each)) == each.place.name]
    for source in dict.fromkeys([*own, *sources]):
        stem, suffix = _parts(source)
        name, count = f"{stem}{suffix}", 1
        while name.casefold() in taken:
            count += 1
            name = f"{stem}-{count}{suffix}"
        taken.add(name.casefold())
        pictures[source] = target / name
        check_target(target / name)
    return pictures


def check_sheet(path: str, sources: Sequence[Source], pictures: Mapping[Source, Path]) -> Path:
    """Where the contact sheet goes.

    Raises:
        InputError: another suffix than a picture's, the path of a source or of its picture, or a folder that cannot be
            written. PlanPathError: a path that must not be written.
    """
    target = check_suffix(path)
    check_target(target)
    _check_written(target.parent, f"--sheet {path}")
    if any(picture.resolve() == target.resolve() for picture in pictures.values()):
        raise InputError(f"--sheet {path}: expected another file than those of -o, or it replaces one of them")
    for source in sources:
        if isinstance(source.place, Path) and source.place.resolve() == target.resolve():
            raise InputError(f"--sheet {path}: expected another file than the sources, or it replaces one of them")
    return target


class Chosen:
    """Some of many predictions and errors, evenly spread over all: at most `MOST_CHOSEN`, of bounded memory."""

    def __init__(self) -> None:
        self.items: list[Prediction | GraftError] = []
        self._step = 1  # every how many is kept
        self._seen = 0

    def offer(self, item: Prediction | GraftError) -> None:
        """Keep it, or not; where there are too many, let go of every second one."""
        if self._seen % self._step == 0:
            self.items.append(item)
            while len(self.items) > 1 and self._too_many():
                self.items = self.items[::2]
                self._step *= 2
        self._seen += 1

    def _too_many(self) -> bool:
        nbytes = sum(item.image.nbytes for item in self.items if isinstance(item, Prediction))
        return len(self.items) > MOST_CHOSEN or nbytes > MOST_BYTES


def _check_written(folder: Path, option: str) -> None:
    """Refuse a folder in which no file can be made: by making one, as nothing else is sure to tell."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{option}: expected a folder that can be written, found: {reason(error)}") from error


def _parts(source: Source) -> tuple[str, str]:
    """(stem, suffix) of the picture's name."""
    place = source.place
    if isinstance(place, int):
        return f"camera-{place}", ".mp4"
    if source.kind == "live":
        named = re.sub(r"[^\w.-]+", "-", public_name(str(place)).partition("?")[0].rpartition("://")[2])
        return named.strip("-.")[:100] or "live", ".mp4"
    path = Path(place)
    if source.kind == "video":
        return path.stem, ".mp4"
    return path.stem, path.suffix if path.suffix.lower() in PICTURES else f"{path.suffix}.jpg"
