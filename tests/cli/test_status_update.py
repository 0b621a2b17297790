from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from lifecycle.small_registry import TOML, Workshop, write_label, write_registry

from graftsdk.cli import status, update
from graftsdk.cli.output import Parser
from graftsdk.errors import InputError, NonFiniteOutput
from graftsdk.lifecycle import updating


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A registry in the working directory; what trains and exports are toys."""
    monkeypatch.chdir(tmp_path)
    write_registry(tmp_path)
    found = Workshop()
    monkeypatch.setattr(updating, "_tools", lambda: found.tools)
    return found


def said(capsys: pytest.CaptureFixture[str], command: ModuleType, *words: str, code: int = 0) -> str:
    parser = Parser()
    command.configure(parser)
    args = parser.parse_args(words)
    assert args.run(args) == code
    return capsys.readouterr().out


def test_from_nothing_to_a_label_that_stays_on_the_old_trunk(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, status)
    assert out.splitlines()[:3] == [
        "trunk  trunk.safetensors, fingerprint none",
        "       DUE: 2 labels new to it: bag, hat",
        "plan   engine.plan, not there yet",
    ]
    assert "\nhat    untrained  no\n" in out
    out = said(capsys, update, "--trunk", "--dry-run")
    assert [line.split() for line in out.splitlines()[2:]] == [
        ["trunk", "there", "is", "none"],
        ["branch", "bag", "new", "trunk"],
        ["branch", "hat", "new", "trunk"],
        ["plan", "bag"],
        ["plan", "hat"],
    ]
    assert (shop.did, Path("engine.plan").exists()) == ([], False)
    out = said(capsys, update, "--trunk", "--quiet")
    assert "trunk.safetensors: a new trunk" in out
    assert "hat    taken" in out
    assert "engine.plan: 2 labels changed, 0 untouched" in out
    assert said(capsys, update, "--dry-run") == "nothing is due\n"
    assert said(capsys, update) == "engine.plan: not changed\n"

    write_label(Path(), "tie")
    shop.seed, shop.auc = 1, {"hat": 0.7}
    said(capsys, update, "--only", "tie")
    out = said(capsys, update, "--trunk")
    assert "hat    kept        0.9000     0.7000  the old one stays, on its former trunk" in out
    assert "engine.plan: 2 labels changed, 1 untouched, same scores" in out
    out = said(capsys, status)
    assert "       not due: 0 labels new to it\n" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[6:]}
    assert rows["bag"] == ["current", "0.9000", "this", "one", "yes"]
    assert rows["hat"][:2] == ["kept", "0.9000"]
    assert rows["hat"][-5:] == ["yes", "0.7000", "on", "this", "trunk"]


def test_json(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(said(capsys, update, ".", "--trunk", "--json"))
    assert report["trunk"] is True
    assert report["labels"][1] == {"label": "hat", "result": "taken", "before": None, "after": 0.9, "note": ""}
    assert [change["label"] for change in report["plan"]["changes"]] == ["bag", "hat"]
    Path("graft.toml").write_text(TOML.replace("tap = 1", "tap = 0"))
    found = json.loads(said(capsys, status, "graft.toml", "--json"))
    assert found["trunk"]["due"] is False
    assert found["labels"][0] == {
        "label": "bag",
        "state": "stale",
        "stale": ["tap"],
        "problem": "",
        "trunk": found["labels"][1]["trunk"],
        "auc": 0.9,
        "tried": None,
        "plan": "yes",
    }
    steps = json.loads(said(capsys, update, "--dry-run", "--json", "--only", "hat"))
    assert steps == [{"do": "branch", "label": "hat", "why": "tap"}, {"do": "plan", "label": "hat", "why": ""}]


def test_a_failed_label_is_told_and_is_1(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.fails = {"bag": NonFiniteOutput("loss of step 3")}
    out = said(capsys, update, "--trunk", code=1)
    assert "loss of step 3" in out
    assert "engine.plan: 1 label changed" in out
    shop.fails = {"bag": NonFiniteOutput("loss of step 3")}
    assert json.loads(said(capsys, update, "--json", code=1))["plan"] is None


def test_what_is_wrong_with_a_label_is_told(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    Path("graft.toml").write_text("[labels.cap]")
    assert "cap    broken" in said(capsys, status)
    with pytest.raises(InputError, match="label 'cap': cap: expected a folder"):
        said(capsys, update, "--trunk")


def test_a_label_that_left_is_told(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, update, "--trunk")
    Path("bag").rename(".bag")
    assert "in the plan, without a sub-dataset here: bag" in said(capsys, status)
