from __future__ import annotations

import json
from pathlib import Path

import pytest
import toys

from graftsdk.cli.main import main
from graftsdk.plan import open_plan
from graftsdk.plan.onnx_part import write_onnx_part

STOCK = toys.trunk()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764090000")
    toys.write(tmp_path / "engine.plan")
    write_onnx_part("hat.onnx", *toys.branch("hat", 2, seed=9, on=STOCK[1]))
    write_onnx_part("child.onnx", *toys.branch("child", 0, seed=19, on=STOCK[1]))
    write_onnx_part("trunk.onnx", *STOCK)
    write_onnx_part("foreign.onnx", *toys.branch("hat", 2, on=toys.trunk(3)[1]))
    return tmp_path


def labels(path: str) -> list[str]:
    with open_plan(path) as plan:
        return list(plan.labels)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_add_says_what_changed_and_what_stayed(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "plan", "add", "engine.plan", "hat.onnx")
    assert "added     hat" in out
    assert "untouched 3 labels, same parts, same scores: child, gender, backpack" in out
    assert "ALTERED" not in out
    assert labels("engine.plan") == ["child", "gender", "backpack", "hat"]


def test_add_replaces_only_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("engine.plan").read_bytes()
    assert main(["plan", "add", "engine.plan", "hat.onnx", "child.onnx"]) == 2
    assert "--replace" in capsys.readouterr().err
    assert Path("engine.plan").read_bytes() == before
    words = ("plan", "add", "engine.plan", "hat.onnx", "child.onnx", "--replace", "-o", "new.plan", "--json")
    found = json.loads(said(capsys, *words))
    assert {each["label"]: each["action"] for each in found["changes"]} == {"child": "replaced", "hat": "added"}
    assert found["kept"] == ["gender", "backpack"]
    assert found["tensors"]["altered"] == 0
    assert Path("engine.plan").read_bytes() == before


@pytest.mark.parametrize(
    ("part", "says"),
    [("trunk.onnx", "found a trunk"), ("foreign.onnx", "fingerprint"), ("engine.plan", "expected an exported branch")],
)
def test_add_refuses(part: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "add", "engine.plan", part]) == 2
    assert says in capsys.readouterr().err


def test_remove_and_revert(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "plan", "remove", "engine.plan", "gender")
    assert "removed   gender" in out
    assert "0 new" in out
    assert labels("engine.plan") == ["child", "backpack"]
    out = said(capsys, "plan", "revert", "engine.plan", "gender")
    assert "added     gender" in out
    assert sorted(labels("engine.plan")) == ["backpack", "child", "gender"]
    assert main(["plan", "remove", "engine.plan", "hat"]) == 2
    assert "no label 'hat'" in capsys.readouterr().err


def test_merge(capsys: pytest.CaptureFixture[str]) -> None:
    toys.write(Path("new.plan"), ["hat", "child"], seed=3)
    assert main(["plan", "merge", "engine.plan", "new.plan", "-o", "both.plan"]) == 2
    assert "'child'" in capsys.readouterr().err
    out = said(capsys, "plan", "merge", "engine.plan", "new.plan", "-o", "both.plan", "--replace")
    assert "replaced  child" in out
    assert "added     hat" in out
    assert "untouched 2 labels, same parts, same scores: gender, backpack" in out
    with open_plan("both.plan") as plan:
        assert len(plan.manifest.trees) == 2
    (head,) = [line for line in said(capsys, "info", "both.plan").splitlines() if line.startswith("label ")]
    assert head.endswith("trunk")  # two trees: the table says which
    assert said(capsys, "info", "both.plan", "--cost").count("\ntrunk toy to tap") == 2


def test_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no label differs" in said(capsys, "plan", "diff", "engine.plan", "engine.plan")
    assert main(["plan", "remove", "engine.plan", "gender", "-o", "less.plan"]) == 0
    capsys.readouterr()
    found = json.loads(said(capsys, "plan", "diff", "engine.plan", "less.plan", "--json"))
    assert [(each["label"], each["action"]) for each in found["changes"]] == [("gender", "removed")]


def test_log(capsys: pytest.CaptureFixture[str]) -> None:
    with open_plan("engine.plan") as plan:
        digest = plan.digest
    assert main(["plan", "add", "engine.plan", "child.onnx", "--replace"]) == 0
    capsys.readouterr()
    lines = said(capsys, "plan", "log", "engine.plan").splitlines()
    assert len(lines) == 2 + 4
    assert lines[-1].split()[:3] == ["2025-11-25T17:00:00Z", "replace", "child"]
    assert lines[-1].endswith(digest[:16])
    found = json.loads(said(capsys, "plan", "log", "engine.plan", "--json"))
    assert [event["action"] for event in found] == ["add", "add", "add", "replace"]
    assert found[-1]["source"] == digest
    assert found[-1]["before"] == found[0]["after"]
