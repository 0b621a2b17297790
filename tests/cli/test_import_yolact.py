from __future__ import annotations

import json
from pathlib import Path

import pytest

from graftsdk.cli.main import main

torch = pytest.importorskip("torch")
original_yolact = pytest.importorskip("original_yolact")  # needs torch


def test_import_yolact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "yolact.pth", tmp_path / "segmenter.safetensors"
    torch.save(original_yolact.hollow(classes=2), source)
    words = ["import", "yolact", str(source), "-o", str(target)]
    options = ["--scales", "32", "64", "128", "256", "512", "--rectangular-priors", "--json"]
    assert main([*words, *options, "--classes", "person", "trolley"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["classes"], found["input_size"]) == ("segmenter", ["person", "trolley"], [550, 550])
    assert (found["path"], found["arch"]) == (str(target), "resnet50")
    assert (found["scales"], found["square_priors"]) == ([32, 64, 128, 256, 512], False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "classes: expected the names of the 2 classes"),
        (["--classes", "a", "b", "--size", "9"], "input_size"),
    ],
)
def test_one_line_and_no_file(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "yolact.pth", tmp_path / "segmenter.safetensors"
    torch.save(original_yolact.hollow(classes=2), source)
    assert main(["import", "yolact", str(source), "-o", str(target), *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ") and told.count("\n") == 1
    assert not target.exists()


@pytest.mark.parametrize("words", [["x.pth"], ["-o", "y"], ["x.pth", "-o", "y", "--scales", "1", "2"]])
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import", "yolact", *words])
    assert "usage: graftsdk import yolact" in capsys.readouterr().err
