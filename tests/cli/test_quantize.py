from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from PIL import Image

from graftsdk.cli.main import main
from graftsdk.lifecycle import lowering
from graftsdk.plan import open_plan


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_table(tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, out = tmp_path / "e.plan", tmp_path / "out.plan"
    toys.write(plan, ["child", "gender"])
    content = plan.read_bytes()
    assert main(["quantize", str(plan), "--samples", str(samples), "-o", str(out), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert f"{out}: int8, tolerance 0.005" in told
    assert "ranges    by percentile on 2 samples that are used for nothing else" in told
    assert "compared  2 other crops with float32, 0 of them annotated" in told
    rows = {line.split()[0]: line.split() for line in told.splitlines() if line}
    assert rows["child"][1:3] == ["0", "int8"] and rows["gender"][-1] == "ok"
    assert plan.read_bytes() == content
    with open_plan(out) as lowered:
        assert len(lowered.manifest.forms("int8")) == 3


def test_json(tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "e.plan"
    toys.write(plan, ["child"])
    assert main(["quantize", str(plan), "--precision", "fp16", "--samples", str(samples), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["precision"], found["ok"], found["compared"]) == ("fp16", True, 4)
    assert found["labels"][0]["branch"]["auc_change"] is None and found["labels"][0]["verdict"] == "ok"
    assert found["trunks"][0]["figures"]["samples"] == 4


def test_a_settled_trunk_that_moves_a_label(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "e.plan"
    toys.write(plan, ["child"])
    command = ["quantize", str(plan), "--samples", str(samples), "--quiet"]
    assert main(command) == 0
    real = lowering.figures_of

    def far(*arguments: object) -> object:
        return replace(real(*arguments), mean=0.5)  # type: ignore[arg-type]

    monkeypatch.setattr(lowering, "figures_of", far)
    capsys.readouterr()
    assert main([*command, "--labels", "child"]) == 1
    told = capsys.readouterr().out
    assert "int8, as it was settled before" in told
    assert "MOVED by the trunk" in told


def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "e.plan"
    toys.write(plan, ["child"])
    assert main(["quantize", str(plan)]) == 2
    assert "name one with --samples DIR" in capsys.readouterr().err
