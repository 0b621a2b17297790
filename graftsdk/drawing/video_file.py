"""Pictures written to a video file, one by one, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.files import atomic_write, check_target

__all__ = ["LIVE_RATE", "USUAL_RATE", "VideoFile"]

LIVE_RATE = 10.0  # pictures a second of what comes irregularly
USUAL_RATE = 25.0  # of a source that states none
_FOURCC = "mp4v"  # MPEG-4 part 2: what every build of OpenCV writes

Picture = npt.NDArray[np.uint8]


class VideoFile:
    """An .mp4 that takes the place of `target` when the block ends: also by Ctrl-C, as far as it got then.

    After an error, or where no picture was added, nothing is written.

    Args:
        target: a path that ends with .mp4.
        rate: pictures a second.
        paced: each picture is shown from its own time until the next one's; else all equally long.

    Raises:
        PlanPathError: a target that must not be written. InputError: this OpenCV writes no video.
        OSError: the disk is full or fails.
    """

    def __init__(self, target: Path, rate: float, *, paced: bool = False) -> None:
        check_target(target)
        self._target = target
        self._rate = rate
        self._paced = paced
        self._stack = ExitStack()
        self._path = ""  # under which OpenCV knows the file
        self._writer: Any = None
        self._size = (0, 0)  # width, height
        self._written = 0
        self._held: Picture | None = None  # paced: what is shown until the next one comes
        self._began = 0.0

    def add(self, picture: Picture, timestamp: float | None = None) -> None:
        """Append uint8[H, W, 3], BGR; another size than the first one's is stretched to it.

        `timestamp` (seconds) is when it is to be seen, where the file is paced.
        """
        if self._writer is None:
            self._open(picture)
            self._began = timestamp or 0.0
        if not self._paced or timestamp is None:
            self._write(picture)
            return
        if self._held is not None:
            for _ in range(round((timestamp - self._began) * self._rate) - self._written):
                self._write(self._held)
        self._held = picture

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt):
            if self._writer is not None:
                self._writer.release()
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._finish()  # where it fails, the file is dropped

    def _open(self, picture: Picture) -> None:
        import cv2

        file = self._stack.enter_context(atomic_write(self._target))
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="graftsdk-"))
        # OpenCV writes to paths, and knows a kind by its suffix: this one leads to the temporary file that is open.
        self._path = os.path.join(folder, "video.mp4")
        os.symlink(f"/proc/self/fd/{file.fileno()}", self._path)
        height, width = picture.shape[:2]
        self._size = (width + width % 2, height + height % 2)  # MPEG-4 halves the colours' resolution
        fourcc = cv2.VideoWriter.fourcc(*_FOURCC)
        self._writer = cv2.VideoWriter(self._path, cv2.CAP_FFMPEG, fourcc, self._rate, self._size)
        if not self._writer.isOpened():
            raise InputError(
                f"{self._target}: expected an OpenCV that writes MPEG-4, found one that does not; "
                f"install opencv-python, or leave out -o"
            )

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
