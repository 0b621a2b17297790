"""The errors of cuda.core, cuda.bindings, cuda.pathfinder and pycuda as ours, in one place.

Their classes have no common base; they are known by name here, so that nothing is imported.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, Literal

from graftsdk.errors import EngineError, EngineIncompatible, EngineOutOfMemory, GraftError

__all__ = ["KNOWN", "TEXTS", "call", "cuda_error", "cuda_errors", "no_driver", "old_driver"]

_DRIVER = "check the driver with nvidia-smi"
_RESTART = "the device's context is lost: start the process again, and look for a kernel that writes out of bounds"
_OTHER_DEVICE = "compile the kernel for this device's compute capability"
_CAPTURE = "do that before or after the capture"

# What the driver calls an error (its runtime's name is read as the driver's) -> ours, and what to do.
KNOWN: dict[str, tuple[type[EngineError], str]] = {
    "OUT_OF_MEMORY": (EngineOutOfMemory, "run smaller batches, or close what else uses the device"),
    "NO_DEVICE": (EngineIncompatible, f"no GPU is visible; {_DRIVER}, and look at CUDA_VISIBLE_DEVICES"),
    "INVALID_DEVICE": (
        EngineIncompatible,
        "choose one that nvidia-smi lists and CUDA_VISIBLE_DEVICES lets through",
    ),
    "INSUFFICIENT_DRIVER": (EngineIncompatible, f"the driver is missing or too old; install a newer one, {_DRIVER}"),
    "STUB_LIBRARY": (
        EngineIncompatible,
        "a stub stands in the driver's place; look at LD_LIBRARY_PATH",
    ),
    "SYSTEM_DRIVER_MISMATCH": (
        EngineIncompatible,
        "the driver's kernel module and library differ; reboot",
    ),
    "SYSTEM_NOT_READY": (EngineIncompatible, f"the system's GPU services do not run; {_DRIVER}"),
    "COMPAT_NOT_SUPPORTED_ON_DEVICE": (EngineIncompatible, "this GPU cannot use CUDA's compatibility package"),
    "NOT_INITIALIZED": (EngineIncompatible, f"the driver cannot be started; {_DRIVER}"),
    "DEVICE_UNAVAILABLE": (EngineIncompatible, "another process has the device for itself; wait for it"),
    "UNKNOWN": (EngineError, f"the driver does not say more; {_DRIVER}"),
    "NO_BINARY_FOR_GPU": (EngineIncompatible, _OTHER_DEVICE),
    "INVALID_IMAGE": (EngineIncompatible, _OTHER_DEVICE),
    "INVALID_SOURCE": (EngineIncompatible, _OTHER_DEVICE),
    "INVALID_PTX": (EngineIncompatible, _OTHER_DEVICE),
    "UNSUPPORTED_PTX_VERSION": (EngineIncompatible, "the driver is older than the compiler; compile to a cubin"),
    "NOT_FOUND": (EngineIncompatible, 'name a kernel as its source does, extern "C"; else the driver is too old'),
    "ILLEGAL_ADDRESS": (EngineError, _RESTART),
    "MISALIGNED_ADDRESS": (EngineError, _RESTART),
    "LAUNCH_FAILED": (EngineError, _RESTART),
    "LAUNCH_TIMEOUT": (EngineError, _RESTART),
    "ECC_UNCORRECTABLE": (EngineError, "the GPU's memory is faulty; reset it, or take another"),
    "LAUNCH_OUT_OF_RESOURCES": (EngineError, "launch fewer threads a block, or less shared memory"),
    "INVALID_VALUE": (EngineError, "an address, a size or a count does not fit"),
    "STREAM_CAPTURE_UNSUPPORTED": (EngineError, _CAPTURE),
    "STREAM_CAPTURE_INVALIDATED": (EngineError, _CAPTURE),
    "STREAM_CAPTURE_UNJOINED": (EngineError, "let the captured stream wait for every stream that it drew in"),
    "STREAM_CAPTURE_ISOLATION": (EngineError, "wait for events that were recorded in this capture"),
    "STREAM_CAPTURE_IMPLICIT": (EngineError, _CAPTURE),
    "CAPTURED_EVENT": (EngineError, "wait for an event that was recorded outside the capture"),
}
# What pycuda says of them (cuGetErrorString); of the rest it says nothing that tells us more.
TEXTS = {
    "out of memory": "OUT_OF_MEMORY",
    "no CUDA-capable device is detected": "NO_DEVICE",
    "invalid device ordinal": "INVALID_DEVICE",
    "CUDA driver version is insufficient for CUDA runtime version": "INSUFFICIENT_DRIVER",
    "CUDA driver is a stub library": "STUB_LIBRARY",
    "system has unsupported display driver / cuda driver combination": "SYSTEM_DRIVER_MISMATCH",
    "initialization error": "NOT_INITIALIZED",
    "no kernel image is available for execution on the device": "NO_BINARY_FOR_GPU",
    "device kernel image is invalid": "INVALID_IMAGE",
    "named symbol not found": "NOT_FOUND",
    "an illegal memory access was encountered": "ILLEGAL_ADDRESS",
    "unspecified launch failure": "LAUNCH_FAILED",
    "too many resources requested for launch": "LAUNCH_OUT_OF_RESOURCES",
    "invalid argument": "INVALID_VALUE",
}
_RUNTIME = {"MEMORY_ALLOCATION": "OUT_OF_MEMORY", "NO_KERNEL_IMAGE_FOR_DEVICE": "NO_BINARY_FOR_GPU"}
_PACKAGES = ("cuda.", "pycuda.")


def no_driver(doing: str, found: str) -> EngineIncompatible:
    """The error for a machine without NVIDIA's driver."""
    return EngineIncompatible(
        f"{doing}: expected NVIDIA's driver, found none ({found[:200]}); install the driver (580 or newer for CUDA 13) "
        f'and check it with nvidia-smi, or use device "cpu"'
    )


def old_driver(doing: str, found: str, needed: str) -> EngineIncompatible:
    """The error for a driver that is older than the packages need."""
    return EngineIncompatible(
        f"{doing}: expected a driver for {needed}, found {found[:200]}; install a newer driver (580 or newer for "
        "CUDA 13), or packages for the CUDA that it serves: pip install 'cuda-core[cu12]' for CUDA 12"
    )


class cuda_errors:  # reads as what it does; a class, since a generator costs three times as much on every call
    """Raise what the packages raise inside the block as a leaf of EngineError; `doing` opens the message.

    Raises:
        EngineOutOfMemory, EngineIncompatible, EngineError: see `KNOWN`.
    """

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if isinstance(error, Exception) and not isinstance(error, GraftError):
            mapped = cuda_error(error, self._doing)
            if mapped is not None:
                raise mapped from error
        return False


def call(result: tuple[Any, ...]) -> Any:
    """What a call of cuda.bindings gave, without its status: None, a value or a tuple.

    Raises:
        RuntimeError: the status is not success; `cuda_errors` around the call makes it ours.
    """
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(f"{status.name} ({int(status)})")
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def cuda_error(error: Exception, doing: str) -> EngineError | None:
    """Our error for one of the packages'; None for one that is not theirs."""
    text = " ".join(str(error).split())[:600]
    kind = type(error)
    if kind.__name__ in ("DynamicLibNotFoundError", "DynamicLibNotAvailableError"):
        return no_driver(doing, text)
    if isinstance(error, ImportError):
        return _import_error(error, doing, text)
    if kind is RuntimeError and re.search(r'Function "cu\w+" not found', text):
        return old_driver(doing, text, "this version of cuda-bindings")
    name = _name(text)
    if name is None and (isinstance(error, MemoryError) or "out of memory" in text.lower()):
        name = "OUT_OF_MEMORY"
    theirs = kind.__module__.startswith(_PACKAGES) or kind in (RuntimeError, ValueError, TypeError, MemoryError)
    if not theirs:
        return None
    made, advice = KNOWN.get(name or "", (EngineError, _DRIVER))
    return made(f"{doing}: expected CUDA to do it, found {text or kind.__name__}; {advice}")


def _import_error(error: ImportError, doing: str, text: str) -> EngineError | None:
    """Import of pycuda, which is linked to the driver: without one, or with one that lacks a function, it fails."""
    if "libcuda.so" in text and "undefined symbol" not in text:
        return no_driver(doing, text)
    if "undefined symbol: cu" in text:
        return old_driver(doing, text, "the CUDA that pycuda was built with")
    return None


def _name(text: str) -> str | None:
    """The driver's name for the error, without its prefix."""
    found = re.search(r"CUDA_ERROR_([A-Z0-9_]+)", text)
    if found:
        return found[1]
    found = re.search(r"\bcudaError_?([A-Z][A-Za-z0-9]+)", text)
    if found:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", found[1]).upper()
        return _RUNTIME.get(name, name)
    for phrase, name in TEXTS.items():
        if phrase in text:
            return name
    return None
