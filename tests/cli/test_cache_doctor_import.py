from __future__ import annotations

import json
from pathlib import Path

import pytest
import toys

from graftsdk.cli import doctor
from graftsdk.cli.main import main
from graftsdk.engines.available import RuntimeState
from graftsdk.lifecycle.doctor import CacheState, Diagnosis, Threads


def test_cache(tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "ls"]) == 0
    assert "0 entries" in capsys.readouterr().out
    toys.write(tmp_path / "engine.plan")
    assert main(["info", str(tmp_path / "engine.plan"), "--cost"]) == 0
    capsys.readouterr()
    assert main(["cache", "ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["entries"]) == 4  # the trunk, and three branches alone
    assert all(entry["problem"] is None and entry["bytes"] > 0 for entry in found["entries"])
    assert main(["cache", "verify"]) == 0
    assert capsys.readouterr().out.count("sound") == 4

    (own_cache / found["entries"][0]["name"] / "model.onnx").write_bytes(b"damaged")
    assert main(["cache", "ls"]) == 0
    assert "damaged: " in capsys.readouterr().out
    assert main(["cache", "verify"]) == 1
    assert "removed: " in capsys.readouterr().out
    assert main(["cache", "verify"]) == 0
    assert "3 entries" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert "removed 3 entries" in capsys.readouterr().out
    assert main(["cache", "clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 0


def test_cache_of_someone_else(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_cache.mkdir(parents=True)
    own_cache.chmod(0o777)
    for action in ("ls", "clear", "verify"):
        assert main(["cache", action]) == 2
        assert "others may" in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    for word in (
        "python ",
        "onnxruntime ",
        "threads ",
        "devices",
        "runtimes of a GPU",
        "cpu   works",
        "writable",
        "no problems",
    ):
        assert word in captured.out
    assert captured.out.count("holds") == 4
    assert captured.err == ""


RUNTIMES = (
    RuntimeState("tensorrt", True, True, ""),
    RuntimeState("tensorrt-rtx", False, True, "no driver"),
    RuntimeState("pycuda", False, False, "pip install it"),
)


def test_doctor_that_finds_something(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cache = CacheState("/cache", 0, 0, True, None)
    ill = Diagnosis({}, {}, (), Threads(1, 1, 0.5, 1), (), RUNTIMES, (), cache, (), ("two cv2: pip uninstall one",))
    monkeypatch.setattr(doctor, "diagnose", lambda: ill)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "1 problem\n  two cv2: pip uninstall one" in out
    assert "quota of the control group: 0.5" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "tensorrt works" in lines and "tensorrt-rtx builds engines, runs none: no driver" in lines
    assert "pycuda not here: pip install it" in lines
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_import_torchvision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    numbers = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225", "--size", "96", "64"]
    words = ["import", "torchvision", str(tmp_path / "resnet18.pth"), "--arch", "resnet18", *numbers]
    target = tmp_path / "trunk.safetensors"
    assert main([*words, "-o", str(target)]) == 0
    assert "trunk resnet18, 8 blocks, crops 96x64" in capsys.readouterr().out
    assert main(["info", str(target), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["arch"], found["crop"]["size"]) == ("trunk checkpoint", "resnet18", [96, 64])

    (tmp_path / "resnet18.pth").write_bytes(b"no weights")
    assert main([*words, "-o", str(tmp_path / "other.safetensors")]) == 2
    assert "expected a .pth of tensors alone" in capsys.readouterr().err
    assert not (tmp_path / "other.safetensors").exists()
    with pytest.raises(SystemExit):  # nothing is guessed
        main(["import", "torchvision", "x.pth", "--arch", "resnet18", "-o", "y.safetensors"])
