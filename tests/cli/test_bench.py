"""What `graftsdk bench` prints: tables that one can read, JSON, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import toys

from graftsdk.cli.bench import _print
from graftsdk.cli.main import main
from graftsdk.lifecycle import bench
from graftsdk.lifecycle.picture_cases import STAGES, PictureRow
from graftsdk.lifecycle.promise import EngineRow
from graftsdk.lifecycle.turns import Spread

QUICK = ("--seconds", "0.001")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plan and two images; the working directory. One run is enough to be printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "LEAST_RUNS", 1)
    toys.write(tmp_path / "engine.plan")
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        assert cv2.imwrite(str(tmp_path / "photos" / name), np.zeros((60, 50, 3), np.uint8))
    return tmp_path


@pytest.mark.usefixtures("home")
def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine.plan", *QUICK, "--threads", "1", "--persons", "0,2", "--batch", "1,4"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "engine.plan: 3 labels on toy 32x32"
    head = {line.split(" ", 1)[0]: line for line in lines[1:9]}
    assert "layout merged, no segmenter" in head["runs"]
    assert "cpu, 1 thread, a pool for each session" in head["device"]
    assert "onnxruntime" in head["versions"]
    for title in ("ENGINE", "PROMISE", "PICTURES"):
        assert any(line.startswith(f"{title}: ") for line in lines)
    assert "1.12 networks by multiply-adds" in captured.out
    assert len(re.findall(r"^  drawn(?!:)", captured.out, re.MULTILINE)) == 3
    assert "          0.001 s were asked for; 1 run of each took longer\n" in captured.out
    assert "measuring 7 cases" in captured.err


@pytest.mark.usefixtures("home")
def test_images_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "engine.plan", "--images", "photos", "photos/*.png", "--labels", "gender", "--layout", "split"]
    assert main([*words, *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["pictures"]] == ["a.png", "b.png", "all 2 in one list"]
    assert list(found["pictures"][0]["stages"]) == ["decode", "segment", "crop", "engine", "rest"]
    assert (found["labels"], found["layout"], found["drawn"]) == (["gender"], "split", False)
    assert found["engine"][0]["measured_to_expected"] > 0
    assert (found["asked"], found["unreadable"], found["left_out"]) == (0.001, {}, 0)


@pytest.mark.parametrize("segmenter", ["yolo 640x640", None])
def test_pictures_fit_a_terminal(segmenter: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """The widest rows there are, in 100 columns; what is the whole list's and what each picture's is told apart."""
    slow, fast = Spread(1234.5, 1234.5, 1234.5, 3), Spread(0.5, 0.5, 0.5, 3)
    stages = {stage: slow if stage in ("decode", "segment") else fast for stage in STAGES}
    rows = (
        PictureRow("a-name-that-is-far-too-long-for-a-table.jpg", (16384, 12345), 300, stages, slow),
        PictureRow("all 8 in one list", (60, 50), 1.5, {}, slow, 8),
    )
    machine = bench.Machine("CPU", ("avx",), 2, 0.0, "cpu", 2, False, {"numpy": "2"})
    found = bench.Bench(
        machine, "e.plan", ("hat",), "merged", "int8", 1, ("toy 32x32",), segmenter, 1.5, 10**6, 0.1, False,
        (EngineRow(1, fast, 0.5, 0.5, 1.0),), rows, 0, {}, 20.0, 20.04, False,
    )  # fmt: skip
    _print(found)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert "\n  a-name-that-is-far-too-…  min  1234.5" in out
    assert "12345x16384, 300 persons" in out
    assert ("\n  3 runs, 100% segment" in out) is (segmenter is not None)
    assert "\n  1.5 persons in each " in out
    assert ", int8 (1 part in float32); ready" in out
    assert "measured  20.0 s" in out and "asked for" not in out


def test_a_bad_picture_is_left_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "photos" / "aa.png").write_bytes(b"no picture")
    assert main(["bench", "engine.plan", *QUICK, "--json", "--images", "photos", "none.jpg"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [row["name"] for row in found["pictures"]] == ["a.png", "b.png", "all 2 in one list"]
    assert sorted(found["unreadable"]) == ["none.jpg", "photos/aa.png"]
    assert "photos/aa.png: expected JPEG, PNG, WebP or BMP, found other content (10 bytes); left out\n" in captured.err
    assert "none.jpg: expected a file, found nothing" in captured.err


@pytest.mark.usefixtures("home")
def test_labels_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine.plan", *QUICK, "--persons", "0", "--json", "--labels", "gender,child"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["gender", "child"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--images", "photos/*.gif"], "found none that fit"),
        (["--images", "engine.plan"], "found none of 1; engine.plan: expected JPEG"),
        (["--batch", "0"], "batches"),
        (["--persons", "-1"], "persons"),
        (["--seconds", "-1"], "seconds"),
        (["--seconds", "0"], "seconds: expected more than 0"),
        (["--labels", "hat"], "hat"),
        (["--threads", "0"], "threads"),
    ],
)
def test_refusals(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine.plan", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["--batch", "one"],
        ["--batch", ""],
        ["--persons", "1,,2"],
        ["--seconds", "soon"],
        ["--persons", "1", "--images", "x"],
        ["--fast"],
    ],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "engine.plan", *words])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("usage: graftsdk bench")
    assert words[0] in lines[-1]


@pytest.mark.usefixtures("home")
def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What was measured is printed."""
    in_turns = bench.in_turns

    def interrupted(*args, **options):  # type: ignore[no-untyped-def]
        yield from in_turns(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "in_turns", interrupted)
    assert main(["bench", "engine.plan", *QUICK, "--images", "photos"]) == 130
    captured = capsys.readouterr()
    assert "PICTURES" in captured.out
    assert captured.err.splitlines()[-1].startswith("interrupted after ")


def test_one_pool_for_all(home: Path) -> None:
    """In a process of its own: the pool is the process's, and only once."""
    run = subprocess.run(
        [sys.executable, "-c", "import sys; from graftsdk.cli.main import main; sys.exit(main())"]
        + ["bench", "engine.plan", *QUICK, "--share-threads", "--threads", "2", "--images", "photos/a.png"],
        cwd=home, text=True, capture_output=True, timeout=60, check=False, env={**os.environ, "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "2 threads, one pool for all sessions" in run.stdout
