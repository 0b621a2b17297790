"""What can run a plan here beside the CPU: each runtime of a GPU, and why it cannot where it cannot."""

from __future__ import annotations

from dataclasses import dataclass

from graftsdk.engines import onnxruntime
from graftsdk.engines.cuda.probe import device_problem
from graftsdk.engines.driver import driver_problem, gpu_capabilities
from graftsdk.engines.providers import providers_for
from graftsdk.engines.tensorrt import find_library, problem
from graftsdk.errors import MissingDependency

__all__ = ["RuntimeState", "engines_here"]


@dataclass(frozen=True)
class RuntimeState:
    """One runtime.

    Attributes:
        name: as packages name it: "tensorrt", "tensorrt-rtx", "cuda-core", "pycuda", or "onnxruntime cuda" and
            "onnxruntime tensorrt", ONNX Runtime's providers.
        works: whether it can run something here.
        builds: whether `graftsdk build` can make engines with it here.
        says: why it does not work, and what to do; empty where it does.
    """

    name: str
    works: bool
    builds: bool
    says: str


def engines_here() -> tuple[RuntimeState, ...]:
    """The runtimes of a GPU, tried one by one: libraries imported, a device opened, the smallest graph opened."""
    return (
        *(_tensorrt(name) for name in ("tensorrt", "tensorrt-rtx")),
        *(_state(kind, device_problem(0, kind)) for kind in ("cuda-core", "pycuda")),
        *(_state(f"onnxruntime {provider}", _provider_problem(provider)) for provider in ("cuda", "tensorrt")),
    )


def _tensorrt(name: str) -> RuntimeState:
    says = problem(name) or _no_target(name)
    return RuntimeState(name, says is None, problem(name, running=False) is None, says or "")


def _no_target(name: str) -> str | None:
    """Why the library has nothing for this machine's GPUs: tensorrt_rtx 1.7 has no target for 9.0, the H100's."""
    targets, here = find_library(name).targets, gpu_capabilities()
    if not targets or not here or set(here) & set(targets):
        return None
    return (
        f"expected a GPU of compute capability {', '.join(targets)}, which it builds engines for, found "
        f"{', '.join(here)}; run the plan on ONNX Runtime (device='cuda')"
    )


def _provider_problem(provider: str) -> str | None:
    try:
        found = onnxruntime.cuda_problem(providers_for("cuda", provider))
    except MissingDependency as error:
        return str(error)
    trouble = driver_problem()
    return found if found is None or trouble is None else f"{found}; and there is {trouble}"


def _state(name: str, says: str | None) -> RuntimeState:
    return RuntimeState(name, says is None, False, says or "")
