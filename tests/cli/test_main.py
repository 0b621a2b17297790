"""The frame that all commands share: help, exit codes, errors in one line, quiet ends."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import toys

import graftsdk
from graftsdk.cli.main import COMMANDS, main

SUBCOMMANDS = {
    "cache": ("ls", "clear", "verify"),
    "plan": ("add", "remove", "revert", "merge", "diff", "log"),
    "import": ("torchvision", "yolact", "peta", "pa100k", "rap"),
    "train": ("trunk", "branch", "segmenter"),
}
EVERY = [
    *((name,) for name in COMMANDS),
    *((name, action) for name, actions in SUBCOMMANDS.items() for action in actions),
]


def start(*arguments: str, cwd: Path, code: str | None = None) -> subprocess.Popen[str]:
    """`graftsdk` with these arguments in a process of its own."""
    program = "import sys; from graftsdk.cli.main import main; sys.exit(main())" if code is None else code
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONSAFEPATH": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_is_complete(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: graftsdk {' '.join(words)}")
    assert f"\n  graftsdk {' '.join(words)}" in text.partition("example")[2]  # an example of this very command


def test_top_help_names_every_command_and_loads_none(tmp_path: Path) -> None:
    code = (
        "import sys; from graftsdk.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(set(sys.modules) & {'numpy', 'cv2', 'onnxruntime', 'torch', 'onnx', 'onnx_ir', 'PIL'}))"
    )
    process = start(cwd=tmp_path, code=code)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert all(re.search(rf"\n    {name}\s", out) for name in COMMANDS)
    assert out.endswith("[]\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"graftsdk {graftsdk.__version__}\n"


@pytest.mark.parametrize(
    ("words", "command", "says"),
    [
        ((), "", "COMMAND"),
        (("nonsense",), "", "nonsense"),
        (("--nonsense", "info", "x"), "", "--nonsense"),
        (("info",), " info", "required"),
        (("plan",), " plan", "required"),
        (("cache", "burn"), " cache", "burn"),
        (("info", "x", "--nonsense"), " info", "--nonsense"),
        (("plan", "log", "x", "--nonsense"), " plan log", "--nonsense"),
        (("predict", "x", "y", "--device", "tpu"), " predict", "tpu"),
        (("predict", "x", "y", "--shet", "z"), " predict", "unrecognized arguments: --shet z"),
        (("predict", "x", "y", "--\x1b[31m"), " predict", "--\N{REPLACEMENT CHARACTER}[31m"),
        (("predict", "x"), " predict", "are required: SOURCES"),
        (("predict", "x", "--labels", "child", "y"), " predict", "put it last, or write --labels=child,gender"),
        (("bench", "--images", "y", "x"), " bench", "PLAN; --images takes every word after it: put it last"),
    ],
)
def test_wrong_arguments(words: tuple[str, ...], command: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The usage of the very command, and what is wrong."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"usage: graftsdk{command} [-h]")
    last = err.splitlines()[-1]
    assert last.startswith(f"graftsdk{command}: error: ") and says in last


@pytest.mark.parametrize(
    "words",
    [
        ("info", "missing.plan"),
        ("predict", "missing.plan", "image.jpg"),
        ("bench", "missing.plan"),
        ("verify", "missing.plan"),
        ("plan", "add", "missing.plan", "missing.onnx"),
        ("plan", "remove", "missing.plan", "child"),
        ("plan", "revert", "missing.plan", "child"),
        ("plan", "merge", "missing.plan", "missing.plan", "-o", "x.plan"),
        ("plan", "diff", "missing.plan", "missing.plan"),
        ("plan", "log", "missing.plan"),
    ],
    ids=" ".join,
)
def test_errors_are_one_line(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "missing" in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_a_missing_package_says_what_to_install(package: str, tmp_path: Path) -> None:
    numbers = ["--mean", "0", "0", "0", "--std", "1", "1", "1"]
    words = ["import", "torchvision", "w.pth", "--arch", "resnet18", *numbers, "-o", "t.safetensors"]
    code = f"import sys; sys.modules[{package!r}] = None; from graftsdk.cli.main import main; sys.exit(main())"
    process = start(*words, cwd=tmp_path, code=code)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == f"error: graftsdk.models needs {package}: pip install 'graftsdk[export]'\n"


def test_names_cannot_steer_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["info", "red\x1b[31m.plan"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_full_disk_is_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toys.write(tmp_path / "engine.plan")
    before = (tmp_path / "engine.plan").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["plan", "remove", str(tmp_path / "engine.plan"), "child"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (tmp_path / "engine.plan").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["engine.plan"]


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    toys.write(tmp_path / "engine.plan", [f"label {number}" for number in range(200)])
    process = start("info", "engine.plan", "--json", cwd=tmp_path)  # more than a pipe holds
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert err == ""
    process.stderr.close()


def test_interrupted(tmp_path: Path) -> None:
    toys.write(tmp_path / "engine.plan")
    (tmp_path / "photos").mkdir()
    image = cv2.imencode(".png", np.zeros((400, 400, 3), np.uint8))[1].tobytes()
    for number in range(5000):
        (tmp_path / "photos" / f"{number}.png").write_bytes(image)
    process = start("predict", "engine.plan", "photos", "-o", "pictures", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("photos/0.png ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    saved = list((tmp_path / "pictures").iterdir())
    assert 0 < len(saved) < 5000
    assert all(path.suffix == ".png" and cv2.imread(str(path)) is not None for path in saved)  # whole, or not there


def test_interrupted_in_a_video(tmp_path: Path) -> None:
    """The video is kept as far as it got, whole; what was printed are whole lines."""
    toys.write(tmp_path / "engine.plan")
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 240))
    for level in range(2000):
        writer.write(np.full((240, 320, 3), level % 256, np.uint8))
    writer.release()
    process = start("predict", "engine.plan", "clip.mp4", "-o", "out", "--json", cwd=tmp_path)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert err.splitlines()[-2].split(" ", 2)[1] == "frames,"
    assert "Traceback" not in err
    lines += out.splitlines()
    frames = [json.loads(line)["frame"] for line in lines]
    assert frames == list(range(len(frames)))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.mp4"]
    reader = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert len(frames) <= reader.get(cv2.CAP_PROP_FRAME_COUNT) <= len(frames) + 1 < 2000
    reader.release()


def test_library_is_as_quiet_afterwards_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("graftsdk")
    before = (list(logger.handlers), logger.level)
    toys.write(tmp_path / "engine.plan")
    assert main(["info", str(tmp_path / "engine.plan"), "--cost"]) == 0
    assert "compiling" in capsys.readouterr().err
    assert (logger.handlers, logger.level) == before


def test_terminal_that_cannot_show_a_label(tmp_path: Path) -> None:
    toys.write(tmp_path / "engine.plan", ["帽子"])
    process = start(
        cwd=tmp_path,
        code="import sys; sys.stdout.reconfigure(encoding='ascii')\n"
        "from graftsdk.cli.main import main; sys.exit(main(['info', 'engine.plan']))",
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\\u5e3d\\u5b50" in out


def test_no_command_needs_torch(tmp_path: Path) -> None:
    toys.write(tmp_path / "engine.plan")
    (tmp_path / "one.png").write_bytes(cv2.imencode(".png", np.zeros((40, 40, 3), np.uint8))[1].tobytes())
    commands = [
        ["info", "engine.plan", "--cost"],
        ["predict", "engine.plan", "one.png"],
        ["bench", "engine.plan", "--images", "one.png", "--seconds", "0.01"],
        ["verify", "engine.plan", "--bisect", "--samples", "."],
        ["plan", "remove", "engine.plan", "child"],
        ["plan", "log", "engine.plan"],
        ["cache", "verify"],
        ["doctor"],
    ]
    code = (
        "import sys; from graftsdk.cli.main import main\n"
        f"codes = [main(command) for command in {commands!r}]\n"
        "print(codes, 'torch' in sys.modules, 'graftsdk.models' in sys.modules)"
    )
    process = start(cwd=tmp_path, code=code)
    out, err = process.communicate(timeout=120)
    assert out.splitlines()[-1] == "[0, 0, 0, 1, 0, 0, 0, 0] False False", err  # a toy's golden scores are not true
