"""Our CUDA kernels: compiled by NVRTC for the device at hand when they are first used, and kept in the engine cache.

Neither nvcc nor a GPU nor a driver is needed to compile. A compiled image (a cubin) is code: it is taken from the cache
only where `graftsdk.engines.cache` finds the folder and the entry this user's own and the image's digest unchanged.
"""

from __future__ import annotations

import hashlib
import logging
import re
from importlib import resources
from typing import Any

from graftsdk.engines.cache import Cache
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import Function
from graftsdk.engines.entry import GRAPH_FILE
from graftsdk.errors import EngineBuildError, InputError, MissingDependency
from graftsdk.files import atomic_write

__all__ = ["ARCHITECTURES", "Kernels", "compile_kernels", "kernel_source", "load_image"]

# Compute capabilities that every release is compiled for in its tests. NVRTC knows more (8.7, 12.1); those are
# compiled where such a device is met.
ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

NAMES = (
    "graftsdk_prepare",
    "graftsdk_crop",
    "graftsdk_mask_boxes",
    "graftsdk_prototype_masks",
    "graftsdk_sampled_masks",
    "graftsdk_select",
)

_SOURCE = "mask_crop.cu"
# Without contraction, and with IEEE division as is NVRTC's default, a GPU is to compute the bits of the host.
_OPTIONS = ("--std=c++17", "--fmad=false")
_CAPABILITY = re.compile(r"([1-9][0-9]?)\.([0-9])")
_INSTALL = "pip install 'graftsdk[gpu]'"

_log = logging.getLogger("graftsdk")


class Kernels:
    """The kernels, loaded on one device.

    Args:
        device: the device.
        cache: where compiled kernels are kept; None compiles each time.

    Raises:
        EngineBuildError: NVRTC refuses the source, or does not know the device's compute capability.
        MissingDependency: NVRTC is not installed.
        PlanPathError: the cache's folder cannot be trusted.
        EngineIncompatible: the device refuses what was compiled.
    """

    def __init__(self, device: Device, cache: Cache | None = None) -> None:
        self.device = device
        # The host's device has its kernels already, and reads no image.
        image = b"" if device.kind == "host" else load_image(device.compute_capability, cache)
        self._module = device.load_module(image)
        self._functions = {name: self._module.function(name) for name in NAMES}

    def __getitem__(self, name: str) -> Function:
        """One kernel, by its name in the source less `graftsdk_`."""
        return self._functions[f"graftsdk_{name}"]

    def close(self) -> None:
        """Wait for the device, and unload; twice is harmless."""
        self._module.close()

    def __enter__(self) -> Kernels:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def kernel_source() -> bytes:
    """The CUDA C++ source of all kernels."""
    return resources.files("graftsdk.engines.cuda").joinpath(_SOURCE).read_bytes()


def load_image(compute_capability: str, cache: Cache | None = None) -> bytes:
    """The compiled kernels (a cubin): from `cache` where they are there and sound, else compiled and put there.

    A cache that cannot be read or written (a full disk) is done without, with a warning.

    Args:
        compute_capability: the device's, as "8.9".
        cache: None compiles without keeping.

    Raises:
        EngineBuildError, MissingDependency, InputError: as `compile_kernels`.
        PlanPathError: the cache's folder belongs to someone else, or others may write to it.
    """
    if cache is None:
        return compile_kernels(compute_capability)
    key = {
        "graph": hashlib.sha256(kernel_source()).hexdigest(),
        "device": _architecture(compute_capability),
        "options": " ".join(_OPTIONS),
        "runtime": _version(_nvrtc()),
    }
    try:
        found = cache.find(key)
        if found is not None:
            return found[1]
    except OSError as error:
        _without_cache(cache, error)
        return compile_kernels(compute_capability)
    image = compile_kernels(compute_capability)
    try:
        # Published whole, with its digest, when the outer block ends.
        with cache.build(key) as folder, atomic_write(folder / GRAPH_FILE) as file:
            file.write(image)
    except OSError as error:
        _without_cache(cache, error)
    return image


def compile_kernels(compute_capability: str, options: tuple[str, ...] = ()) -> bytes:
    """The kernels compiled for one compute capability (a cubin). About 0.5 s.

    Args:
        compute_capability: as "8.9".
        options: more of NVRTC's, such as "--ptxas-options=-v"; what it says goes to the log at level DEBUG.

    Raises:
        EngineBuildError: NVRTC refuses; the message has its log.
        MissingDependency: NVRTC is not installed.
        InputError: no compute capability.
    """
    architecture = _architecture(compute_capability)
    nvrtc = _nvrtc()
    source, name = kernel_source(), _SOURCE.encode()
    program = _done(nvrtc, nvrtc.nvrtcCreateProgram(source, name, 0, [], []))
    try:
        arguments = [text.encode() for text in (f"--gpu-architecture={architecture}", *_OPTIONS, *options)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)
        log = _text(nvrtc, program)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise EngineBuildError(
                f"{_SOURCE}: expected NVRTC {_version(nvrtc)} to compile it for {architecture}, found {status.name}: "
                f"{log or 'no message'}; a newer GPU needs a newer NVRTC: pip install --upgrade cuda-core"
            )
        if log:
            _log.debug("NVRTC: %s", log)
        image = bytearray(_done(nvrtc, nvrtc.nvrtcGetCUBINSize(program)))  # written to: never bytes
        _done(nvrtc, nvrtc.nvrtcGetCUBIN(program, image))
        return bytes(image)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _architecture(compute_capability: str) -> str:
    found = _CAPABILITY.fullmatch(compute_capability)
    if found is None:
        raise InputError(f'compute capability: expected text such as "8.9", found {compute_capability!r:.40}')
    return f"sm_{found[1]}{found[2]}"


def _nvrtc() -> Any:
    """cuda.bindings.nvrtc, whose library is there.

    Raises:
        MissingDependency: the package or the library is not.
    """
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError, OSError) as error:  # a missing library is a RuntimeError of its loader
        raise MissingDependency(f"expected NVRTC, which compiles kernels, found {error}; {_INSTALL}") from error
    return nvrtc


def _version(nvrtc: Any) -> str:
    _, major, minor = nvrtc.nvrtcVersion()
    return f"NVRTC {major}.{minor}"


def _text(nvrtc: Any, program: Any) -> str:
    log = bytearray(_done(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
    _done(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
    return bytes(log).rstrip(b"\0 \n").decode(errors="replace")


def _done(nvrtc: Any, answer: tuple[Any, ...]) -> Any:
    """What a call gives besides its status.

    Raises:
        EngineBuildError: the status is an error.
    """
    status, *values = answer
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise EngineBuildError(f"{_SOURCE}: expected NVRTC to work, found {status.name}; reinstall it: {_INSTALL}")
    return values[0] if values else None


def _without_cache(cache: Cache, error: OSError) -> None:
    _log.warning("engine cache: %s cannot be used (%s); CUDA kernels are compiled for this process", cache.root, error)
