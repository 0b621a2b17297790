"""What a machine has for the GPU tests and the GPU benchmark, and what it lacks. The standard library only.

Packages are looked up by their metadata and not imported: an import may load a driver, or end the process.
"""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata

__all__ = ["Found", "Gpu", "as_table", "gpus", "missing", "survey"]

# Distribution names, the first that is installed counts -> what it is for. Without those of REQUIRED nothing runs.
REQUIRED = (
    (("numpy",), "everything"),
    (("opencv-python", "opencv-python-headless", "opencv-contrib-python"), "decoding"),
    (("pillow",), "decoding"),
    (("safetensors",), "plans"),
    (("onnx",), "plans"),
    (("onnx-ir",), "plans"),
    (("onnxruntime-gpu", "onnxruntime"), "the reference on the CPU; with -gpu the CUDA provider"),
    (("tqdm",), "progress"),
)
TESTS = ((("pytest",), "the tests"), (("pytest-timeout",), "the tests"), (("hypothesis",), "the tests"))
PACKAGES = (
    (("cuda-core",), "device memory, kernels, graphs"),
    (("cuda-bindings",), "device memory, kernels, graphs"),
    (("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"), "compiling kernels"),
    (("pycuda",), "the other kind of device memory"),
    (("tensorrt", "tensorrt-cu13"), "TensorRT engines"),
    (("tensorrt-rtx", "tensorrt-rtx-cu13"), "TensorRT engines"),
    (("torch",), "plans to measure, arrays on the device, torch.compile"),
    (("torchvision",), "plans to measure"),
    (("onnxscript",), "plans to measure"),
    (("triton",), "torch.compile"),
    (("cupy-cuda13x", "cupy-cuda12x", "cupy"), "arrays on the device"),
    (("pybind11",), "building the native module"),
)

_NAME, _TOTAL, _MAJOR, _MINOR = 256, ctypes.c_size_t, 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Gpu:
    """One GPU, as the driver describes it. memory: bytes. capability: as "9.0"."""

    name: str
    memory: int
    capability: str


@dataclass(frozen=True)
class Found:
    """One thing that was looked for.

    Attributes:
        what: its name. version: as it says of itself; empty where it is missing.
        purpose: what it is for. required: whether nothing runs without it.
    """

    what: str
    version: str
    purpose: str
    required: bool = False


def survey() -> list[Found]:
    """Everything that was looked for, in the order in which it is shown."""
    driver = _driver_version()
    rows = [Found("machine", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}", "")]
    rows.append(Found("NVIDIA driver", driver, "the GPU"))
    for index, gpu in enumerate(gpus()):
        text = f"{gpu.name}, compute capability {gpu.capability}, {gpu.memory / 2**30:.1f} GiB"
        rows.append(Found(f"GPU {index}", text, ""))
    if not gpus():
        rows.append(Found("GPU", "", "all that is measured and tested here"))
    for group, needed in ((REQUIRED, True), (TESTS, False), (PACKAGES, False)):
        rows += [Found(*_installed(names), purpose, needed) for names, purpose in group]
    rows.append(Found("nvcc", _tool("nvcc", r"release ([\d.]+)"), "nothing here; kernels go through NVRTC"))
    rows.append(Found("g++", _tool("g++", r"\) ([\d.]+)"), "building the native module"))
    rows.append(Found("cmake", _tool("cmake", r"version ([\d.]+)"), "building the native module; g++ alone will do"))
    return rows


def missing(rows: Sequence[Found], names: Sequence[str] = ()) -> list[str]:
    """What is required and not there; of the optional things those in `names`."""
    return [row.what for row in rows if not row.version and (row.required or row.what in names)]


def as_table(rows: Sequence[Found]) -> str:
    """One line each: name, version or MISSING with what it is for."""
    wide = max(len(row.what) for row in rows)
    lines = []
    for row in rows:
        says = row.version or f"MISSING: {row.purpose}{' (required)' if row.required else ''}"
        lines.append(f"  {row.what:<{wide}}  {says}")
    return "\n".join(lines)


@cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that the driver shows; none without a driver, or with one that does not start."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    found = []
    for index in range(count.value):
        device, name, total = ctypes.c_int(0), ctypes.create_string_buffer(_NAME), _TOTAL(0)
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, _NAME, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device)
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int(0)
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            numbers.append(value.value)
        found.append(Gpu(name.value.decode(errors="replace"), total.value, "{}.{}".format(*numbers)))
    return tuple(found)


def _driver_version() -> str:
    """The driver's own version, and the newest CUDA that it serves; empty without one."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    number = ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    own = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]).splitlines()[:1]
    return f"{''.join(own) or 'of unknown version'}, for CUDA {number.value // 1000}.{number.value % 1000 // 10}"


def _installed(names: Sequence[str]) -> tuple[str, str]:
    for name in names:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return names[0], ""


def _tool(name: str, pattern: str) -> str:
    found = re.search(pattern, _output([name, "--version"]))
    return found[1] if found else "of unknown version" if shutil.which(name) else ""


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
