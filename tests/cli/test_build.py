from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toys

from graftsdk.cli.main import main

pytest.importorskip("tensorrt_rtx")

# The real library for the command; the building process, which has not loaded that module, is held up by it.
SLOW = """
import sys, time
if "graftsdk.export.build" not in sys.modules:
    time.sleep(60)
from tensorrt_rtx_bindings import *
from tensorrt_rtx_bindings import __version__
"""


def line(text: str, start: str) -> list[str]:
    (found,) = [each for each in text.splitlines() if each.startswith(start)]
    return found.split()


def test_build_then_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, folder = str(tmp_path / "engine.plan"), tmp_path / "engine.engines"
    toys.write(tmp_path / "engine.plan")
    command = ["build", plan, "--for", "8.9", "--for", "12.0", "--batch", "1,2", "--labels=child,backpack"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    (record,) = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    name = record["file"].removesuffix(".engine")
    size = os.path.getsize(folder / record["file"])
    row = line(out, "merged-")
    assert row[0] == name and f"{size / 1e6:.1f}" in row and record["sha256"][:16] in row
    assert "child, backpack" in out and f"for 8.9, 12.0: {folder}" in out
    assert f"{name}: " in err and "ONNX IR version" not in err

    assert main(["info", str(folder)]) == 0
    assert name in line(capsys.readouterr().out, "merged-")
    for path in (folder / record["file"], folder / f"{name}.json"):
        assert main(["info", str(path)]) == 0
        shown = capsys.readouterr().out
        for word in (
            "tensorrt_rtx 1.",
            "8.9, 12.0",
            "child, backpack",
            "profile 1 to 2, tuned for 2",
            record["sha256"],
        ):
            assert word in shown
        assert "every byte is as it was built" in shown and "no device could open it" in shown
    (folder / "notes.json").write_text("{}")  # somebody's
    (folder / "merged-notes.json").write_text("[]")
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"kind": "engine", "path": str(folder / record["file"]), "problem": None, **record}
    ]

    assert main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["engines"] == [{**record, "kept": True}]
    with open(folder / record["file"], "ab") as file:
        file.write(b"x")
    assert main(["info", str(folder)]) == 1
    assert f"expected {size} bytes, found {size + 1}" in capsys.readouterr().out
    assert main(["info", str(folder), "--cost"]) == 2
    (folder / record["file"]).unlink()
    assert main(["info", str(folder)]) == 1
    assert "the engine that its record names" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--for", "9.0"], "compute capability 9.0: expected one of 7.5, 8.0, 8.6, 8.9, 12.0"),
        (["--for", "8.9", "--labels", "nobody"], "the plan has no label 'nobody'"),
        (["--for", "8.9", "--precision", "int8"], "graftsdk quantize"),
        (["--for", "8.9", "-o", "/dev/null"], "expected a folder for the engines"),
    ],
)
def test_refusals_take_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    toys.write(tmp_path / "engine.plan")
    assert main(["build", str(tmp_path / "engine.plan"), *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and says in error
    assert [path.name for path in tmp_path.iterdir()] == ["engine.plan"]


@pytest.mark.parametrize(("words", "says"), [(["--batch", "1;8"], "1,8,32"), (["--precision", "fp8"], "fp16")])
def test_words_that_are_none(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["build", "engine.plan", *words])
    assert caught.value.code == 2 and says in capsys.readouterr().err


def test_a_folder_without_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tmp_path)]) == 2
    assert "or a folder of engines that graftsdk build made, found neither" in capsys.readouterr().err
    (tmp_path / "merged-0.engine").touch()
    assert main(["info", str(tmp_path)]) == 2
    assert "found none beside 'merged-0.engine'" in capsys.readouterr().err


def test_signals_end_a_build_at_once_and_leave_nothing(tmp_path: Path) -> None:
    library = tmp_path / "library" / "tensorrt_rtx"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text(SLOW)
    toys.write(tmp_path / "engine.plan", ["child"])
    code = "import sys; from graftsdk.cli.main import main; sys.exit(main(sys.argv[1:]))"
    env = {**os.environ, "PYTHONPATH": str(library.parent)}
    started = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        words = ["build", str(tmp_path / "engine.plan"), "--for", "8.9", "-o", str(tmp_path / number.name)]
        started[number] = subprocess.Popen(
            [sys.executable, "-c", code, *words], env=env, stderr=subprocess.PIPE, text=True, process_group=0
        )
    ended = {}
    for number, process in started.items():
        folder = tmp_path / number.name
        while not begun(folder):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        (child,) = children(process.pid)
        os.killpg(process.pid, number)  # as a terminal does
        _, error = process.communicate(timeout=20)
        ended[number] = (process.returncode, error.splitlines()[-1])
        wait_for_the_end(child)
        assert not folder.exists()
    assert ended == {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


def begun(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob(".merged-*.tmp"))


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_for_the_end(process: int) -> None:
    for _ in range(500):
        try:
            if " Z " in Path(f"/proc/{process}/stat").read_text():  # dead; who inherited it has not asked yet
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)
    pytest.fail("the building process goes on alone")
