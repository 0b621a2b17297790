"""Frames of a video, read ahead by a thread: every one, or the newest."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from graftsdk.errors import DecodeError
from graftsdk.preprocess.capture import Capture
from graftsdk.preprocess.frame import Frame, Frames
from graftsdk.preprocess.handover import Handover
from graftsdk.preprocess.image import check_image, check_size

__all__ = ["VideoFrames", "shrink"]

AHEAD = 4  # frames that wait; 25 MB of 1080p
AHEAD_BYTES = 64 * 2**20  # larger frames: fewer of them
CLOSE_SECONDS = 1.0  # a network read that hangs longer goes on in the background until its own time limit


class VideoFrames(Frames):
    """The frames of one video. See `open_frames`.

    Args:
        opener: gives the open video; runs in the reader's thread, so that waiting for a camera can be interrupted.
        stride: every how many frames one is given.
        live: give the newest frame; of a file, play it at its own pace.
        reduce: sides are divided by it.

    Raises:
        What `opener` raises.
    """

    def __init__(self, opener: Callable[[], Capture], *, stride: int, live: bool, reduce: int) -> None:
        super().__init__()
        self.live = live
        self._handover = Handover(newest=live)
        reader = _Reader(opener, self._handover, stride, live, reduce)  # knows nothing of us: we can be collected
        # A daemon: waiting for a camera must not keep the interpreter alive. The finalizer also runs at its exit.
        thread = threading.Thread(target=reader.run, name="graftsdk-frames", daemon=True)
        self._end = weakref.finalize(self, _end, self._handover, thread, os.getpid())
        thread.start()
        try:
            self.rate, self.count = self._handover.wait_open()
        except BaseException:
            self.close()
            raise

    @property
    def dropped(self) -> int:
        return self._handover.dropped

    def _take(self) -> Frame:
        try:
            frame = self._handover.get()
        except BaseException:  # Ctrl-C too
            self.close()
            raise
        if frame is None:
            self.close()
            raise StopIteration
        return frame

    def close(self) -> None:
        self._end()


def _end(handover: Handover, thread: threading.Thread, process: int) -> None:
    if os.getpid() != process:  # forked: the thread is not here, but a lock that it held would be
        return
    handover.stop()
    if thread is not threading.current_thread() and thread.ident is not None:  # the collector runs in any thread
        thread.join(CLOSE_SECONDS)


class _Reader:
    """What the thread does: reads until the end, an error, or until nobody wants more."""

    def __init__(self, opener: Callable[[], Capture], handover: Handover, stride: int, live: bool, reduce: int) -> None:
        self._opener = opener
        self._handover = handover
        self._stride = stride
        self._live = live
        self._reduce = reduce

    def run(self) -> None:
        error: BaseException | None = None
        try:
            capture = self._opener()
            try:
                self._handover.open(capture.rate, capture.count)
                error = self._read(capture)
            finally:
                capture.release()
        except BaseException as found:  # noqa: BLE001  (whatever it is, it is the consumer's: raised there)
            error = found
        self._handover.finish(error)

    def _read(self, capture: Capture) -> BaseException | None:
        handover, file, began = self._handover, capture.kind == "file", time.monotonic()
        torn = capture.container is not None and capture.container.torn
        held: Frame | None = None  # of a torn file, the last frame: only the next one proves that it is whole
        index, spent = -1, 0.0
        while not handover.stopped:
            started = time.perf_counter()
            if not capture.grab():
                return capture.end(max(index, 0) if torn else index + 1, time.monotonic() - began)
            index += 1
            if held is not None:
                self._hand(held)
                held = None
            grabbed, clock, read_at = time.perf_counter(), time.time(), time.monotonic()
            if index % self._stride == 0:
                image = self._image(capture, index)
                timestamp = capture.position(index) if file else clock
                if self._live and file and timestamp is not None:
                    read_at = began + timestamp  # when it is due
                done = time.perf_counter()
                spent += done - (started if file else grabbed)
                frame = Frame(image, index, timestamp, capture.name, 1e3 * spent, read_at)
                spent = 0.0
                if torn:
                    held = frame
                else:
                    self._hand(frame)
            elif file:
                spent += grabbed - started
        return None

    def _hand(self, frame: Frame) -> None:
        if self._live:
            self._handover.pause(frame.read_at - time.monotonic())  # not yet due: a file that is played
        else:
            self._handover.room = min(AHEAD, max(1, AHEAD_BYTES // frame.image.nbytes))
        self._handover.put(frame)

    def _image(self, capture: Capture, index: int) -> npt.NDArray[np.uint8]:
        import cv2

        try:
            image = capture.retrieve()
            if image is None:
                raise DecodeError(f"{capture.name}: frame {index}: expected pixels, found none")
            return shrink(check_image(image), self._reduce)
        except cv2.error as error:
            raise DecodeError(f"{capture.name}: frame {index}: expected pixels, found that OpenCV fails") from error


def shrink(image: npt.NDArray[np.uint8], reduce: int) -> npt.NDArray[np.uint8]:
    """uint8[ceil(H / reduce), ceil(W / reduce), 3], averaged. Raises ImageTooSmall where a side is under 16 then."""
    if reduce == 1:
        return image
    import cv2

    height, width = (-(-side // reduce) for side in image.shape[:2])
    check_size(height, width)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
