"""The TensorRT family behind one adapter: `tensorrt` 11.4 and later, `tensorrt_rtx` 1.7 and later.

Here is what building and running share: which library, its version floor, its one logger, what it can be built for,
and engines out of bytes. Both have the same Python names; what only one of them has is asked for with hasattr. Every
silent failure (False, -1, None) is an error here. Measured with tensorrt_rtx 1.7.1; `tensorrt` was not run.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Mapping, MutableSequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from typing import Any

from graftsdk.engines.driver import driver_problem, gpu_capabilities
from graftsdk.errors import (
    EngineBuildError,
    EngineError,
    EngineIncompatible,
    EngineOutOfMemory,
    InputError,
    MissingDependency,
)

__all__ = ["RUNTIMES", "Library", "capability_number", "find_library", "problem", "runtime_name"]

RUNTIMES = ("tensorrt", "tensorrt_rtx")  # the first that is installed is taken
FLOORS = {"tensorrt": (11, 4), "tensorrt_rtx": (1, 7)}
_INSTALL = {
    "tensorrt": "pip install 'graftsdk[tensorrt]', which fetches from NVIDIA's own index",
    "tensorrt_rtx": "pip install 'graftsdk[tensorrt-rtx]'",
}
_KEPT = 64  # lines of the logger, of all threads
_SHOWN = 4  # of them in a message
# What every failed call says where there is no driver, behind the line that tells what failed.
_NOISE = re.compile(r"catchCudaError|ScopedCudaStream|CUDA driver version is insufficient")
_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|bad_alloc|cudaErrorMemoryAllocation", re.IGNORECASE)

_log = logging.getLogger("graftsdk.tensorrt")
_found: dict[str, Library] = {}
_lock = threading.Lock()
_order = count(1)  # of lines and of `forget_errors`, over all threads

Lines = MutableSequence[tuple[int, int, str]]  # place in that order, thread that the logger was called in, line


@dataclass(eq=False)
class Library:
    """One of the two libraries, imported.

    Attributes:
        name: "tensorrt" or "tensorrt_rtx". version: its own, exact, as "1.7.1.116". module: the Python module.
        logger: the process's one ILogger of it; TensorRT takes no second one. It forwards to `graftsdk.tensorrt`.
    """

    name: str
    version: str
    module: Any
    logger: Any
    _lines: Lines = field(default_factory=lambda: deque(maxlen=_KEPT))
    _runtime: Any = None
    _since: threading.local = field(default_factory=threading.local)  # `order`: where this thread's errors begin

    def forget_errors(self) -> None:
        """Before a call whose errors will be asked for in this thread; what other threads will ask for stays."""
        self._since.order = next(_order)

    def last_errors(self) -> list[str]:
        """What the library logged as errors since `forget_errors`, each once, without what a missing driver adds.

        In this thread; where that is nothing, in any: the library has threads of its own.
        """
        since, own = getattr(self._since, "order", 0), threading.get_ident()
        found = [(thread, line) for order, thread, line in tuple(self._lines) if order > since]
        lines = list(dict.fromkeys(line for thread, line in found if thread == own))
        lines = lines or list(dict.fromkeys(line for _, line in found))
        return [line for line in lines if not _is_noise(line)] or lines

    def failure(self, doing: str, advice: str, kind: type[EngineError] = EngineBuildError) -> EngineError:
        """The error for a call that told its failure by its result only; `doing` opens the message, advice ends it."""
        lines = self.last_errors()
        found = "; ".join(lines[-_SHOWN:]) or "no reason in its log"
        if any(_OUT_OF_MEMORY.search(line) for line in lines):
            kind, advice = EngineOutOfMemory, "free memory or use smaller batches"
        return kind(f"{doing}: expected {self.name} {self.version} to do it, found: {found[:1200]}; {advice}")

    @property
    def targets(self) -> tuple[str, ...]:
        """The compute capabilities that engines can be built for, as "8.9"; empty: only for this machine's GPU."""
        kinds = getattr(self.module, "ComputeCapability", None)
        numbers = [] if kinds is None else [int(value) for value in kinds.__members__.values()]
        return tuple(f"{number // 10}.{number % 10}" for number in sorted(numbers) if number >= 10)

    def deserialize(self, content: bytes | memoryview) -> Any:
        """An ICudaEngine. **Engines are code**: check the file against its record before.

        Raises:
            EngineIncompatible: no driver, or the engine is of another version, GPU or runtime; says which.
            EngineOutOfMemory: the device has too little memory.
        """
        trouble = driver_problem()
        if trouble is not None:  # first: the lean runtimes crash the process at the first call without a driver
            raise EngineIncompatible(f"opening an engine: expected an NVIDIA driver and a GPU, found: {trouble}")
        with _lock:
            if self._runtime is None:
                self.forget_errors()
                try:
                    runtime = self.module.Runtime(self.logger)
                except TypeError as error:  # how the bindings tell that the library gave nothing
                    advice = "the NVIDIA driver may be too old for it: update that, see graftsdk doctor"
                    raise self.failure("opening an engine", advice, EngineIncompatible) from error
                runtime.engine_host_code_allowed = False
                self._runtime = runtime  # not before: no other call may see one that runs an engine's host code
        self.forget_errors()
        self._check_validity(content)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise self.failure("opening an engine", "build it again on this machine", EngineIncompatible)
        return engine

    def _check_validity(self, content: bytes | memoryview) -> None:
        """What the header alone says; tensorrt_rtx has this, `tensorrt` finds it out by deserialising."""
        if not hasattr(self._runtime, "get_engine_validity"):
            return
        size = self._runtime.engine_header_size
        validity, mask = self._runtime.get_engine_validity(bytes(content[:size]))
        if validity == self.module.EngineValidity.INVALID:
            kinds = self.module.EngineInvalidityDiagnostics.__members__
            named = [name for name, bit in kinds.items() if int(bit) & int(mask)]
            found = ", ".join(named).lower().replace("_", " ") or "no device"
            raise EngineIncompatible(
                f"opening an engine: expected one for this GPU and {self.name} {self.version}, found: {found}; build "
                f"it again with graftsdk build --for {' --for '.join(gpu_capabilities()) or 'X.Y'}"
            )


def runtime_name(runtime: str) -> str:
    """The library's name for what a caller wrote: "tensorrt-rtx" is "tensorrt_rtx".

    Raises:
        InputError: there is no such runtime.
    """
    name = runtime.replace("-", "_") if isinstance(runtime, str) else ""
    if name not in RUNTIMES:
        raise InputError(f"runtime: expected 'tensorrt' or 'tensorrt_rtx', found {runtime!r:.80}")
    return name


def find_library(runtime: str | None = None) -> Library:
    """The library `runtime`; None takes `tensorrt` where it is installed, else `tensorrt_rtx`.

    Raises:
        InputError: an unknown runtime. MissingDependency: it is not installed, or broken; gives the install line.
        EngineIncompatible: a version below the floor.
    """
    if runtime is not None:
        return _library(runtime_name(runtime))
    too_old: EngineIncompatible | None = None
    for name in RUNTIMES:
        try:
            return _library(name)
        except MissingDependency as error:
            _log.debug("%s", error)
        except EngineIncompatible as error:
            too_old = too_old or error
    if too_old is not None:
        raise too_old
    raise MissingDependency(
        f"expected the package tensorrt or tensorrt-rtx, found neither; {_INSTALL['tensorrt_rtx']}, or "
        f"{_INSTALL['tensorrt']}"
    )


def problem(runtime: str | None = None, *, running: bool = True) -> str | None:
    """Why engines cannot be run here (or, with `running=False`, not even built) and what to do; None where they can."""
    try:
        library = find_library(runtime)
    except (MissingDependency, EngineIncompatible) as error:
        return str(error)
    trouble = driver_problem() if running or not library.targets else None
    return None if trouble is None else f"{library.name} {library.version}: {trouble}"


def capability_number(text: str) -> int:
    """89 for "8.9".

    Raises:
        InputError: no compute capability.
    """
    if not isinstance(text, str) or re.fullmatch(r"[1-9]\d?\.\d", text, re.ASCII) is None:
        raise InputError(f"compute capability: expected text like '8.9' or '12.0', found {text!r:.80}")
    return int(text.replace(".", ""))


def _library(name: str) -> Library:
    with _lock:
        if name in _found:
            return _found[name]
        try:
            module = import_module(name)
        except (ImportError, OSError) as error:
            raise MissingDependency(f"expected the package {name}, found {error}; {_INSTALL[name]}") from error
        version = str(getattr(module, "__version__", ""))
        floor = FLOORS[name]
        if _numbers(version) < floor or not hasattr(module, "Runtime"):
            raise EngineIncompatible(
                f"expected {name} {'.'.join(map(str, floor))} or later, found {version or 'none'}; "
                f"{_INSTALL[name].replace('install', 'install -U')}"
            )
        lines: Lines = deque(maxlen=_KEPT)
        _found[name] = Library(name, version, module, _make_logger(module, lines), lines)
        return _found[name]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _is_noise(line: str) -> bool:
    return _NOISE.search(line) is not None and driver_problem() is not None


def _make_logger(module: Any, lines: Lines) -> Any:
    """An ILogger that hands everything to logging and keeps the errors; it is called from threads of the library."""
    severity = module.ILogger.Severity
    levels: Mapping[Any, int] = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
        severity.VERBOSE: logging.DEBUG,
    }

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            level = levels.get(severity, logging.INFO)
            if level < logging.ERROR:
                if _log.isEnabledFor(level):
                    _log.log(level, "%s", msg)
                return
            lines.append((next(_order), threading.get_ident(), " ".join(msg.split())))
            _log.log(logging.DEBUG if _is_noise(msg) else level, "%s", msg)

    return Logger()
