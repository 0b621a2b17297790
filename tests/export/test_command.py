"""`graftsdk-export` as it is called: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from graftsdk.cli.export import main
from graftsdk.errors import InputError
from graftsdk.export.parts import branch_part, trunk_part
from graftsdk.models import Branch, Trunk
from graftsdk.plan import load_plan
from graftsdk.plan.manifest import DEFAULT_PERSONS

COMMAND = [sys.executable, "-m", "graftsdk.cli.export"]


def arguments(files: Path, *names: str) -> list[str]:
    return [
        "--trunk",
        str(files / "trunk.safetensors"),
        "--branches",
        *(str(files / f"{n}.safetensors") for n in names),
    ]


def test_from_checkpoints_to_a_plan(files: Path, tmp_path: Path, trunk: Trunk, branches: dict[str, Branch]) -> None:
    plan = tmp_path / "engine.plan"
    call = [*COMMAND, *arguments(files, "hat", "gender"), "-o", str(plan)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["label", "reports", "classes", "tap"]
    assert [line.split()[0] for line in lines[2:6]] == ["trunk", "hat", "gender", "total"]
    assert "female, male" in lines[4] and lines[4].rstrip().endswith("no samples")
    assert "for 2 labels, against 2 separate networks" in lines[6]
    assert "export:" in done.stderr and "hat" in done.stderr and "verify" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["engine.plan"]
    with load_plan(plan) as found:
        assert found.labels == ("hat", "gender")
        digests = {info.digest for info in found.manifest.parts.values()}
    # exported here, in another process and in another order
    here = [branch_part(branches["gender"]), branch_part(branches["hat"]), trunk_part(trunk)[0]]
    assert digests == {part.digest for part in here}


def test_ctrl_c_leaves_nothing(files: Path, tmp_path: Path) -> None:
    call = [*COMMAND, *arguments(files, "hat", "gender"), "-o", str(tmp_path / "engine.plan")]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [*call, "--parts", str(tmp_path / "parts")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stderr is not None and process.stdout is not None
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        seen = b""
        while b"trunk" not in seen:  # the bar says what is being exported
            byte = process.stderr.read(1)
            assert byte, seen
            seen += byte
        process.send_signal(signal.SIGINT)
        output, rest = process.communicate()
    finally:
        killer.cancel()
        process.kill()
    assert process.returncode == 130, rest
    assert output == b"" and rest.endswith(b"interrupted: nothing was written\n") and b"Traceback" not in rest
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
    assert not [path for path in temporary.iterdir() if "graftsdk" in path.name or path.suffix in (".onnx", ".plan")]


def test_json_and_quiet(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(tmp_path / "engine.plan")
    assert main([*arguments(files, "hat"), "-o", plan, "--json", "--parts", str(tmp_path / "parts"), "--quiet"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["path"] == plan and len(report["parts"]) == 2 and report["samples"] == 0
    assert report["cost"]["labels"][0]["label"] == "hat" and said.err == ""
    assert main([*arguments(files, "hat"), "--parts", str(tmp_path / "parts"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_refusals_are_one_line_and_2(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["-o", str(tmp_path / "engine.plan"), "--quiet"]
    assert main([*arguments(files, "stranger"), *plan]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "label 'stranger' wants a resnet18 trunk" in said.err and "graftsdk-export --trunk" in said.err
    assert main([*arguments(files, "hat", "absent"), *plan]) == 2
    assert "absent.safetensors: expected a readable file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extra", [[], ["--segmenter", "s.onnx", "--parts", "p"], ["-o", "x", "--nonsense"]])
def test_a_wrong_call_is_2(files: Path, extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments(files, "hat"), *extra])
    assert ended.value.code == 2 and "usage: graftsdk-export" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "graftsdk-export --trunk trunk.safetensors" in text and "exit status" in text


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_a_missing_package_says_what_to_install(files: Path, package: str) -> None:
    script = "import sys; sys.modules[sys.argv.pop(1)] = None; from graftsdk.cli.export import main; sys.exit(main())"
    call = [sys.executable, "-c", script, package, *arguments(files, "hat"), "-o", "never.plan"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: \S+ needs {package}: pip install 'graftsdk\[export\]'\n", done.stderr)


def test_what_the_segmenter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, object] = {}

    def export_plan(*paths: object, **options: object) -> object:
        told.update(options)
        raise InputError("enough")

    monkeypatch.setattr("graftsdk.export.export_plan", export_plan)
    call = ["--trunk", "t", "--branches", "b", "-o", "p", "--segmenter", "s.onnx"]
    assert main(call) == 2
    assert (told["segmenter_family"], told["segmenter_size"], told["max_persons"]) == (None, None, DEFAULT_PERSONS)
    extra = "--segmenter-family yolo --segmenter-size 320 640 --score-threshold .3 --iou-threshold .6 --max-persons 9"
    assert main([*call, *extra.split()]) == 2
    assert (told["segmenter_family"], told["segmenter_size"], told["max_persons"]) == ("yolo", (320, 640), 9)
    assert (told["score_threshold"], told["iou_threshold"]) == (0.3, 0.6)
