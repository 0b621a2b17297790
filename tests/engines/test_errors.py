"""What the runtime raises, what is missing, and what a caller hears of it."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_graphs import crops, graph, merged, model, trunk_model, value
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from graftsdk.engines import onnxruntime as runtime
from graftsdk.engines import open_engine
from graftsdk.engines.runtime_errors import KNOWN, engine_error
from graftsdk.errors import (
    EngineBuildError,
    EngineIncompatible,
    EngineOutOfMemory,
    GraftError,
    InputError,
    MissingDependency,
)


def test_every_error_of_the_runtime_is_known() -> None:
    found = {name for name, item in vars(state).items() if isinstance(item, type) and issubclass(item, BaseException)}
    assert found == set(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_each_becomes_a_leaf_of_ours(name: str) -> None:
    mapped = engine_error(getattr(state, name)("some  text\nof it"), "opening a graph")
    assert type(mapped) is KNOWN[name]
    assert str(mapped) == f"opening a graph: expected the runtime to accept it, found {name}: some text of it"


@pytest.mark.parametrize(
    ("error", "running", "expected"),
    [
        (state.RuntimeException("std::bad_alloc"), False, EngineOutOfMemory),
        (state.Fail("bad allocation"), True, EngineOutOfMemory),
        (state.RuntimeException("Failed to allocate memory for requested buffer of size 9"), True, EngineOutOfMemory),
        (MemoryError(), False, EngineOutOfMemory),
        (state.InvalidArgument("Got invalid dimensions"), True, InputError),
        (state.InvalidArgument("x"), False, EngineBuildError),
        (RuntimeError("x"), False, EngineBuildError),
        (ValueError("x"), True, EngineBuildError),
        (ZeroDivisionError(), False, None),
    ],
)
def test_errors_by_what_they_say(error: Exception, running: bool, expected: type[GraftError] | None) -> None:
    mapped = engine_error(error, "doing", running=running)
    assert mapped is None if expected is None else type(mapped) is expected


@pytest.mark.parametrize("content", [b"", b"rubbish", trunk_model().SerializeToString()[:-30]])
def test_what_is_no_graph_is_refused(content: bytes) -> None:
    broken = graph(trunk_model())
    object.__setattr__(broken, "load", lambda: (content, {}))
    with pytest.raises(EngineBuildError, match="opening a graph on 'cpu'") as found:
        open_engine([broken], device="cpu")
    assert found.value.__cause__ is not None


def test_out_of_memory_leaves_a_usable_engine() -> None:
    """An output of 2^50 numbers a row when the crop says so."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 1 << 50])
    nodes = [
        helper.make_node("ReduceMax", ["crops"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["big"]),
        helper.make_node("Where", ["big", "shape", "small"], ["size"]),
        helper.make_node("Expand", ["row", "size"], ["scores"]),
    ]
    weights = [
        shape,
        helper.make_tensor("small", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("row", TensorProto.FLOAT, [1, 1], [1.0]),
    ]
    found = model(nodes, [value("crops", "n", 3, 12, 12)], [value("scores", "n", "m")], weights)
    small, big = np.full((1, 3, 12, 12), -1, np.float32), np.full((1, 3, 12, 12), 1, np.float32)
    with open_engine([graph(found)], device="cpu") as engine:
        assert engine.run({"crops": small})["scores"].shape == (1, 2)
        with pytest.raises(EngineOutOfMemory):
            engine.run({"crops": big})
        assert engine.run({"crops": small})["scores"].shape == (1, 2)


@pytest.mark.parametrize("error", [ImportError("No module named 'onnxruntime'"), OSError("libfoo.so: cannot open")])
def test_a_missing_runtime(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[..., Any] = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise error
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependency, match="pip install graftsdk") as found:
        open_engine([merged()], device="cpu")
    assert found.value.__cause__ is error


def test_a_hollow_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(MissingDependency, match="pip uninstall -y onnxruntime onnxruntime-gpu && pip install graftsdk"):
        open_engine([merged()], device="cpu")


REPAIR = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


@pytest.mark.skipif("CUDAExecutionProvider" in state.get_available_providers(), reason="this build has CUDA")
def test_cuda_never_falls_back() -> None:
    with pytest.raises(EngineIncompatible) as found:
        open_engine([merged()], device="cuda")
    assert REPAIR in str(found.value) and "`onnxruntime` and `onnxruntime-gpu`" in str(found.value)
    with open_engine([merged()], device="auto") as engine:
        assert engine.device == "cpu"


def test_a_provider_that_is_there_but_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a driver that does not fit: the provider is offered, and the session runs on the CPU."""
    import onnxruntime

    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    original = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda content, settings, providers, **kw: original(content, settings, providers=[providers[-1]], **kw),
    )
    with pytest.raises(EngineIncompatible) as found:
        open_engine([merged()], device="cuda")
    assert "expected CUDAExecutionProvider, found CPUExecutionProvider" in str(found.value)
    assert REPAIR in str(found.value)
    with open_engine([merged()], device="auto") as engine:
        assert engine.device == "cpu"


def test_the_probe_is_a_graph() -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(runtime._PROBE, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([-1], np.float32)})[0].tolist() == [0.0]


def test_the_session_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that change speed or bits, as the design has them."""
    import onnxruntime

    seen: list[Any] = []
    original = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda content, settings, **kw: (seen.append((settings, kw)), original(content, settings, **kw))[1],
    )
    with open_engine([merged()], device="cpu", threads=2) as engine:
        engine.run({"crops": crops(1)})
    levels = onnxruntime.GraphOptimizationLevel
    compiling, *opened = [settings.graph_optimization_level for settings, _ in seen]
    assert (compiling, set(opened)) == (levels.ORT_ENABLE_ALL, {levels.ORT_DISABLE_ALL})
    for settings, kw in seen:
        assert settings.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        assert settings.intra_op_num_threads == 2
        assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert kw["providers"] == ["CPUExecutionProvider"]
        assert kw["enable_fallback"] == 0
