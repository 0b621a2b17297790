"""Predictions of frames: each in its place, one bad image alone, everything closed whatever happens."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from stream import movies

from graftsdk.errors import DecodeError, EngineError, InputError, NonFiniteOutput
from graftsdk.prediction import Prediction
from graftsdk.preprocess import frame
from graftsdk.preprocess.frames import open_frames
from graftsdk.preprocess.handover import Handover
from graftsdk.stream import Stream

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def film(tmp_path):
    return movies.write(tmp_path / "a.avi", "MJPG", 30)


@pytest.fixture
def folder(tmp_path):
    for at in range(8):
        cv2.imwrite(str(tmp_path / f"{at}.png"), movies.picture(at))
    return tmp_path


def predict(frame):
    return Prediction((), frame.image, frame.source)


def failing(error, at):
    def fail(frame):
        if frame.index == at:
            raise error
        return predict(frame)

    return fail


def test_predictions_say_where_they_are_from(film):
    with Stream(open_frames(film, stride=10), predict) as stream:
        found = list(stream)
    assert [movies.number(prediction.image) for prediction in found] == [0, 10, 20]
    assert [prediction.frame for prediction in found] == [0, 10, 20]
    assert [prediction.timestamp for prediction in found] == pytest.approx([0, 0.5, 1.0])
    assert {prediction.source for prediction in found} == {str(film)}
    assert (stream.live, stream.dropped, stream.lag_ms, stream.failures) == (False, 0, 0.0, {})


def test_a_slow_predictor_of_a_camera():
    lags, indices = [], []

    def slow(frame):
        time.sleep(0.06)
        return predict(frame)

    with movies.camera(60) as server, pytest.raises(DecodeError, match="after 60 frames"):
        stream = Stream(open_frames(server.url), slow)
        for prediction in stream:
            lags.append(stream.lag_ms)
            indices.append(prediction.frame)
    assert stream.live and stream.dropped > 10 and len(indices) + stream.dropped == 60
    assert indices == sorted(set(indices)) and indices[-1] == 59
    assert min(lags) >= 60  # the predictor's time is part of a frame's age


@pytest.mark.parametrize("error", [NonFiniteOutput, InputError, DecodeError])
def test_one_bad_image_of_a_folder_fails_alone(folder, error, caplog):
    (folder / "2.png").write_bytes(b"no image")
    stream = Stream(open_frames(folder), failing(error("expected better"), 5))
    assert [prediction.frame for prediction in stream] == [0, 1, 3, 4, 6, 7]
    assert {Path(name).name: type(found) for name, found in stream.failures.items()} == {
        "2.png": DecodeError,
        "5.png": error,
    }
    assert [message.split(" is left out")[0] for message in caplog.messages] == list(stream.failures)


def test_each_failure_of_one_path_counts(folder):
    (folder / "2.png").write_bytes(b"no image")
    bad, good = str(folder / "2.png"), str(folder / "1.png")
    stream = Stream(open_frames([bad, good, bad, good]), failing(InputError("expected better"), 3))
    assert [prediction.frame for prediction in stream] == [1]
    assert list(stream.failures) == [bad, f"{bad} (image 2)", good] and stream.failed == 3


def test_failures_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(frame, "MAX_FAILURES", 10)
    stream = Stream(open_frames(b"no image" for _ in range(200)), predict)
    assert list(stream) == [] and stream.failed == 200
    assert list(stream.failures) == [f"image {at}" for at in range(190, 200)]


@pytest.mark.parametrize("error", [EngineError, ValueError, KeyboardInterrupt])
def test_other_errors_end_a_folder(folder, error):
    stream = Stream(open_frames(folder), failing(error("expected better"), 2))
    assert [next(stream).frame, next(stream).frame] == [0, 1]
    with pytest.raises(error, match="expected better"):
        next(stream)
    assert list(stream) == [] and stream.failures == {}


@pytest.mark.parametrize("error", [NonFiniteOutput, InputError, EngineError, KeyboardInterrupt])
def test_any_error_ends_a_video(film, error):
    stream = Stream(open_frames(film), failing(error("expected better"), 1))
    assert next(stream).frame == 0
    with pytest.raises(error, match="expected better"):
        next(stream)
    assert list(stream) == [] and stream.failures == {}


@pytest.mark.parametrize("how", ["exhausted", "closed", "with", "broken off", "dropped", "raised"])
def test_nothing_stays_behind(film, how):  # `nothing_left` looks
    stream = Stream(open_frames(film), predict)
    if how == "exhausted":
        assert len(list(stream)) == 30
    elif how == "closed":
        next(stream)
        stream.close()
        stream.close()
        assert list(stream) == []
    elif how == "with":
        with stream:
            next(stream)
        assert list(stream) == []
    elif how == "broken off":
        for _ in stream:
            break
    elif how == "raised":
        with pytest.raises(ZeroDivisionError):
            for prediction in stream:
                prediction.frame / 0
    del stream


def test_many_streams_at_once(film):
    streams = [Stream(open_frames(film), predict) for _ in range(8)]
    for rows in zip(*streams, strict=True):
        assert len({prediction.frame for prediction in rows}) == 1


WAITING = """
import sys, threading
from graftsdk.preprocess.frames import open_frames
from graftsdk.prediction import Prediction
from graftsdk.stream import Stream
try:
    with Stream(open_frames(sys.argv[1]), lambda frame: Prediction((), frame.image)) as stream:
        for prediction in stream:
            print(prediction.frame, flush=True)
except KeyboardInterrupt:
    assert list(stream) == []
    print("interrupted", flush=True)
"""


def test_ctrl_c_leaves_a_wait_for_a_camera_that_hangs():
    with movies.camera(3, hang=True) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", WAITING, server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            while process.stdout.readline() != "2\n":
                assert process.poll() is None
            time.sleep(0.3)  # it waits now; if not yet, the interrupt is its loop's own
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
            process.communicate()
        assert (out, err, process.returncode) == ("interrupted\n", "", 0)
        assert time.monotonic() - started < 9  # not the ten seconds after which a silent camera is given up


def test_ctrl_c_while_a_camera_is_opened():
    with movies.camera(None) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", WAITING, server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.asked.wait(20)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=9)
        finally:
            process.kill()
            process.communicate()
        assert "KeyboardInterrupt" in err and process.returncode != 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
@pytest.mark.parametrize("wait", ["get", "wait_open"])
def test_a_signal_between_a_wait_and_its_lock_raises_its_own(wait, error, monkeypatch):
    handover = Handover(newest=True)

    def interrupted(_):
        handover._changed.release()  # as Condition.wait does first
        raise error

    monkeypatch.setattr(handover._changed, "wait", interrupted)
    with pytest.raises(error):
        getattr(handover, wait)()
    handover.stop()  # the lock is free
    assert handover.stopped


def test_an_error_of_the_reader_stays_as_it_is():
    handover, ended = Handover(newest=True), RuntimeError("expected better")
    ended.__context__ = KeyboardInterrupt()
    handover.finish(ended)
    with pytest.raises(RuntimeError) as caught:
        handover.get()
    assert caught.value is ended
