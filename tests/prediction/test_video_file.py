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
from graftsdk.errors import DecodeError, DTypeError, ImageTooLarge, InputError, PlanPathError, ShapeError
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


@pytest.mark.parametrize(
    ("timestamps", "count"),
    [
        ([1e9, 1e9 + 0.1, 1e9 + 3600.2, 1e9 + 3600.3], 603),  # set forward by an hour: a minute of it
        ([1e9, 1e9 + 0.1, 1e9 - 3600, 1e9 - 3599.9, 1e9 - 3599.7], 6),  # set back by an hour
        ([1e9, 1e9 + 0.1, 1e9 - 0.2, 1e9 - 0.1, 1e9], 5),  # a little
        ([0.0, 60.0, 60.1], 602),  # a long time, nothing set
        ([0.0, 1e300, -1e300, 0.0], 1202),
        ([None, None, None], 3),  # no clock at all
        ([0.0, None, 0.2, 0.3], 4),
        ([None, None, 5.0, 5.3, 5.4], 7),
    ],
)
def test_paced_by_a_clock_that_is_set(timestamps: list[float | None], count: int, tmp_path: Path) -> None:
    with VideoFile(tmp_path / "v.mp4", 10, paced=True) as video:
        for place, timestamp in enumerate(timestamps):
            video.add(grey(40 * place, 16, 16), timestamp)
    found = levels(tmp_path / "v.mp4")
    assert len(found) == count
    assert list(dict.fromkeys(found)) == [40 * place for place in range(len(timestamps))]  # all of them, in order


def test_paced_keeps_what_it_was_given(tmp_path: Path) -> None:
    memory = grey(0)
    with VideoFile(tmp_path / "v.mp4", 10, paced=True) as video:
        for level in (0, 100, 200):
            memory[:] = level
            video.add(memory, level / 1000)
    assert levels(tmp_path / "v.mp4") == [0, 100, 200]


@pytest.mark.parametrize(
    ("error", "kept"), [(KeyboardInterrupt, True), (DecodeError, True), (InputError, False), (RuntimeError, False)]
)
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


@pytest.mark.parametrize("kind", [str, Path])
def test_paths(kind: type, tmp_path: Path) -> None:
    with VideoFile(kind(tmp_path / "V.MP4"), 10) as video:
        video.add(grey(100))
    assert levels(tmp_path / "V.MP4") == [100]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("v.avi", "a suffix of .mp4, found '.avi'"),
        ("v", "a suffix of .mp4, found ''"),
        (5, "found 5"),
        (b"v.mp4", "found b"),
    ],
)
def test_other_targets(target: object, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=found):
        VideoFile(target, 10)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("rate", "stated"),
    [
        (0.01, 0.01),
        (1000, 1000),
        (30000 / 1001, 29.97),
        (1000 / 7, 142.86),
        (64.9996, 65),
        (649.996, 650),
        (np.int64(9), 9),
    ],
)
def test_rates(rate: float, stated: float, tmp_path: Path) -> None:
    with VideoFile(tmp_path / "v.mp4", rate) as video:
        for level in (0, 100):
            video.add(grey(level))
    with open_frames(tmp_path / "v.mp4") as found:
        assert found.count == 2
    reader = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(stated, rel=1e-6)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 25 / 60000, 0.0016, 1001, True, "10", None, 1j])
def test_rates_that_cannot_be(rate: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rate: expected 0\.01 to 1000 pictures a second, found"):
        VideoFile(tmp_path / "v.mp4", rate)


@pytest.mark.parametrize(
    ("picture", "error", "found"),
    [
        ("a.jpg", InputError, "found str"),
        (grey(1).astype(np.float32), DTypeError, "found float32"),
        (grey(1)[..., 0], ShapeError, r"found \[48, 64\]"),
        (np.zeros((48, 64, 4), np.uint8), ShapeError, r"found \[48, 64, 4\]"),
        (np.zeros((0, 64, 3), np.uint8), ShapeError, r"found \[0, 64, 3\]"),
        (np.zeros((16, 8191, 3), np.uint8), ImageTooLarge, r"at most 8190 .*found 8191x16; plot\(side=8190\)"),
        (np.zeros((8192, 16, 3), np.uint8), ImageTooLarge, "found 16x8192"),
    ],
)
def test_other_pictures(picture: object, error: type[Exception], found: str, tmp_path: Path) -> None:
    # The block ends well: the caller goes on.
    with VideoFile(tmp_path / "v.mp4", 10) as video, pytest.raises(error, match=found):
        video.add(picture)
    assert os.listdir(tmp_path) == []
    with VideoFile(tmp_path / "v.mp4", 10) as video:
        video.add(grey(0))
        if error is not ImageTooLarge:
            with pytest.raises(error, match=found):
                video.add(picture)
        video.add(grey(100))
    assert levels(tmp_path / "v.mp4") == [0, 100]


@pytest.mark.parametrize("timestamp", [float("nan"), float("inf"), "1"])
def test_other_timestamps(timestamp: object, tmp_path: Path) -> None:
    with (
        VideoFile(tmp_path / "v.mp4", 10, paced=True) as video,
        pytest.raises(InputError, match="timestamp: expected seconds or None"),
    ):
        video.add(grey(0), timestamp)


@pytest.mark.parametrize(("height", "width"), [(16, 8190), (8190, 16), (1, 1)])
def test_the_greatest_and_the_least(height: int, width: int, tmp_path: Path) -> None:
    with VideoFile(tmp_path / "v.mp4", 10) as video:
        video.add(grey(100, height, width))
    assert [frame.shape[:2] for frame in frames(tmp_path / "v.mp4")] == [(height + height % 2, width + width % 2)]


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
