"""What every case of bad input is held to, whatever comes out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import toys
from bad_images.arrays import IMAGE

from graftsdk import Prediction, Predictor

__all__ = ["bounded", "check_message", "inference", "scores"]

CROPS = toys.crops(4)


@contextmanager
def bounded() -> Iterator[None]:
    """Little time of the CPU (that of the wall depends on what else the machine does), little memory at its peak."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS
    resident, started = _memory("VmRSS"), time.process_time()
    try:
        yield
    finally:
        spent, peak = time.process_time() - started, _memory("VmHWM")
        assert spent < 2
        assert peak - resident < 64 * 2**20


def _memory(kind: str) -> int:
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(kind))


def check_message(text: str) -> None:
    """Expected, found; one line that a log can hold, without another library's words."""
    assert "expected" in text and "found" in text
    assert "\n" not in text and len(text) <= 500
    assert not any(word in text for word in ("Traceback", "site-packages", "0x", "Errno"))


def inference(predictor: Predictor) -> list[bytes]:
    """The golden inference: the bits that must be the same before and after."""
    people = str(predictor.predict(IMAGE, boxes=[[3, 4, 50, 99]]).to_dict()["persons"]).encode()
    return [scores.tobytes() for scores in predictor.run(CROPS).values()] + [people]


def scores(prediction: Prediction) -> list[dict[str, dict[str, float]]]:
    """Person by person: label -> class -> score."""
    return [{attribute.label: attribute.scores for attribute in person} for person in prediction]
