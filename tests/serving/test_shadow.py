"""The shadow plan whatever happens to it: counted, never in the way."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftsdk.errors import EngineOutOfMemory
from graftsdk.prediction import Prediction
from graftsdk.predictor import Predictor
from graftsdk.serving.shadow import Shadow


class Count:
    def __init__(self) -> None:
        self.judged = 0
        self.left_out: list[str] = []

    def shadow(self, label: str, agreed: bool) -> None:
        self.judged += 1

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
