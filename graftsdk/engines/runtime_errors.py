"""ONNX Runtime's errors as ours, in one place.

Its classes have no common base; they are known by name here, so that nothing is imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from graftsdk.errors import EngineBuildError, EngineError, EngineIncompatible, EngineOutOfMemory, GraftError, InputError

__all__ = ["KNOWN", "engine_error", "runtime_errors"]

# Name in onnxruntime.capi.onnxruntime_pybind11_state -> what it means to a caller. A test compares the names.
KNOWN: dict[str, type[GraftError]] = {
    "DeviceReset": EngineIncompatible,
    "EPFail": EngineIncompatible,
    "EngineError": EngineBuildError,
    "Fail": EngineBuildError,
    "InvalidArgument": EngineBuildError,
    "InvalidGraph": EngineBuildError,
    "InvalidProtobuf": EngineBuildError,
    "ModelLoadCanceled": EngineBuildError,
    "ModelLoaded": EngineBuildError,
    "ModelRequiresCompilation": EngineBuildError,
    "NoModel": EngineBuildError,
    "NoSuchFile": EngineBuildError,
    "NotFound": EngineBuildError,
    "NotImplemented": EngineBuildError,
    "RuntimeException": EngineBuildError,
}
# What the runtime's wrapper and pybind11 raise beside them.
_BUILTIN = (RuntimeError, ValueError, TypeError, IndexError, OSError)
_OUT_OF_MEMORY = ("bad allocation", "bad_alloc", "out of memory", "failed to allocate memory", "cannot allocate memory")


@contextlib.contextmanager
def runtime_errors(doing: str, *, running: bool = False) -> Iterator[None]:
    """Raise what the runtime raises inside the block as a leaf of EngineError; `doing` opens the message.

    Raises:
        EngineOutOfMemory, EngineIncompatible, EngineBuildError: see `KNOWN`.
        InputError: while running, the runtime found an argument that does not fit.
    """
    try:
        yield
    except GraftError:
        raise
    except Exception as error:
        mapped = engine_error(error, doing, running=running)
        if mapped is None:
            raise
        raise mapped from error


def engine_error(error: Exception, doing: str, *, running: bool = False) -> GraftError | None:
    """Our error for one of the runtime's; None for one that is not the runtime's."""
    text = " ".join(str(error).split())[:600]
    if isinstance(error, MemoryError) or any(phrase in text.lower() for phrase in _OUT_OF_MEMORY):
        return EngineOutOfMemory(f"{doing}: expected enough memory, found none left ({text}); run smaller batches")
    kind: type[GraftError] | None = None
    if type(error).__module__.startswith("onnxruntime."):
        kind = KNOWN.get(type(error).__name__, EngineError)
        if running and type(error).__name__ == "InvalidArgument":
            kind = InputError
    elif isinstance(error, _BUILTIN):
        kind = EngineBuildError
    if kind is None:
        return None
    return kind(f"{doing}: expected the runtime to accept it, found {type(error).__name__}: {text}")
