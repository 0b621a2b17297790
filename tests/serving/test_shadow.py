"""The shadow plan whatever happens to it: counted, never in the way."""

from __future__ import annotations

import logging
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftsdk.errors import EngineOutOfMemory
from graftsdk.prediction import Prediction
from graftsdk.predictor import Predictor
from graftsdk.preprocess import BoxMasks
from graftsdk.serving.shadow import Shadow


class Count:
    def __init__(self) -> None:
        self.judged = self.disagreed = 0
        self.left_out: list[str] = []

    def shadow(self, label: str, agreed: bool) -> None:
        self.judged += 1
        self.disagreed += not agreed

    def shadow_left_out(self, reason: str) -> None:
        self.left_out.append(reason)


@pytest.fixture
def answered(toy_path: Path) -> Prediction:
    with Predictor(toy_path, threads=1) as predictor:
        found: Prediction = predictor.predict(np.zeros((48, 64, 3), np.uint8))
    return found


def shadow(path: Path, count: Count, **options: Any) -> Shadow:
    return Shadow(path, 1.0, count, {"threads": 1}, ("child", "gender"), **options)


@pytest.mark.parametrize("error", [EngineOutOfMemory("expected memory, found none"), RuntimeError("/secret/path")])
def test_what_fails_is_counted_and_told_once_and_the_thread_goes_on(
    toy_path: Path,
    answered: Prediction,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = Count()
    found = shadow(toy_path, count)
    compare, left = found._compare, [error, error]

    def failing(*offered: Any) -> None:
        if left:
            raise left.pop()
        compare(*offered)

    monkeypatch.setattr(found, "_compare", failing)
    with caplog.at_level(logging.ERROR, "graftsdk.serving"):
        for _ in range(3):
            found.offer(answered)
            _until_taken(found)
        found.close()
    assert count.left_out == ["failed", "failed"] and count.judged == 2
    assert len(caplog.records) == 1 and "/secret/path" not in caplog.text


def test_masks_take_the_memory_of_the_persons_not_of_the_frame(toy_path: Path) -> None:
    rng, side = np.random.default_rng(0), 2000
    boxes = np.array([[x, y, x + 40, y + 90] for x in range(0, 1900, 190) for y in range(0, 1900, 380)], np.float32)
    masks = BoxMasks([rng.random((12, 8)) < 0.7 for _ in boxes], boxes)
    count = Count()
    with Predictor(toy_path, threads=1) as predictor:
        image = rng.integers(0, 255, (side, side, 3), np.uint8)
        prediction = predictor.predict(image, boxes=boxes, masks=masks)
    found = shadow(toy_path, count)
    tracemalloc.start()
    found._compare(image, prediction)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found.close()
    assert count.judged == 2 * len(boxes) and count.disagreed == 0
    assert peak < 8 * side * side < len(boxes) * side * side


def test_what_a_profile_decided_is_left_out_and_counted(toy_path: Path, answered: Prediction) -> None:
    count = Count()
    found = shadow(toy_path, count)
    found.offer(answered, "lobby")
    found.offer(answered)
    found.close()
    assert count.left_out == ["profile"] and count.judged == 2


def _until_taken(found: Shadow) -> None:
    while not found._waiting.empty():
        threading.Event().wait(0.001)


def test_its_thread_has_the_lowest_priority_and_this_one_its_own(
    toy_path: Path, answered: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, found, seen = os.getpriority(os.PRIO_PROCESS, 0), shadow(toy_path, Count()), []

    def look(*_: Any) -> None:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    monkeypatch.setattr(found, "_compare", look)
    found.offer(answered)
    found.close()
    found.close()
    assert seen == [19] and os.getpriority(os.PRIO_PROCESS, 0) == before


def test_what_is_drawn_is_the_same_for_the_same_seed(
    toy_path: Path, answered: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(seed: int) -> list[int]:
        found = Shadow(toy_path, 0.3, Count(), {"threads": 1}, ("child",), seed)
        taken: list[int] = []
        with monkeypatch.context() as patch:
            for number in range(200):
                patch.setattr(found._waiting, "put_nowait", lambda _, number=number: taken.append(number))
                found.offer(answered)
        found.close()
        return taken

    assert drawn(7) == drawn(7) != drawn(8)
