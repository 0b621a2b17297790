"""Memory, descriptors and threads after thousands of calls: what a service sees after a day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import toys

PREAMBLE = """
import gc, os, sys, time
import numpy as np
from graftsdk import Predictor
from graftsdk.engines.memory import give_back_memory
from graftsdk.preprocess import BoxMasks

def resident():
    # What is freed goes back to the system first; then the number is read until it stands still.
    gc.collect()
    last = None
    for _ in range(50):
        give_back_memory()
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if now == last:
            return now
        last = now
        time.sleep(0.02)
    return last

def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
"""

PREDICT = (
    PREAMBLE
    + """
sizes = [(40 + 17 * i, 200 - 11 * i) for i in range(12)]
images = [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i, size in enumerate(sizes)]
boxes = np.array([[i % 20, i % 10, i % 20 + 15, i % 10 + 25] for i in range(64)], np.float32)
masks = BoxMasks([np.eye(6, dtype=bool)] * 64, boxes)
leaked = []
predictor = Predictor(sys.argv[1], threads=1)
def call(i, leak=0):
    count = i * 7 % 65
    options = {"boxes": boxes[:count]}
    if i % 3 == 0:
        options["masks"] = masks[:count]
    assert len(predictor.predict(images[i % 12], **options)) == count
    leaked.append(np.ones(leak, np.uint8))
for i in range(200):
    call(i)
marks = [resident()]
for part in range(2):
    for i in range(1000):
        call(i)
    marks.append(resident())
for i in range(500):
    call(i, leak=4096)
print(marks[2] - marks[0], marks[2] - marks[1], resident() - marks[2])
"""
)

OPEN = (
    PREAMBLE
    + """
crops = np.zeros((3, 3, 32, 32), np.float32)
def call(i):
    predictor = Predictor(sys.argv[1], layout=("merged", "split")[i % 2])
    predictor.run(crops)
    predictor.close()
    return predictor if keep else None
keep = len(sys.argv) > 2
kept = []
for i in range(20):
    call(i)
before, (descriptors, threads) = resident(), held()
for i in range(200):
    kept.append(call(i))
after = held()
print(resident() - before, after[0] - descriptors, after[1] - threads)
"""
)


def measured(script: str, *arguments: object) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [int(text) for text in done.stdout.split()]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "engine.plan"
    toys.write(path)
    return path


def test_two_thousand_predictions_and_a_control_that_leaks_4_kib_a_call(path: Path) -> None:
    growth, late, leaking = measured(PREDICT, path)
    assert growth <= 8 * 2**20
    assert late <= 2**20
    assert leaking >= 500 * 4096 * 3 // 4, "the meter does not see a leak: the figures above prove nothing"


def test_two_hundred_openings(path: Path) -> None:
    growth, descriptors, threads = measured(OPEN, path)
    assert growth <= 16 * 2**20
    assert (descriptors, threads) == (0, 0)


def test_a_closed_predictor_that_is_kept_holds_no_file_and_no_thread(path: Path) -> None:
    growth, descriptors, threads = measured(OPEN, path, "keep")
    assert growth <= 64 * 2**20
    assert (descriptors, threads) == (0, 0)
