from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import toys

from graftsdk._native import cpu_features
from graftsdk.cli.main import main
from graftsdk.plan import Provenance, open_plan
from graftsdk.plan.edit import create_plan
from graftsdk.plan.edit_lowered import store_lowered
from graftsdk.plan.lowered import Lowered
from graftsdk.plan.onnx_part import write_onnx_part


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "engine.plan"
    trunk = toys.trunk()
    gender = toys.branch(
        "gender", 1, classes=("other", "female", "male"), on=trunk[1], thresholds={"female": 0.4, "male": 0.5}
    )
    owned = replace(gender[1], provenance=Provenance("CC-BY-4.0", "Ada"))
    create_plan(path, trunk, [(gender[0], owned), toys.branch("hat", 3, seed=2, on=trunk[1])])
    return str(path)


def line(text: str, start: str) -> str:
    (found,) = [each for each in text.splitlines() if each.startswith(start)]
    return found


def test_plan(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", plan]) == 0
    out = capsys.readouterr().out
    gender = line(out, "gender")
    for word in ("other, female, male", "female, male", "female 0.4, male 0.5", "1..2", "gap", "CC-BY-4.0", "Ada"):
        assert word in gender
    assert " 3 " in line(out, "hat")  # tap B: no own blocks
    assert "toy, 3 blocks" in line(out, "trunk")
    assert "32x32" in line(out, "crop")
    assert "none" in line(out, "segmenter")


@pytest.mark.parametrize(
    ("classes", "thresholds", "says"),
    [
        (("no", "yes"), {}, "0.5 (default)"),
        (("no", "yes"), {"yes": 0.7}, "yes 0.7"),
        (("a", "b", "c"), {}, "none"),
    ],
)
def test_thresholds(
    tmp_path: Path,
    classes: tuple[str, ...],
    thresholds: dict[str, float],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trunk = toys.trunk()
    branch = toys.branch("hat", 1, classes=classes, thresholds=thresholds, on=trunk[1])
    create_plan(tmp_path / "engine.plan", trunk, [branch])
    assert main(["info", str(tmp_path / "engine.plan")]) == 0
    assert f"  {says}  " in line(capsys.readouterr().out, "hat")


def test_plan_as_json(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", plan, "--cost", "--json", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)  # progress and log lines are on stderr
    assert found["kind"] == "plan"
    assert [label["label"] for label in found["labels"]] == ["gender", "hat"]
    assert found["labels"][0]["licence"] == "CC-BY-4.0"
    assert found["cost"]["measured"]["threads"] == 1
    assert found["cost"]["separate_networks"] == 2


def test_cost(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", plan, "--cost"]) == 0
    out = capsys.readouterr().out
    for start in ("trunk toy to tap 3", "total"):
        cells = line(out, start).split()
        assert float(cells[-1]) >= float(cells[-2]) > 0  # median, least
    assert "1.25 networks for 2 labels, against 2 separate networks: 1.60 times less" in out
    assert f"CPU: {' '.join(cpu_features())}" in out


def test_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part, document = toys.branch("hat", 2)
    path = tmp_path / "hat.onnx"
    write_onnx_part(path, part, document)
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert part.digest in out
    assert document.trunk_fingerprint in out
    assert "hat: no, yes" in out
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "branch part"
    assert main(["info", str(path), "--cost"]) == 2
    assert "expected a plan for --cost" in capsys.readouterr().err


def test_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from graftsdk.models import Branch, Trunk

    trunk = Trunk.create("resnet18", input_size=(64, 64), width=0.25)
    trunk.save(tmp_path / "trunk.safetensors")
    Branch.create(trunk, label="hat", tap=5).save(tmp_path / "hat.safetensors")
    for name, words in {"trunk": ("resnet18 at width 0.25", "8 blocks"), "hat": ("tap 5..8 of resnet18",)}.items():
        assert main(["info", str(tmp_path / f"{name}.safetensors")]) == 0
        out = capsys.readouterr().out
        assert "checkpoint" in out
        assert all(word in out for word in words)


def test_a_label_that_was_not_tried(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open_plan(plan) as opened:
        (tree,) = opened.manifest.trees
    good = Lowered("", True, 5, 0.1, 0.01, 0, None, 0.001)
    store_lowered(plan, "fp16", {tree.trunk: good, tree.branches[0].part: good})
    assert main(["info", plan]) == 0
    out = capsys.readouterr().out
    rows = [each.split() for each in out.splitlines() if each.startswith("fp16")]
    assert [row[1:3] for row in rows] == [["trunk", "yes"], ["gender", "yes"], ["hat", "not"]]
    assert "not tried: its trunk is lowered and moves it" in out
