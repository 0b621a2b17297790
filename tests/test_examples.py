"""Every example runs as it stands and leaves what it says it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import toys

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: str | Path) -> str:
    """What the example prints."""
    environment = {**os.environ, "PYTHONSAFEPATH": ""}  # an example finds the modules beside it
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "engine.plan"
    toys.write(path, ["child", "gender"])
    return path


def test_own_masks(plan: Path, tmp_path: Path) -> None:
    out = run("own_masks.py", plan, tmp_path)
    assert out.count("masks agree on 9") == 3  # of three people, each within 10%
    picture = cv2.imread(str(tmp_path / "own_masks.png"))
    assert picture is not None and picture.shape == (720, 960, 3)


def test_video(plan: Path, tmp_path: Path) -> None:
    out = run("video.py", plan, tmp_path)
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("frame")] == [
        f"frame {frame} at {frame / 10:.2f} s" for frame in range(0, 20, 2)
    ]
    video = cv2.VideoCapture(str(tmp_path / "annotated.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 10 and video.get(cv2.CAP_PROP_FPS) == 5


def test_thread_pool(plan: Path) -> None:
    out = run("thread_pool.py", plan)
    assert out.count(": 200 3 persons") == 6 and out.count(": 400 DecodeError") == 1
    assert out.splitlines()[-1].endswith("True")


def test_every_example_is_run() -> None:
    run_here = {"own_masks.py", "video.py", "thread_pool.py"}
    by_demo = {"predict.py"}  # `make demo`: a large network, too slow for a test
    modules = {"scene.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == run_here | by_demo | modules
