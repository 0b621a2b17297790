"""The check that `make wheel` ends with, on wheels that lack or have what it looks for."""

from __future__ import annotations

import runpy
import zipfile
from pathlib import Path
from typing import Any

import pytest

CHECK: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("check_wheel.py")))
GOOD = (*CHECK["REQUIRED"], "graftsdk/_native.cpython-312-x86_64-linux-gnu.so", "graftsdk-1.dist-info/licenses/LICENSE")
NAME = "graftsdk-1-cp312-cp312-manylinux_2_28_x86_64.whl"


def wheel(folder: Path, members: tuple[str, ...], name: str = NAME) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "")
    return path


def test_good_wheel_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = wheel(tmp_path, GOOD)
    assert CHECK["problems"](path) == []
    assert CHECK["main"]([str(path)]) == 0
    assert "KiB" in capsys.readouterr().out


@pytest.mark.parametrize("missing", GOOD)
def test_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    assert len(CHECK["problems"](wheel(tmp_path, tuple(name for name in GOOD if name != missing)))) == 1


@pytest.mark.parametrize(
    "stranger",
    ["export/__init__.py", "tests/x.py", "graftsdk.libs/x.so", "graftsdk/__pycache__/x.pyc", "cpp_ext/x.cpp"],
)
def test_stranger_is_named(tmp_path: Path, stranger: str) -> None:
    assert CHECK["problems"](wheel(tmp_path, (*GOOD, stranger)))


def test_plain_linux_tag_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, GOOD, "graftsdk-1-cp312-cp312-linux_x86_64.whl")
    assert CHECK["problems"](path) and CHECK["main"]([str(path)]) == 1


def test_no_wheel_is_a_failure() -> None:
    assert CHECK["main"]([]) == 1
