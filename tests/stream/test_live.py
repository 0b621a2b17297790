"""Cameras: the newest frame, never one twice, and what is said when they go. Each is a server on this machine."""

from __future__ import annotations

import itertools
import threading
import time

import cv2
import numpy as np
import pytest
from stream import movies

from graftsdk.errors import DecodeError, InputError
from graftsdk.prediction import Prediction
from graftsdk.preprocess import capture
from graftsdk.preprocess.capture import Capture
from graftsdk.preprocess.frames import open_frames
from graftsdk.preprocess.handover import Handover
from graftsdk.preprocess.video import VideoFrames
from graftsdk.stream import Stream

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(capture, "OPEN_TIMEOUT_MS", 400)
    monkeypatch.setattr(capture, "READ_TIMEOUT_MS", 400)


def drain(frames, pause=0.0):
    """(frames, the error that ended them)"""
    seen = []
    with pytest.raises(DecodeError) as caught:
        for frame in frames:
            seen.append(frame)
            time.sleep(pause)
    assert list(frames) == []
    return seen, str(caught.value)


def test_a_slow_consumer_gets_the_newest_frames():
    with movies.camera(60) as server:
        began = time.time()
        frames = open_frames(server.url)
        seen, error = drain(frames, pause=0.1)
    indices = [frame.index for frame in seen]
    assert frames.live and indices == sorted(set(indices)) and indices[-1] == 59
    assert indices == [movies.number(frame.image) for frame in seen]
    assert frames.dropped > 20 and len(seen) + frames.dropped == 60
    stamps = [frame.timestamp for frame in seen]
    assert stamps == sorted(stamps) and began <= stamps[0] and stamps[-1] <= time.time()
    assert {frame.source for frame in seen} == {server.url}
    assert f"{server.url}: expected more frames" in error and "after 60 frames and" in error


def test_a_fast_consumer_gets_each_frame_once():
    with movies.camera(30, pause=0.02) as server:
        frames = open_frames(server.url)
        seen, _ = drain(frames)
    indices = [frame.index for frame in seen]
    assert indices == sorted(set(indices)) and len(seen) + frames.dropped == 30


def test_every_frame_where_asked_for():
    with movies.camera(40, pause=0.002) as server:
        frames = open_frames(server.url, live=False)
        seen, error = drain(frames, pause=0.01)
    assert not frames.live and frames.dropped == 0
    assert [frame.index for frame in seen] == list(range(40)) and "after 40 frames" in error


def test_stride_of_a_camera_is_not_a_drop():
    with movies.camera(40, pause=0.02) as server:
        frames = open_frames(server.url, stride=4)
        seen, _ = drain(frames)
    assert {frame.index % 4 for frame in seen} == {0} and len(seen) + frames.dropped == 10


def test_a_download_ends_where_its_header_says(tmp_path):
    film = movies.index_first(tmp_path / "web.mp4", movies.write(tmp_path / "a.mp4", "mp4v"))
    with movies.download(film) as server:
        assert [frame.index for frame in open_frames(server.url, live=False)] == list(range(40))
        assert list(open_frames(server.url))[-1].index == 39
    data = film.read_bytes()
    film.write_bytes(data[: len(data) // 2])
    with movies.download(film) as server:
        _, error = drain(open_frames(server.url, live=False))
    assert "ended or fell silent after" in error


def test_a_download_without_a_number_of_frames_gives_all_and_an_error(tmp_path):
    with movies.download(movies.write(tmp_path / "a.ts", "mpg2")) as server:
        seen, error = drain(open_frames(server.url, live=False))
    assert [movies.number(frame.image) for frame in seen] == list(range(40)) and "silent after 40 frames" in error


def test_nothing_secret_is_repeated(caplog):
    with movies.camera(5) as server:
        stream = Stream(
            open_frames(server.url.replace("//", "//me:secret@") + "?user=me&password=secret", live=False),
            lambda frame: Prediction((), frame.image, frame.source),
        )
        found, error = drain(stream)
    assert {prediction.source for prediction in found} == {f"{server.url}?..."}
    assert error.startswith(f"{server.url}?...: expected more frames")
    assert "secret" not in error + repr(stream) + caplog.text


def test_a_camera_that_falls_silent(impatient):
    with movies.camera(10, hang=True) as server:
        seen, error = drain(open_frames(server.url, live=False))
    assert len(seen) == 10 and "after 10 frames" in error


def test_a_camera_that_never_speaks(impatient):
    with movies.camera(None) as server, pytest.raises(InputError, match="none at .* within 0.4 s"):
        open_frames(server.url)


def test_a_camera_that_is_not_there():
    with movies.camera(1) as server:
        url = server.url
    with pytest.raises(InputError, match="source: expected a video stream, found none at"):
        open_frames(url)


def test_closing_a_camera_that_hangs_does_not_wait_for_it(monkeypatch):
    monkeypatch.setattr(capture, "READ_TIMEOUT_MS", 3000)
    monkeypatch.setattr("graftsdk.preprocess.video.CLOSE_SECONDS", 0.1)
    with movies.camera(3, hang=True) as server:
        frames = open_frames(server.url)
        next(frames)
        started = time.monotonic()
        frames.close()
        assert time.monotonic() - started < 2
        assert list(frames) == []
    for thread in threading.enumerate():  # the server is gone: the read has ended
        if thread.name == "graftsdk-frames":
            thread.join(10)


class Device:
    """A `cv2.VideoCapture` that gives `count` frames, then none."""

    def __init__(self, count):
        self.left = count
        self.released = False
        self.retrieved_at = 0.0

    def get(self, _):
        return -1.0

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        self.retrieved_at = time.monotonic()
        return True, np.zeros((32, 48, 3), np.uint8)

    def release(self):
        self.released = True


def test_a_device_that_is_pulled_out():
    device = Device(5)
    frames = VideoFrames(lambda: Capture(device, "/dev/video7", "camera"), stride=1, live=False, reduce=1)
    seen, error = drain(frames)
    assert [frame.index for frame in seen] == list(range(5)) and device.released
    assert (
        "/dev/video7: expected more frames, found that the camera source ended or fell silent after 5 frames" in error
    )


def test_a_device_of_another_pixel_type():
    device = Device(5)
    device.retrieve = lambda: (True, np.zeros((32, 48), np.uint16))
    with pytest.raises(InputError, match="uint8"):
        next(VideoFrames(lambda: Capture(device, "/dev/video7", "camera"), stride=1, live=True, reduce=1))
    assert device.released


def test_the_age_of_a_frame_counts_from_its_grab():
    device = Device(1)
    frame = next(VideoFrames(lambda: Capture(device, "/dev/video7", "camera"), stride=1, live=True, reduce=2))
    assert frame.read_at <= device.retrieved_at


def test_what_goes_wrong_after_the_end_is_nobodys():
    handover = Handover(newest=False)
    handover.stop()
    handover.finish(DecodeError("too late"))
    assert handover.get() is None and handover.get() is None


def test_a_camera_does_not_use_up_the_quiet_of_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setattr(capture, "_hushed", False)
    for backend, hushed in ((cv2.CAP_V4L2, False), (cv2.CAP_FFMPEG, True)):
        assert capture._open(str(tmp_path / "none"), backend, []) is None
        assert capture._hushed == hushed


def test_the_newest_waits_for_the_consumer():
    frames = VideoFrames(lambda: Capture(Device(1000), "/dev/video7", "camera"), stride=1, live=True, reduce=1)
    for _ in itertools.repeat(None, 500):
        if frames.dropped == 999:
            break
        time.sleep(0.01)
    assert next(frames).index == 999
    with pytest.raises(DecodeError, match="after 1000 frames"):
        next(frames)
