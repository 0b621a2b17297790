"""What is named on a command line: images, videos and live sources, from files, folders, patterns and addresses."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graftsdk.errors import DecodeError, InputError
from graftsdk.preprocess import IMAGE_SUFFIXES
from graftsdk.preprocess.container import check_container
from graftsdk.text import one_line, public_name

__all__ = ["VIDEO_SUFFIXES", "Source", "find_images", "find_sources"]

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ts", ".vob", ".webm"),
)
_AMBIGUOUS = (".mts", ".ts")  # TypeScript's too
_CAMERA = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True)
class Source:
    """One thing that is named: a file, or what a live one is called.

    Attributes:
        kind: "image", "video" (a file), or "live" (a camera's number, an address).
        place: the path, number or address.
    """

    kind: Literal["image", "video", "live"]
    place: Path | int | str

    @property
    def name(self) -> str:
        """As messages have it: on one line, without user and password of an address."""
        return one_line(f"camera {self.place}" if isinstance(self.place, int) else public_name(str(self.place)))


def find_sources(words: Sequence[str]) -> list[Source]:
    """Each once, in the order in which they are named; what is in a folder or fits a pattern, by name.

    A folder gives its images and videos, by their suffixes; so does a pattern, unless nothing that fits it has one of
    them. What else is named is taken as it is: a number that is no file as a camera.

    Raises:
        InputError: a folder or pattern that gives nothing.
    """
    found: list[Source] = []
    for word in words:
        if os.path.isdir(word):
            inside = _pictures(_listed(word))
            if not inside:
                raise InputError(f"{word}: expected a folder with images or videos, found none in it")
            found += map(_file, inside)
        elif re.fullmatch(r"/dev/video[0-9]+", word):
            found.append(Source("live", word))
        elif os.path.lexists(word):
            found.append(_file(Path(word)))
        elif "://" in word:
            found.append(Source("live", word))
        elif _CAMERA.fullmatch(word):
            found.append(Source("live", int(word)))
        elif glob.has_magic(word):
            matches = sorted(Path(name) for name in glob.glob(word, recursive=True) if os.path.isfile(name))
            if not matches:
                raise InputError(f"{word}: expected a pattern of image or video files, found none that fit")
            found += map(_file, _pictures(matches) or matches)
        else:
            found.append(_file(Path(word)))  # missing: whoever reads it says so
    return list(dict.fromkeys(found))


def find_images(words: Sequence[str]) -> list[Path]:
    """As `find_sources`, of which the videos in folders and patterns are left out.

    Raises:
        InputError: nothing is left, or as `find_sources`.
    """
    found = find_sources(words)
    images = [source.place for source in found if source.kind == "image" and isinstance(source.place, Path)]
    if not images:
        raise InputError(f"{found[0].name}: expected images, found videos or live sources only")
    return images


def _listed(folder: str) -> list[Path]:
    try:
        return sorted(path for path in Path(folder).iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"{folder}: expected a readable folder, found: {error.strerror}") from error


def _pictures(paths: Iterable[Path]) -> list[Path]:
    """Those whose suffix says so; where it may mean something else, the content too."""
    known = [path for path in paths if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)]
    return [path for path in known if path.suffix.lower() not in _AMBIGUOUS or _holds_video(path)]


def _file(path: Path) -> Source:
    return Source("video" if _is_video(path) else "image", path)


def _is_video(path: Path) -> bool:
    """By its suffix; by its content where the suffix says nothing."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES or not path.is_file():  # a pipe would block
        return suffix in VIDEO_SUFFIXES
    return _holds_video(path)


def _holds_video(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            check_container(file, str(path))
    except (DecodeError, OSError):  # whoever reads it says what is wrong with it
        return False
    return True
