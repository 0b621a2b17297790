"""The real cuda.core without a GPU: over a driver of the host (driver_of_the_host.c), in a child process.

What is proven: every call exists, takes these arguments and comes in an order that the API allows. Nothing about a
GPU. pycuda is linked to NVIDIA's driver and is not built here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OPEN = (
    "from graftsdk.engines.cuda import open_device\ntry: print(open_device({}))\nexcept Exception as e: print(repr(e))"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libcuda.so.1 that needs no GPU."""
    pytest.importorskip("cuda.core")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), "-Wl,-soname,libcuda.so.1",
         str(HERE / "driver_of_the_host.c"), "-lpthread", "-ldl"],
        check=True, timeout=60,
    )  # fmt: skip
    return folder


def child(driver: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": "0", **environment}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=env, timeout=120, check=False
    )


def test_cuda_core_passes_the_conformance_suite_over_a_driver_of_the_host(driver: Path) -> None:
    done = child(
        driver, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cuda-core", str(HERE / "test_conformance.py")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and done.stdout.count("SKIPPED") == 1, "all but the refusal of captures"


@pytest.mark.parametrize(
    ("environment", "index", "error", "words"),
    [
        ({"GRAFT_DRIVER_VERSION": "12040"}, 0, "EngineIncompatible", ("CUDA 13.0", "CUDA 12.4", "newer driver")),
        ({"GRAFT_DRIVER_VERSION": "0"}, 0, "EngineIncompatible", ("found none", "nvidia-smi")),
        ({"GRAFT_DEVICES": "0"}, 0, "EngineIncompatible", ("0 devices", "CUDA_VISIBLE_DEVICES")),
        ({}, 1, "EngineIncompatible", ("1 devices", "CUDA_VISIBLE_DEVICES")),
    ],
)
def test_a_driver_or_device_that_does_not_fit_is_one_clear_error(
    driver: Path, environment: dict[str, str], index: int, error: str, words: tuple[str, ...]
) -> None:
    said = child(driver, "-c", OPEN.format(index), **environment).stdout
    assert said.startswith(error + "(") and all(word in said for word in words), said


def test_the_context_of_the_thread_comes_back_after_every_call(driver: Path) -> None:
    code = """
from cuda.bindings import driver
from graftsdk.engines.cuda import open_device
now = lambda: int(driver.cuCtxGetCurrent()[1])
theirs = 0x1234
driver.cuCtxPushCurrent(theirs)
with open_device() as device:
    assert now() == theirs
    with device.stream() as stream, device.alloc(64) as buffer:
        device.memset(buffer, 1, 64, stream)
        stream.sync()
        assert now() == theirs
        with device.active():
            assert now() not in (0, theirs)
            with device.active():
                device.sync()
            assert now() not in (0, theirs)
        assert now() == theirs
assert now() == theirs
print("kept")
"""
    done = child(driver, "-c", code)
    assert done.stdout == "kept\n", done.stderr


def test_without_the_driver_of_the_host_there_is_none_here() -> None:
    """The tests above prove nothing where a real driver is found instead."""
    done = child(Path("/nonexistent"), "-c", OPEN.format(0))
    assert "driver of the host" not in done.stdout
