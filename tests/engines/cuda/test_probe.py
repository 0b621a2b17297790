"""Which device is opened, and the one clear error where there is none; with the real packages where they are."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import pytest

from graftsdk.engines.cuda import device_problem, driver_errors, open_device
from graftsdk.engines.cuda.driver_errors import call, cuda_error, cuda_errors
from graftsdk.errors import EngineError, EngineIncompatible, EngineOutOfMemory, InputError, MissingDependency


def without_a_gpu() -> None:
    if device_problem() is None:
        pytest.skip("there is a CUDA device here")


def test_the_host_is_opened_by_name_only() -> None:
    with open_device(kind="host") as device:
        assert device.kind == "host"
    assert device_problem(kind="host") is None


def test_without_a_driver_there_is_exactly_one_clear_error() -> None:
    pytest.importorskip("cuda.core")
    without_a_gpu()
    with pytest.raises(EngineError) as caught:
        open_device()
    assert type(caught.value) is EngineIncompatible
    said = str(caught.value)
    assert device_problem() == said
    assert said.startswith("opening CUDA device 0: expected ") and "found" in said and "nvidia-smi" in said


def test_both_signs_of_a_missing_driver_mean_one_thing() -> None:
    pytest.importorskip("cuda.core")
    without_a_gpu()
    driver, runtime = import_module("cuda.bindings.driver"), import_module("cuda.bindings.runtime")
    for ask in (lambda: call(driver.cuInit(0)), lambda: call(runtime.cudaGetDeviceCount())):
        with pytest.raises(EngineIncompatible, match="driver"), cuda_errors("asking"):
            ask()


@pytest.mark.parametrize(("kind", "module"), [("cuda-core", "cuda.core"), ("pycuda", "pycuda.driver")])
def test_a_missing_package_is_named_with_its_install_line(
    kind: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"pip install 'graftsdk\[gpu\]'"):
        open_device(kind=kind)
    problem = device_problem(kind=kind)
    assert problem is not None and "pip install 'graftsdk[" in problem


@pytest.mark.parametrize(
    ("index", "kind", "message"),
    [(-1, None, "device index"), (1.0, None, "device index"), (True, None, "device index"), (0, "rocm", "kind")],
)
def test_what_is_no_device_is_refused(index: Any, kind: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_device(index, kind)


class CUDAError(Exception):
    """As cuda.core's."""


CUDAError.__module__ = "cuda.core._utils.cuda_utils"
Pycuda = type("LogicError", (Exception,), {"__module__": "pycuda._driver"})
PycudaMemory = type("MemoryError", (MemoryError,), {"__module__": "pycuda._driver"})


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (CUDAError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed"), EngineOutOfMemory, "smaller batches"),
        (PycudaMemory("cuMemAlloc failed: out of memory"), EngineOutOfMemory, "smaller batches"),
        (RuntimeError("cudaErrorMemoryAllocation (2)"), EngineOutOfMemory, "smaller batches"),
        (CUDAError("CUDA_ERROR_NO_DEVICE: no CUDA-capable"), EngineIncompatible, "CUDA_VISIBLE_DEVICES"),
        (Pycuda("cuInit failed: no CUDA-capable device is detected"), EngineIncompatible, "CUDA_VISIBLE_DEVICES"),
        (RuntimeError("cudaErrorInsufficientDriver (35)"), EngineIncompatible, "install a newer"),
        (RuntimeError('Function "cuStreamGetDevice" not found'), EngineIncompatible, "newer driver"),
        (ImportError("libcuda.so.1: cannot open shared object file"), EngineIncompatible, "install the driver"),
        (ImportError("_driver.so: undefined symbol: cuArrayCreate_v2"), EngineIncompatible, "newer driver"),
        (CUDAError("CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel"), EngineIncompatible, "compute capability"),
        (CUDAError("CUDA_ERROR_ILLEGAL_ADDRESS: a load"), EngineError, "start the process again"),
        (CUDAError("CUDA_ERROR_STREAM_CAPTURE_UNJOINED: unjoined"), EngineError, "every stream"),
        (CUDAError("CUDA_ERROR_MAP_FAILED: no"), EngineError, "nvidia-smi"),
        (Pycuda("cuCtxPushCurrent failed: invalid device context"), EngineError, "nvidia-smi"),
    ],
)
def test_errors_of_the_packages_become_ours(error: Exception, kind: type[EngineError], words: str) -> None:
    mapped = cuda_error(error, "doing it")
    assert type(mapped) is kind
    assert str(mapped).startswith("doing it: expected ") and words in str(mapped)


def test_what_is_not_theirs_stays_as_it_is() -> None:
    assert cuda_error(KeyError("x"), "doing it") is None
    assert cuda_error(ImportError("No module named 'cuda'"), "doing it") is None
    with pytest.raises(KeyError), cuda_errors("doing it"):
        raise KeyError("x")
    with pytest.raises(InputError), cuda_errors("doing it"):
        raise InputError("ours")


def test_the_texts_of_pycuda_lead_to_known_errors() -> None:
    assert set(driver_errors.TEXTS.values()) <= set(driver_errors.KNOWN)
