"""Which runtimes of a GPU work here, and what is said of those that do not."""

from __future__ import annotations

import enum
from types import SimpleNamespace

import pytest

from graftsdk.engines import available, onnxruntime
from graftsdk.engines.available import engines_here
from graftsdk.engines.driver import driver_problem
from graftsdk.engines.tensorrt import Library
from graftsdk.errors import MissingDependency

NAMES = ["tensorrt", "tensorrt-rtx", "cuda-core", "pycuda", "onnxruntime cuda", "onnxruntime tensorrt"]


class ComputeCapability(enum.IntEnum):
    SM86, SM89, SM120 = 86, 89, 120


LIBRARY = Library("tensorrt_rtx", "1.7.1", SimpleNamespace(ComputeCapability=ComputeCapability), None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine on which everything works; its GPUs."""
    found = ["8.9"]
    monkeypatch.setattr(available, "driver_problem", lambda: None)
    monkeypatch.setattr(available, "gpu_capabilities", lambda: tuple(found))
    monkeypatch.setattr(available, "problem", lambda name, running=True: None)
    monkeypatch.setattr(available, "find_library", lambda name: LIBRARY)
    monkeypatch.setattr(available, "device_problem", lambda index, kind: None)
    monkeypatch.setattr(onnxruntime, "cuda_problem", lambda providers=None: None)
    return found


@pytest.mark.skipif(driver_problem() is None, reason="there is a driver here")
def test_without_a_driver_each_says_what_to_do() -> None:
    found = engines_here()
    assert [each.name for each in found] == NAMES
    for each in found:
        assert not each.works and ("driver" in each.says or "pip install" in each.says), each


def test_everything_works(gpu: list[str]) -> None:
    assert [(each.works, each.says) for each in engines_here()] == [(True, "")] * 6
    assert [each.name for each in engines_here() if each.builds] == ["tensorrt", "tensorrt-rtx"]


def test_a_gpu_that_the_library_builds_nothing_for(gpu: list[str]) -> None:
    gpu[:] = ["9.0"]
    state = engines_here()[1]
    assert (state.works, state.builds) == (False, True)
    assert "8.6, 8.9, 12.0" in state.says and "found 9.0; run the plan on ONNX Runtime" in state.says
    gpu[:] = ["9.0", "8.6"]  # one of two will do
    assert engines_here()[1].works


def test_a_library_that_builds_but_runs_nothing(gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "problem", lambda name, running=True: "no driver" if running else None)
    state = engines_here()[1]
    assert (state.works, state.builds, state.says) == (False, True, "no driver")


def test_a_runtime_that_is_not_installed(gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(providers: object = None) -> str:
        raise MissingDependency("expected the package onnxruntime; pip install graftsdk")

    monkeypatch.setattr(onnxruntime, "cuda_problem", missing)
    assert [each.says for each in engines_here()[4:]] == ["expected the package onnxruntime; pip install graftsdk"] * 2
