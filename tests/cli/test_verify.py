from __future__ import annotations

import json
from pathlib import Path

import pytest
from lifecycle import true_plans
from lifecycle.true_plans import flip_byte, tamper

from graftsdk.cli.main import main
from graftsdk.plan import open_plan


def test_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sound.plan"
    true_plans.write(path)
    assert main(["verify", str(path), "--bisect"]) == 0
    out = capsys.readouterr().out
    assert "every digest is right" in out
    assert "tolerance 0.0001" in out
    assert "first part outside tolerance: none" in out
    assert out.splitlines()[-1] == "ok"
    assert main(["verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_tampered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tampered.plan"
    (trunk, _), _ = true_plans.parts()
    true_plans.write(path, tampered={"trunk": tamper(trunk, "block1.weight")})
    files = [str(file) for file in true_plans.write_parts(tmp_path).values()]
    assert main(["verify", str(path), "--bisect", "--against", *files]) == 1
    out = capsys.readouterr().out
    (first,) = [line for line in out.splitlines() if line.startswith("first part outside tolerance")]
    assert "block 0 (tap 0 to tap 1)" in first
    probes = out.partition("each part alone")[2].partition("first part outside")[0]
    assert probes.count("OUTSIDE") == 1
    assert "FAILED" in out
    assert main(["verify", str(path), "--bisect", "--against", *files, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "block 0" in found["bisection"]["first"]


def test_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "damaged.plan"
    true_plans.write(path)
    with open_plan(path) as plan:
        flipped = plan.manifest.trees[0].branches[2].part
    flip_byte(path, flipped)
    assert main(["verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"branch part {flipped}: the bytes of" in out
    assert "labels concerned: hat" in out
