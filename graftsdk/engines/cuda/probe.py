"""Which device there is, and why there is none."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from graftsdk.arguments import whole_number
from graftsdk.engines.cuda.protocol import Device
from graftsdk.errors import EngineError, InputError, MissingDependency

__all__ = ["KINDS", "device_problem", "open_device"]

KINDS = {"cuda-core": ("core", "CoreDevice"), "pycuda": ("pycuda", "PycudaDevice"), "host": ("host", "HostDevice")}


def open_device(index: int = 0, kind: str | None = None) -> Device:
    """The CUDA device of that number, open.

    Args:
        index: counts the devices that CUDA_VISIBLE_DEVICES lets through.
        kind: "cuda-core", "pycuda" or "host" (no GPU, for tests); None for cuda.core where it is installed, else
            pycuda. Never the host by itself.

    Raises:
        MissingDependency: neither package is installed, or not the one that is asked for.
        EngineIncompatible: no driver, one that is too old, no such device.
        InputError: no number of a device, or no kind.
    """
    number = whole_number("device index", index, 0, 1023)
    if kind is None:
        kind = "pycuda" if not _installed("cuda.core") and _installed("pycuda.driver") else "cuda-core"
    if kind not in KINDS:
        raise InputError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r:.80}")
    module, name = KINDS[kind]
    device: Device = getattr(import_module(f"graftsdk.engines.cuda.{module}"), name)(index=number)
    return device


def device_problem(index: int = 0, kind: str | None = None) -> str | None:
    """Why `open_device` does not work here, and what to do; None where it does."""
    try:
        open_device(index, kind).close()
    except (EngineError, MissingDependency) as error:
        return str(error)
    return None


def _installed(name: str) -> bool:
    """Whether the module is there to import; nothing is imported but the packages around it."""
    try:
        return find_spec(name) is not None
    except ImportError:  # the package around it is not there
        return False
