"""The kernels of mask_crop.cu, compiled for the host, on the device of machines without a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graftsdk.engines.cuda.host import HostDevice
from graftsdk.engines.cuda.kernels import NAMES, Kernels, kernel_source

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The source as it is, after CUDA's words in host_shim.hpp; no contraction, as NVRTC is told."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "mask_crop.cu").write_bytes(kernel_source())
    target = folder / "kernels.so"
    subprocess.run(
        [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror",
         "-Wno-unknown-pragmas", "-shared", "-fPIC", "-pthread", f"-I{folder}", str(HERE / "host_kernels.cpp"),
         "-o", str(target)],
        check=True, timeout=100,
    )  # fmt: skip
    return ctypes.CDLL(str(target))


@pytest.fixture(scope="session")
def kernels(library: ctypes.CDLL) -> Iterator[Kernels]:
    with HostDevice({name: getattr(library, f"host_{name}") for name in NAMES}) as device, Kernels(device) as kernels:
        yield kernels


@pytest.fixture
def threaded(library: ctypes.CDLL) -> Iterator[None]:
    """A block's threads are threads, which meet where the source says so and nowhere else."""
    library.host_threads(1)
    yield
    library.host_threads(0)
