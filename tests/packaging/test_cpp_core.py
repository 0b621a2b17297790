"""The C++ core builds without Python's help and passes its own tests."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str) -> str:
    """The program that the package `name` installed beside this interpreter."""
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    if importlib.util.find_spec(name) is None or found is None:
        pytest.skip(f"no {name} in this environment; graftsdk[dev] brings it")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_core_passes_its_tests(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    cmake = tool("cmake")
    ninja = tool("ninja")
    run(
        *(cmake, "-S", ROOT, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
        *("-DGRAFTSDK_CPP_TESTS=ON", "-DCMAKE_CXX_FLAGS=-Werror", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"),
    )
    targets = [path.stem for path in (ROOT / "cpp_ext/tests").glob("*_test.cpp")]
    run(cmake, "--build", tmp_path, "--target", *targets)
    printed = run(Path(cmake).with_name("ctest"), "--test-dir", tmp_path, "--no-tests=error", "--output-on-failure")
    assert printed.count(" Passed ") == len(targets) > 0, printed
