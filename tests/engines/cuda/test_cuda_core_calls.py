"""The real cuda.core without a GPU: over a driver of the host (driver_of_the_host.c), in a child process.

What is proven: every call exists, takes these arguments and comes in an order that the API allows. Nothing about a
GPU. pycuda is linked to NVIDIA's driver and is not built here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Run in one child, which costs half a second to start: the driver reads its environment at every call.
OPEN = """
import json, os, sys
from cuda.bindings import driver
from graftsdk.engines.cuda import open_device

for environment, index in json.loads(sys.argv[1]):
    os.environ.update(environment)
    try:
        print(open_device(index))
    except Exception as error:
        print(repr(error))
    for name in environment:
        del os.environ[name]

theirs = 0x1234
driver.cuCtxPushCurrent(theirs)
seen = []
note = lambda: seen.append({0: "none", theirs: "theirs"}.get(int(driver.cuCtxGetCurrent()[1]), "ours"))
with open_device() as device:
    note()
    with device.stream() as stream, device.alloc(64) as buffer:
        device.memset(buffer, 1, 64, stream)
        stream.sync()
        note()
        with device.active():
            note()
            with device.active():
                device.sync()
            note()
        note()
note()
print(" ".join(seen))
with open_device() as device:
    kept = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT
    pool = driver.cuDeviceGetDefaultMemPool(0)[1]
    device.alloc(64).close()
    before = int(driver.cuMemPoolGetAttribute(pool, kept)[1])
    device.trim()
    print("pool keeps", before, int(driver.cuMemPoolGetAttribute(pool, kept)[1]))
"""
DRIVERS: list[tuple[dict[str, str], int, tuple[str, ...]]] = [
    ({}, 0, ("<cuda-core device 0: driver of the host, compute capability 9.0>",)),
    ({"GRAFT_DRIVER_VERSION": "12040"}, 0, ("EngineIncompatible(", "CUDA 13.0", "CUDA 12.4", "newer driver")),
    ({"GRAFT_DRIVER_VERSION": "0"}, 0, ("EngineIncompatible(", "found none", "nvidia-smi")),
    ({"GRAFT_DEVICES": "0"}, 0, ("EngineIncompatible(", "0 devices", "CUDA_VISIBLE_DEVICES")),
    ({}, 1, ("EngineIncompatible(", "1 devices", "CUDA_VISIBLE_DEVICES")),
]


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


def test_drivers_and_devices_that_do_not_fit_are_one_clear_error_and_a_threads_own_context_comes_back(
    driver: Path,
) -> None:
    done = child(driver, "-c", OPEN, json.dumps([line[:2] for line in DRIVERS]))
    *said, contexts, trimmed = done.stdout.splitlines()
    for (environment, index, words), line in zip(DRIVERS, said, strict=True):
        assert all(word in line for word in words), (environment, index, line, done.stderr)
    assert contexts == "theirs theirs ours ours theirs theirs"
    assert trimmed == "pool keeps 1 0"
