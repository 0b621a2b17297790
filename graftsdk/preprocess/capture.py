"""Open videos: files, cameras and network streams, through OpenCV. The one place where its reader is asked."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graftsdk.errors import DecodeError, GraftError, InputError
from graftsdk.preprocess.container import Container, check_container
from graftsdk.preprocess.image import check_size
from graftsdk.text import counted, one_line, public_name, reason

__all__ = ["SCHEMES", "Capture", "open_camera", "open_network", "open_regular", "open_video"]

# Those by which cameras and streaming servers are reached; not FFmpeg's others (file, concat, crypto, data, subfile).
SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "rtp", "tcp", "srt")
OPEN_TIMEOUT_MS = 10_000
READ_TIMEOUT_MS = 10_000

_log = logging.getLogger("graftsdk")
_quieting = threading.Lock()
_quiet, _level = 0, 0  # how many threads are in `_quietly`; OpenCV's log level before them
_hushed = False


class Capture:
    """An open video, read frame by frame; for one thread at a time.

    Args:
        capture: an opened `cv2.VideoCapture`.
        name: of the source, in messages.
        kind: "file", "camera" or "network".
        container: a file's.

    Attributes:
        rate: frames a second, as the source states it; None where it states nothing that can be.
        count: how many frames, likewise.
    """

    def __init__(
        self, capture: Any, name: str, kind: Literal["file", "camera", "network"], container: Container | None = None
    ) -> None:
        import cv2

        self.name = name
        self.kind = kind
        self.container = container
        self._capture = capture
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if 0 < count < 2**31 else None
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if 0.1 <= rate <= 1000 else None  # a NaN too; 90000 is a clock, not a rate
        self._position = cv2.CAP_PROP_POS_MSEC
        try:
            height, width = (int(capture.get(k)) for k in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
            if height > 0 and width > 0:  # 0: not known before the first frame, which is checked as each is
                check_size(height, width)
        except GraftError:
            self.release()
            raise

    def grab(self) -> bool:
        """Go to the next frame; False: there is none. FFmpeg decodes here."""
        return bool(self._capture.grab())

    def retrieve(self) -> npt.NDArray[np.uint8] | None:
        """uint8[H, W, 3], BGR, upright: the frame that was grabbed; None where it cannot be had."""
        ok, image = self._capture.retrieve()
        return image if ok else None

    def position(self, index: int) -> float | None:
        """Seconds from the beginning to the grabbed frame, as the container says; None where it says nothing."""
        position = round(float(self._capture.get(self._position)) / 1e3, 6)
        return position if position > 0 or index == 0 else None  # OpenCV has 0 for "not stated"

    def end(self, frames: int, seconds: float) -> GraftError | None:
        """What is wrong with an end after so many whole frames and seconds; None where nothing is."""
        if self.container is None:
            if self.count and frames >= self.count:
                return None
            return DecodeError(
                f"{self.name}: expected more frames, found that the {self.kind} source ended or fell silent after "
                f"{counted(frames, 'frame')} and {seconds:.1f} s; open it again"
            )
        if self.container.cut:
            about = "" if self.container.counted else "about "
            whole = f"{frames} of {about}{self.count}" if self.count else f"{frames}"
            return DecodeError(
                f"{self.name}: expected a whole video, found one that is cut off: {whole} frames came; copy it again"
            )
        if self.container.ragged:
            _log.warning("%s: ends inside a packet; its last frame may be damaged", one_line(self.name))
        if frames == 0:
            return DecodeError(f"{self.name}: expected a video, found no frame that can be decoded")
        if self.container.counted and self.count is not None and frames < self.count:
            _log.warning(
                "%s: its header lists %d frames, %d came; the others are empty, damaged or edited out",
                one_line(self.name), self.count, frames,
            )  # fmt: skip
        return None

    def release(self) -> None:
        """Close it."""
        self._capture.release()


def open_regular(path: str) -> int:
    """A descriptor of the regular file at `path`, to be closed by the caller. Raises InputError where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe's writer is not waited for
    except (OSError, ValueError) as error:
        raise InputError(f"source: expected a readable file, found {path!r:.200}: {reason(error)}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"source: expected a file, a folder or a camera, found {path!r:.200}, a special file")
    return descriptor


def open_video(path: str) -> Capture:
    """A video file. Raises InputError: no readable file; DecodeError: no video, or one that is cut off at its index."""
    import cv2

    descriptor = open_regular(path)
    try:
        with open(descriptor, "rb", closefd=False) as file:
            container = check_container(file, path)
        # The file that was checked, whatever its path leads to now; FFmpeg sees no suffix and no pattern in the name.
        opened = f"/proc/self/fd/{descriptor}"
        threads = min(4, len(os.sched_getaffinity(0)))  # each holds a frame; OpenCV's default takes every CPU
        capture = _open(
            opened if os.path.exists(opened) else os.path.abspath(path),
            cv2.CAP_FFMPEG,
            [cv2.CAP_PROP_N_THREADS, threads],
        )
    finally:
        os.close(descriptor)
    if capture is None:
        found = "one that is cut off" if container.cut else "a damaged or cut-off one, or a codec that OpenCV lacks"
        raise DecodeError(f"{path}: expected a whole video, found {found} ({container.kind}); copy or encode it again")
    return Capture(capture, path, "file", container)


def open_camera(device: str) -> Capture:
    """The camera at a path like "/dev/video0". Raises InputError where there is none that opens."""
    import cv2

    if not os.path.exists(device):
        raise InputError(f"source: expected a camera at {device}, found no such device")
    capture = _open(device, cv2.CAP_V4L2, [])
    if capture is None:
        raise InputError(
            f"source: expected a camera at {device}, found one that does not open; is it in use, may you read it?"
        )
    return Capture(capture, device, "camera")


def open_network(url: str, live: bool) -> Capture:
    """A stream at a URL. Raises InputError where it does not open within `OPEN_TIMEOUT_MS`."""
    import cv2

    options = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS,
    ]  # fmt: skip
    if live:  # each thread beyond the first keeps one frame back; one alone may fall behind a 4K camera
        options += [cv2.CAP_PROP_N_THREADS, 2]
    capture = _open(url, cv2.CAP_FFMPEG, options)
    if capture is None:
        raise InputError(
            f"source: expected a video stream, found none at {public_name(url)!r:.200} within "
            f"{OPEN_TIMEOUT_MS / 1e3:g} s; try `ffplay` with the same address"
        )
    return Capture(capture, public_name(url), "network")


def _open(target: str, backend: int, options: list[int]) -> Any | None:
    import cv2

    capture = cv2.VideoCapture()
    with _quietly(ffmpeg=backend == cv2.CAP_FFMPEG):
        try:
            if capture.open(target, backend, options):
                return capture
        except cv2.error as error:
            _log.debug("OpenCV: %s", str(error).replace(target, public_name(target)))
    capture.release()
    return None


@contextmanager
def _quietly(ffmpeg: bool) -> Iterator[None]:
    """OpenCV and FFmpeg write to stderr what we say in an error: not here.

    OpenCV's level is given back by the last of several threads. FFmpeg's is read from the environment when OpenCV
    opens the first video of the process through FFmpeg, and never again: it is set for that moment, unless the user has
    set it. `ffmpeg`: this is such an opening.
    """
    global _quiet, _level, _hushed
    hush = False
    with _quieting:
        if _quiet == 0:
            _level = _opencv_log().getLogLevel()
            _opencv_log().setLogLevel(0)  # LOG_LEVEL_SILENT
        _quiet += 1
        if ffmpeg and not _hushed:
            _hushed, hush = True, "OPENCV_FFMPEG_LOGLEVEL" not in os.environ
            if hush:
                os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # AV_LOG_QUIET
    try:
        yield
    finally:
        with _quieting:
            _quiet -= 1
            if _quiet == 0:
                _opencv_log().setLogLevel(_level)
            if hush:
                os.environ.pop("OPENCV_FFMPEG_LOGLEVEL", None)


def _opencv_log() -> Any:
    import cv2

    return getattr(cv2.utils, "logging", cv2)  # before OpenCV 5, its functions were cv2's own


def _after_fork_in_child() -> None:
    """The threads that were opening, and may hold the lock, are not here."""
    global _quieting, _quiet
    if _quiet:
        _opencv_log().setLogLevel(_level)
    _quieting, _quiet = threading.Lock(), 0


os.register_at_fork(after_in_child=_after_fork_in_child)
