"""What is installed: files, extras, commands, versions."""

from __future__ import annotations

import importlib
import json
import re
from importlib import metadata
from pathlib import Path

import pytest

import graftsdk

ROOT = Path(__file__).parents[2]
EXTRAS = {"batch", "ray", "export", "train", "results", "serve", "gpu", "tensorrt", "tensorrt-rtx", "pycuda", "dev"}


@pytest.fixture(scope="module")
def distribution() -> metadata.Distribution:
    return metadata.distribution("graftsdk")


@pytest.fixture(scope="module")
def files(distribution: metadata.Distribution) -> set[str]:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("an editable install lists no files of its own; `make test` installs the wheel")
    assert distribution.files is not None
    return {file.as_posix() for file in distribution.files}


def test_everything_lies_in_the_package(files: set[str]) -> None:
    own = re.compile(r"graftsdk/.*|graftsdk-[^/]+\.dist-info/.*|(\.\./)+bin/graftsdk(-export)?")
    assert not [name for name in files if not own.fullmatch(name)]


@pytest.mark.parametrize(
    "name",
    [
        *("py.typed", "_native.pyi", "plan/FORMAT.md", "segment/demo.safetensors"),
        *("export/__init__.py", "cli/main.py"),
    ],
)
def test_file_is_installed(files: set[str], name: str) -> None:
    assert f"graftsdk/{name}" in files


def test_native_module_is_installed(files: set[str]) -> None:
    assert any(re.fullmatch(r"graftsdk/_native\..*(so|pyd)", name) for name in files)
    native = importlib.import_module("graftsdk._native")
    assert native.cpu_features()


def test_every_source_is_installed(files: set[str]) -> None:
    tree = {f"graftsdk/{path.relative_to(ROOT / 'graftsdk').as_posix()}" for path in (ROOT / "graftsdk").rglob("*.py")}
    tree |= {
        f"graftsdk/export/{path.relative_to(ROOT / 'export').as_posix()}" for path in (ROOT / "export").rglob("*.py")
    }
    assert tree == {name for name in files if name.startswith("graftsdk/") and name.endswith(".py")}


def test_extras(distribution: metadata.Distribution) -> None:
    assert set(distribution.metadata.get_all("Provides-Extra") or ()) == EXTRAS


def test_base_install_is_without_torch(distribution: metadata.Distribution) -> None:
    base = [line for line in distribution.requires or () if "extra ==" not in line]
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in base}
    assert "onnxruntime" in names
    assert names.isdisjoint({"torch", "torchvision", "onnxscript", "tensorrt", "openvino"})


@pytest.mark.parametrize("command", ["graftsdk", "graftsdk-export"])
def test_command_leads_to_a_function(distribution: metadata.Distribution, command: str) -> None:
    (entry,) = distribution.entry_points.select(group="console_scripts", name=command)
    assert callable(entry.load())


def test_versions_agree(distribution: metadata.Distribution) -> None:
    top = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert top is not None and cited is not None
    assert graftsdk.__version__ == distribution.version == top[1] == cited[1]


def test_licence(distribution: metadata.Distribution) -> None:
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
