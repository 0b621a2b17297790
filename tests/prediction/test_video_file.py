"""Videos are written whole, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from graftsdk.drawing.video_file import VideoFile
from graftsdk.errors import PlanPathError
from graftsdk.preprocess.frames import open_frames


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def frames(path: Path) -> list[np.ndarray]:
    reader = cv2.VideoCapture(str(path))
    found = []
    while (read := reader.read())[0]:
        found.append(read[1])
    reader.release()
    return found


def levels(path: Path) -> list[int]:
    return [round(float(frame.mean()), -1) for frame in frames(path)]


def test_pictures_in_order(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "v.mp4", 12.5) as video:
        for level in (0, 100, 200):
            video.add(grey(level))
    assert levels(tmp_path / "v.mp4") == [0, 100, 200]
    with open_frames(tmp_path / "v.mp4") as found:
        assert (found.rate, found.count) == (12.5, 3)
    assert os.listdir(tmp_path) == ["v.mp4"]


@pytest.mark.parametrize(
    ("timestamps", "expected"),
    [
        ([0.0, 0.1, 0.2], [0, 100, 200]),
        ([5.0, 5.3, 5.4], [0, 0, 0, 100, 200]),  # shown until the next one comes
        ([0.0, 0.01, 0.02, 0.1], [200, 250]),  # faster than it is written: the newest
    ],
)
def test_paced(timestamps: list[float], expected: list[int], tmp_path: Path) -> None:
    with VideoFile(tmp_path / "v.mp4", 10, paced=True) as video:
        for level, timestamp in zip((0, 100, 200, 250), timestamps, strict=False):
            video.add(grey(level), timestamp)
    assert levels(tmp_path / "v.mp4") == expected


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [((48, 64), (48, 64), (48, 64)), ((47, 63), (47, 63), (48, 64)), ((48, 64), (96, 128), (48, 64))],
    ids=["even", "odd sides", "another size later"],
)
def test_sizes(first: tuple[int, int], second: tuple[int, int], size: tuple[int, int], tmp_path: Path) -> None:
    with VideoFile(tmp_path / "v.mp4", 10) as video:
        video.add(grey(50, *first))
        video.add(grey(150, *second))
    assert [frame.shape[:2] for frame in frames(tmp_path / "v.mp4")] == [size, size]
    assert levels(tmp_path / "v.mp4") == [50, 150]


@pytest.mark.parametrize(("error", "kept"), [(KeyboardInterrupt, True), (RuntimeError, False)])
def test_interrupted_and_failed(error: type[BaseException], kept: bool, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"before")
    with pytest.raises(error), VideoFile(tmp_path / "v.mp4", 10) as video:
        for level in (0, 100):
            video.add(grey(level))
        raise error
    assert os.listdir(tmp_path) == ["v.mp4"]
    if kept:
        assert levels(tmp_path / "v.mp4") == [0, 100]
    else:
        assert (tmp_path / "v.mp4").read_bytes() == b"before"


def test_no_picture_no_file(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "v.mp4", 10):
        pass
    assert os.listdir(tmp_path) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlanPathError):
        VideoFile(tmp_path / "v.mp4", 10)


def test_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; import numpy as np\n"
        "from pathlib import Path; from graftsdk.drawing.video_file import VideoFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "rng = np.random.default_rng(0)\n"
        "with VideoFile(Path(sys.argv[1]), 10) as video:\n"
        "    for _ in range(40): video.add(rng.integers(0, 256, (240, 320, 3), np.uint8))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "v.mp4")],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert run.returncode == 1
    assert "is the disk full?" in run.stderr.splitlines()[-1]
    assert os.listdir(tmp_path) == []


def test_images_state_nothing() -> None:
    with open_frames([grey(1)]) as found:
        assert (found.rate, found.count) == (None, None)
