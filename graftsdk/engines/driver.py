"""Is there an NVIDIA driver and a GPU: asked of the driver itself, before any library that would crash without one."""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["driver_problem", "gpu_capabilities"]

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


def driver_problem() -> str | None:
    """Why CUDA cannot be used here, and what to do; None where it can."""
    return _probe()[0]


def gpu_capabilities() -> tuple[str, ...]:
    """The compute capability of each GPU, as "8.9"; empty where there is none."""
    return _probe()[1]


@cache
def _probe() -> tuple[str | None, tuple[str, ...]]:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 is missing); install one, or run on a machine with a GPU", ()
    code = cuda.cuInit(0)
    if code != 0:
        return f"the NVIDIA driver answers cuInit with error {code}; check nvidia-smi", ()
    count = ctypes.c_int(0)
    if cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "an NVIDIA driver without a GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES", ()
    return None, tuple(_capability(cuda, index) for index in range(count.value))


def _capability(cuda: ctypes.CDLL, index: int) -> str:
    device, numbers = ctypes.c_int(0), []
    cuda.cuDeviceGet(ctypes.byref(device), index)
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int(0)
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    return f"{numbers[0]}.{numbers[1]}"
