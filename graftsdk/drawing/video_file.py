"""Pictures written to a video file, one by one, whole or not at all."""

from __future__ import annotations

import math
import os
import tempfile
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import DecodeError, DTypeError, ImageTooLarge, InputError, ShapeError
from graftsdk.files import atomic_write, check_target

__all__ = ["LEAST_RATE", "LIVE_RATE", "MOST_RATE", "USUAL_RATE", "VideoFile"]

LIVE_RATE = 10.0  # pictures a second of what comes irregularly
USUAL_RATE = 25.0  # of a source that states none
# OpenCV 4 and 5 keep rates to 0.001 only, hang on an infinite one and end the process at 0.0016.
LEAST_RATE, MOST_RATE = 0.01, 1000.0
MOST_SIDE = 8190  # pixels: MPEG-4 has 13 bits for them, and halves the colours' resolution
LONGEST = 60.0  # seconds that a paced picture is shown; more of them are a clock that was set, or tell nothing
_FOURCC = "mp4v"  # MPEG-4 part 2: what every build of OpenCV writes

Picture = npt.NDArray[np.uint8]


class VideoFile:
    """An .mp4 that takes the place of `target` when the block ends.

    Where the block is left by Ctrl-C, or by a source that breaks off (`DecodeError`), the file holds what came until
    then. After any other error, or where no picture was added, nothing is written.

    Args:
        target: a path that ends with .mp4.
        rate: pictures a second, 0.01 to 1000; rounded to 0.001, above 65 to 0.01, above 650 to 0.1.
        paced: each picture is shown from its own time until the next one's, for a minute at most; else all equally
            long.

    Raises:
        InputError: another suffix or rate, or an OpenCV that writes no video.
        PlanPathError: a target that must not be written. OSError: the disk is full or fails.
    """

    def __init__(self, target: str | os.PathLike[str], rate: float, *, paced: bool = False) -> None:
        self._target = _checked_target(target)
        self._rate = _checked_rate(rate)
        self._paced = paced
        self._stack = ExitStack()
        self._path = ""  # under which OpenCV knows the file
        self._writer: Any = None
        self._size = (0, 0)  # width, height
        self._written = 0
        self._held: Picture | None = None  # paced: what is shown until the next one comes
        self._began: float | None = None  # paced: the time of the first picture, if no clock had ever been set

    def add(self, picture: Picture, timestamp: float | None = None) -> None:
        """Append a picture.

        Args:
            picture: uint8[H, W, 3], BGR; another size than the first one's is stretched to it.
            timestamp: seconds; when it is to be seen, where the file is paced. None, or one before the last picture's
                (a clock that was set back): one picture after the last.

        Raises:
            InputError: no array, or a timestamp that is not finite. DTypeError, ShapeError: another kind of array.
            ImageTooLarge: a first picture with a side over 8190.
        """
        _check_picture(picture)
        if timestamp is not None and not (isinstance(timestamp, Real) and math.isfinite(timestamp)):
            raise InputError(f"timestamp: expected seconds or None, found {timestamp!r:.40}")
        if self._writer is None:
            self._open(picture)
        if not self._paced:
            self._write(picture)
            return
        due = self._due(timestamp)
        if self._held is not None:
            for _ in range(due):
                self._write(self._held)
        self._held = picture.copy()  # the caller may read the next one into the same memory

    def _due(self, timestamp: float | None) -> int:
        """How many pictures long the held one is shown, if the next one is to be seen from `timestamp` on."""
        due = 0 if self._held is None else 1
        if timestamp is None:
            return due
        if self._began is not None:
            due = round((timestamp - self._began) * self._rate) - self._written
            most = max(round(LONGEST * self._rate), 1)
            if 0 <= due <= most:
                return due
            due = 1 if due < 0 else most
        self._began = timestamp - (self._written + due) / self._rate
        return due

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt | DecodeError):
            if self._writer is not None:
                self._writer.release()
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._finish()  # where it fails, the file is dropped

    def _open(self, picture: Picture) -> None:
        import cv2

        height, width = picture.shape[:2]
        if max(height, width) > MOST_SIDE:
            raise ImageTooLarge(
                f"{self._target}: expected pictures of at most {MOST_SIDE} pixels a side, which is what MPEG-4 holds, "
                f"found {width}x{height}; plot(side={MOST_SIDE}) makes them smaller"
            )
        with ExitStack() as stack:
            file = stack.enter_context(atomic_write(self._target))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="graftsdk-"))
            # OpenCV writes to paths, and knows a kind by its suffix: this one leads to the temporary file that is open.
            self._path = os.path.join(folder, "video.mp4")
            os.symlink(f"/proc/self/fd/{file.fileno()}", self._path)
            self._size = (width + width % 2, height + height % 2)  # MPEG-4 halves the colours' resolution
            fourcc = cv2.VideoWriter.fourcc(*_FOURCC)
            writer = cv2.VideoWriter(self._path, cv2.CAP_FFMPEG, fourcc, self._rate, self._size)
            if not writer.isOpened():
                raise InputError(
                    f"{self._target}: expected an OpenCV that writes MPEG-4, found one that does not; "
                    f"install opencv-python, or save no video"
                )
            self._writer, self._stack = writer, stack.pop_all()

    def _write(self, picture: Picture) -> None:
        import cv2

        width, height = self._size
        down, right = height - picture.shape[0], width - picture.shape[1]
        fitted: Any = picture
        if (down, right) != (0, 0):
            if down in (0, 1) and right in (0, 1):
                fitted = cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_REPLICATE)
            else:
                fitted = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(fitted)
        self._written += 1

    def _finish(self) -> None:
        import cv2

        if self._writer is None:
            return
        if self._held is not None:
            self._write(self._held)
        self._writer.release()
        reader = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG)  # OpenCV's writer tells nobody that a disk is full
        count = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
        reader.release()
        if count != self._written:
            raise OSError(f"{self._target}: expected {self._written} pictures, found {count}: is the disk full?")


def _checked_target(target: Any) -> Path:
    if not isinstance(target, (str, os.PathLike)) or not isinstance(os.fspath(target), str):
        raise InputError(f"expected the path of an .mp4 file, found {target!r:.80}")
    path = Path(target)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: expected a suffix of .mp4, found {path.suffix!r}")
    check_target(path)
    return path


def _checked_rate(rate: Any) -> float:
    """The rate, rounded to what MPEG-4 can count: OpenCV hands it a fraction, whose terms must not pass 65,535."""
    if isinstance(rate, bool) or not isinstance(rate, Real) or not LEAST_RATE <= float(rate) <= MOST_RATE:  # NaN too
        raise InputError(
            f"rate: expected {LEAST_RATE:g} to {MOST_RATE:g} pictures a second, found {rate!r:.40}; "
            f"name another rate, or read the source with a smaller stride"
        )
    return round(float(rate), 3 if rate < 65 else 2 if rate < 650 else 1)


def _check_picture(picture: Any) -> None:
    if not isinstance(picture, np.ndarray):
        raise InputError(f"picture: expected an array uint8[H, W, 3], found {type(picture).__name__}")
    if picture.dtype != np.uint8:
        raise DTypeError(f"picture: expected uint8 values 0..255, found {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ShapeError(f"picture: expected [H, W, 3] with H and W at least 1, found {list(picture.shape)}")
