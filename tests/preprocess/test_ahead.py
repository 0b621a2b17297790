"""Images decoded ahead: in order, a few at a time, each error at its place."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from graftsdk.errors import DecodeError, InputError
from graftsdk.preprocess import ahead, decode_image
from graftsdk.preprocess.ahead import AHEAD, WORKERS, decode_ahead, decode_timed


def jpeg(grey: int) -> bytes:
    return cv2.imencode(".jpg", np.full((20, 24, 3), grey, np.uint8))[1].tobytes()


def test_order_and_content(tmp_path: Path) -> None:
    array = np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)
    (tmp_path / "a.jpg").write_bytes(jpeg(40))
    sources = [jpeg(grey) for grey in range(0, 200, 10)] + [array, tmp_path / "a.jpg", io.BytesIO(jpeg(7))]
    found = list(decode_ahead(sources))
    sources[-1].seek(0)  # type: ignore[attr-defined]
    assert [one.source for one in found] == sources
    for one in found:
        assert np.array_equal(one.image, decode_image(one.source))  # type: ignore[arg-type]
        assert one.spent_ms > 0


def test_an_error_stands_at_its_place() -> None:
    found = list(decode_ahead([jpeg(1), b"no image", None, jpeg(2), "/missing.jpg"]))
    assert [type(one.image) for one in found] == [np.ndarray, DecodeError, InputError, np.ndarray, InputError]


@pytest.mark.parametrize("taken", [1, 3])
def test_few_are_taken_before_their_turn(taken: int) -> None:
    seen: list[int] = []

    def sources():  # type: ignore[no-untyped-def]
        for grey in range(100):
            seen.append(grey)
            yield jpeg(grey)

    images = decode_ahead(sources())
    for _ in range(taken):
        next(images)
    room = AHEAD * min(WORKERS, len(os.sched_getaffinity(0)))
    assert len(seen) == taken - 1 + room
    images.close()
    assert len(seen) == taken - 1 + room


def test_paths_and_bytes_decode_in_threads_the_rest_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    where: dict[str, str] = {}

    def watched(source, color, reduce):  # type: ignore[no-untyped-def]
        where[type(source).__name__] = threading.current_thread().name
        return decode_image(source, color, reduce)

    monkeypatch.setattr(ahead, "decode_image", watched)
    array = np.zeros((16, 16, 3), np.uint8)
    list(decode_ahead([jpeg(1), array, io.BytesIO(jpeg(1))]))
    assert where["bytes"].startswith("graftsdk-decode")
    assert where["ndarray"] == where["BytesIO"] == threading.current_thread().name


def test_no_thread_stays() -> None:
    images = decode_ahead([jpeg(1)] * 20)
    next(images)
    images.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("graftsdk-decode")]


def test_what_the_source_raises_is_raised() -> None:
    def sources():  # type: ignore[no-untyped-def]
        yield jpeg(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(decode_ahead(sources()))


def test_color_and_reduce_reach_the_decoder() -> None:
    array = np.dstack([np.full((32, 32), value, np.uint8) for value in (1, 2, 3)])
    (found,) = decode_ahead([array], "rgb", 2)
    assert np.array_equal(found.image, np.broadcast_to(np.uint8([3, 2, 1]), (16, 16, 3)))  # type: ignore[arg-type]
    assert np.array_equal(decode_timed(array, "rgb", 2).image, found.image)  # type: ignore[arg-type]


def test_arrays_are_drawn_when_they_are_wanted() -> None:
    """A camera loop of the caller's own must not run ahead of what is said of its frames."""
    drawn: list[int] = []

    def frames():  # type: ignore[no-untyped-def]
        for number in range(9):
            drawn.append(number)
            yield np.zeros((16, 16, 3), np.uint8) if number != 4 else jpeg(1)

    images = decode_ahead(frames())
    for count in range(1, 9):
        next(images)
        assert len(drawn) == (count if count != 5 else 6)  # behind a file one is drawn: it decodes meanwhile
    images.close()
