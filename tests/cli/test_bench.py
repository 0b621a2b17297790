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

from graftsdk.cli.main import main
from graftsdk.lifecycle import bench

QUICK = ("--seconds", "0")


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
    assert max(map(len, lines)) <= 120
    assert "measuring 7 cases" in captured.err


@pytest.mark.usefixtures("home")
def test_images_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "engine.plan", "--images", "photos", "photos/*.png", "--labels", "gender", "--layout", "split"]
    assert main([*words, *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["pictures"]] == ["a.png", "b.png", "all 2 in one list"]
    assert list(found["pictures"][0]["stages"]) == ["decode", "segment", "crop", "engine", "rest"]
    assert (found["labels"], found["layout"], found["drawn"]) == (["gender"], "split", False)
    assert found["engine"][0]["reached"] > 0


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--images", "photos/*.gif"], "found none that fit"),
        (["--images", "engine.plan"], "engine.plan"),
        (["--batch", "0"], "batches"),
        (["--persons", "-1"], "persons"),
        (["--seconds", "-1"], "seconds"),
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
    ],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "engine.plan", *words])
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err.splitlines()[-1]


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
