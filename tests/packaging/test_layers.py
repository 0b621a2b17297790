"""The layer contracts of pyproject.toml catch a breach: each is planted in a copy of the package and found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graftsdk import __file__ as package_file

pytest.importorskip("importlinter")

ROOT = Path(__file__).parents[2]

BREACHES = [
    ("graft/planted.py", "import graftsdk.engines", "A layer imports those below it"),
    ("plan/planted.py", "def late():\n    from graftsdk import models", "A layer imports those below it"),
    ("engines/planted.py", "import graftsdk.preprocess", "A layer imports those below it"),
    ("planted.py", "", "A layer imports those below it"),  # a module that no layer names
    ("preprocess/planted.py", "import torch", "torch is imported in"),
    ("engines/planted.py", "import onnxruntime", "onnxruntime is imported in its engine"),
    ("engines/planted.py", "import tensorrt_rtx", "TensorRT is imported in"),
    ("preprocess/planted.py", "import cuda.core", "CUDA is imported in"),
    ("models/planted.py", "import pickle", "No module that runs code"),
    ("segment/planted.py", "def late():\n    import urllib.request", "No module that runs code"),
]


def lint(folder: Path) -> str:
    """What lint-imports prints about the copy of the package in `folder`."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}", "--no-cache", "--no-logo"]
        + [str(ROOT / "pyproject.toml")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return run.stdout + run.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources, graftsdk.export in its place, in a folder of their own."""
    shutil.copytree(Path(package_file).parent, tmp_path / "graftsdk", ignore=shutil.ignore_patterns("__pycache__"))
    if not (tmp_path / "graftsdk/export").exists():  # an editable install maps it
        shutil.copytree(ROOT / "export", tmp_path / "graftsdk/export", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(("path", "source", "contract"), BREACHES)
def test_breach_is_found(copy: Path, path: str, source: str, contract: str) -> None:
    (copy / "graftsdk" / path).write_text(source, encoding="utf-8")
    printed = lint(copy)
    broken = [line for line in printed.splitlines() if line.startswith(contract) and " BROKEN" in line]
    assert broken and "planted" in printed, printed


def test_package_keeps_its_contracts(copy: Path) -> None:
    printed = lint(copy)
    assert "0 broken" in printed, printed
