"""ONNX Runtime on a GPU: what is asked of it, and values that stay on the device. There is none here.

The option plumbing is tested with sessions on the CPU that claim another provider; binding with memory of the CPU,
which goes through the same calls.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from engine_graphs import crops, merged, split

from graftsdk.engines import cuda, open_engine
from graftsdk.engines import onnxruntime as runtime
from graftsdk.engines.cuda.host import HostDevice
from graftsdk.engines.cuda.interop import DeviceArray
from graftsdk.engines.providers import CPU, CUDA, TENSORRT, providers_for
from graftsdk.errors import DTypeError, EngineForked, EngineIncompatible, InputError

NAMES = ["a/scores", "b/scores"]


@pytest.mark.parametrize(
    ("device", "provider", "options", "expected"),
    [
        ("cpu", None, None, [CPU]),
        ("cuda", None, None, [(CUDA, {"use_tf32": "0"}), CPU]),
        ("cuda", "cuda", {"use_tf32": 1, "device_id": 2}, [(CUDA, {"use_tf32": "1", "device_id": "2"}), CPU]),
        (
            "cuda",
            "tensorrt",
            {"trt_fp16_enable": "1"},
            [(TENSORRT, {"trt_fp16_enable": "1"}), (CUDA, {"use_tf32": "0"}), CPU],
        ),
    ],
)
def test_the_list_of_providers(device: str, provider: Any, options: Any, expected: list[Any]) -> None:
    assert providers_for(device, provider, options) == expected


@pytest.mark.parametrize(
    ("device", "options", "text"),
    [
        ("cuda", {"provider": "rocm"}, "expected 'cuda', 'tensorrt' or None, found 'rocm'"),
        ("cuda", {"provider": ["cuda"]}, r"found \['cuda'\]"),
        ("cuda", {"provider_options": ["device_id"]}, r"expected \{name: value\}"),
        ("cpu", {"provider": "cuda"}, "expected none on device 'cpu'"),
        ("cpu", {"provider_options": {"device_id": 1}}, "expected none on device 'cpu'"),
    ],
)
def test_providers_that_are_refused(device: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        open_engine([merged()], device=device, **options)


class Claims:
    """A session on the CPU that says it runs on what it was asked for."""

    def __init__(self, session: Any, providers: list[str]) -> None:
        self._session, self._providers = session, providers

    def get_providers(self) -> list[str]:
        return self._providers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A machine that offers all providers; each list of providers that a session was asked for."""
    lists: list[Any] = []
    original = onnxruntime.InferenceSession

    def session(content: Any, settings: Any, *, providers: list[Any], **options: Any) -> Claims:
        lists.append(providers)
        names = [each if isinstance(each, str) else each[0] for each in providers]
        return Claims(original(content, settings, providers=[CPU], **options), names)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(runtime, "_BOUND_ON", "cpu")
    return lists


def test_options_reach_every_session(asked: list[Any], cache_root: Path) -> None:
    with open_engine(split(), device="cuda", provider_options={"device_id": 1}) as engine:
        assert engine.device == "cuda"
    assert len(asked) == 10  # the probe; each of three graphs compiled, proved and opened from the cache
    assert all(each == [(CUDA, {"use_tf32": "0", "device_id": "1"}), CPU] for each in asked)


def test_other_options_are_another_entry_of_the_cache(asked: list[Any], cache_root: Path) -> None:
    compiled = []
    for options in (None, {"device_id": 1}, {"device_id": 1}, {"device_id": 2}, None):
        with open_engine([merged()], device="cuda", provider_options=options) as engine:
            compiled.append(engine.compiled)
    assert compiled == [True, True, False, True, False]


def test_tensorrt_is_compiled_each_time(asked: list[Any], cache_root: Path) -> None:
    options = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": "/somewhere"}
    with open_engine([merged()], device="cuda", provider="tensorrt", provider_options=options) as engine:
        assert engine.compiled
    assert asked == [[(TENSORRT, options), (CUDA, {"use_tf32": "0"}), CPU]] * 2
    assert not cache_root.exists()  # its engines cannot be in a saved graph


def test_who_names_a_provider_gets_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    for device in ("auto", "cuda"):
        with pytest.raises(EngineIncompatible, match="expected a build of ONNX Runtime with TensorrtExecutionProvider"):
            open_engine([merged()], device=device, provider="tensorrt")


def test_what_one_graph_gives_the_next_takes_from_where_it_lies(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[tuple[str, str]] = []
    for kind in ("bind_cpu_input", "bind_ortvalue_input"):
        original = getattr(onnxruntime.IOBinding, kind)

        def bind(self: Any, name: str, value: Any, kind: str = kind, original: Any = original) -> None:
            bound.append((kind, name))
            original(self, name, value)

        monkeypatch.setattr(onnxruntime.IOBinding, kind, bind)
    fetched: list[Any] = []
    fetch = runtime.on_host
    monkeypatch.setattr(runtime, "on_host", lambda value: (fetched.append(value), fetch(value))[1])
    with open_engine(split(), device="cuda") as engine, open_engine([merged()], device="cpu") as plain:
        for count in (1, 8, 11):
            expected = plain.run({"crops": crops(count)}, NAMES)
            bound.clear()
            fetched.clear()
            found = engine.run({"crops": crops(count)}, NAMES)
            for name in NAMES:
                assert found[name].tobytes() == expected[name].tobytes()
                assert found[name].flags.owndata and found[name].flags.writeable
            chunks = {1: 1, 8: 1, 11: 3}[count]
            assert [each for each in bound if each[0] == "bind_cpu_input"] == [("bind_cpu_input", "crops")] * chunks
            assert sorted({each for each in bound if each[0] != "bind_cpu_input"}) == [
                ("bind_ortvalue_input", "a/tap"),
                ("bind_ortvalue_input", "b/tap"),
            ]
            assert len([each for each in fetched if not isinstance(each, np.ndarray)]) == 2 * chunks


class OnDevice:
    """An array as another library has it: it only says how to be taken."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_arrays_on_the_device_are_bound_where_they_lie(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    device = HostDevice()
    monkeypatch.setattr(cuda, "open_device", lambda: device)
    copied: list[str] = []
    monkeypatch.setattr(onnxruntime.IOBinding, "bind_cpu_input", lambda self, name, value: copied.append(name))
    with open_engine(split(), device="cuda") as engine, open_engine([merged()], device="cpu") as plain:
        for count in (1, 11):
            found = engine.run({"crops": OnDevice(crops(count))}, NAMES)
            expected = plain.run({"crops": crops(count)}, NAMES)
            assert all(found[name].tobytes() == expected[name].tobytes() for name in NAMES)
        assert copied == []
        producer, source = device.stream(), device.alloc(crops(2).nbytes)
        device.memset(source, 0, source.nbytes, producer)
        device.h2d(source, crops(2), source.nbytes, producer)
        ready = device.event()
        ready.record(producer)
        late = DeviceArray(device, source.ptr, (2, 3, 12, 12), np.float32, owner=source, ready=ready)
        found, expected = engine.run({"crops": late}, NAMES), plain.run({"crops": crops(2)}, NAMES)
        assert found["a/scores"].tobytes() == expected["a/scores"].tobytes()
        with pytest.raises(DTypeError, match="feed 'crops': expected elements float32"):
            engine.run({"crops": OnDevice(crops(1).astype(np.float16))})
        with pytest.raises(InputError, match="expected a numpy array"):
            plain.run({"crops": OnDevice(crops(1))})


def test_the_device_of_its_arrays_goes_with_the_last_run(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    device = HostDevice()
    streams: list[Any] = []
    made = device.stream
    monkeypatch.setattr(device, "stream", lambda: (streams.append(made()), streams[-1])[1])
    monkeypatch.setattr(cuda, "open_device", lambda: device)
    engine = open_engine([merged()], device="cuda")
    bound = onnxruntime.IOBinding.bind_input

    def close_meanwhile(*words: Any) -> None:
        engine.close()  # as another thread may, while this one runs
        bound(*words)

    engine.run({"crops": OnDevice(crops(1))})
    monkeypatch.setattr(onnxruntime.IOBinding, "bind_input", close_meanwhile)
    assert len(engine.run({"crops": OnDevice(crops(11))}, NAMES)["a/scores"]) == 11  # three chunks
    assert device._closed and [stream._closed for stream in streams] == [True]
    engine.close()


def test_a_forked_child_leaves_the_device_alone(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    device = HostDevice()
    monkeypatch.setattr(cuda, "open_device", lambda: device)
    with open_engine([merged()], device="cuda") as engine:
        engine.run({"crops": OnDevice(crops(1))})
        child = os.fork()
        if not child:
            status = 1
            try:
                engine.run({"crops": OnDevice(crops(1))})
            except EngineForked:
                engine.close()
                status = 2 if device._closed or engine._intake is not None else 0  # type: ignore[attr-defined]
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(engine.run({"crops": OnDevice(crops(2))}, NAMES)["a/scores"]) == 2
    assert device._closed


def test_feeds_are_checked_before_they_are_bound(asked: list[Any]) -> None:
    with open_engine([merged()], device="cuda") as engine, pytest.raises(InputError, match="found dtype <f8"):
        engine.run({"crops": crops(1).astype(np.float64)})
