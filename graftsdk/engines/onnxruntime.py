"""Graphs on ONNX Runtime, the only module that imports it.

A graph is compiled once at ENABLE_ALL (NCHWc blocks, fusions) and saved; what runs is a session on the saved
graph with optimisation off, whose weights are memory-mapped. Measured with 1.32 on 2 cores with AVX-512,
InceptionV3 at 299 (95 MB of weights) and a net of eight 2048x2048 Gemm and MatMul (134 MB): the same bits and
the same speed as the compiling session, 0.02 s and 0.16 s to open, growth of resident memory after the first
result 1.34 and 1.05 times the weights (compiling session: 1.65 and 1.17).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftsdk.engines.base import Graph
from graftsdk.engines.entry import GRAPH_FILE, WEIGHTS_FILE
from graftsdk.engines.exits import in_flight
from graftsdk.engines.feeds import Port
from graftsdk.engines.forks import leak_in_child
from graftsdk.engines.providers import provider_name, providers_for
from graftsdk.engines.runtime_errors import runtime_errors
from graftsdk.engines.threads import enter_session
from graftsdk.errors import EngineBuildError, EngineIncompatible, MissingDependency

__all__ = [
    "BoundSession",
    "Session",
    "compile_graph",
    "cuda_problem",
    "on_host",
    "open_compiled",
    "open_uncompiled",
    "set_global_pool",
    "version",
]

# `onnxruntime` and `onnxruntime-gpu` write to one folder: the last one installed wins, silently (onnxruntime #26996).
_REPAIR = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
_BOUND_ON = "cuda"  # where the values of a GPU's graphs stay, in the words of IO binding
_BFLOAT16 = 16  # ONNX's number of the type; NumPy's arrays of it are ml_dtypes', which the runtime does not know
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
# ONNX, written out: IR 10, opset 18, y = Relu(x), float32[1]. The smallest thing a device can prove itself on.
_PROBE = bytes.fromhex(
    "080a3a330a0c0a0178120179220452656c751201705a0f0a0178120a0a08080112040a020801620f0a0179120a0a0808"
    "0112040a02080142040a001012"
)


class Session:
    """One open graph; see `base.Runner`."""

    def __init__(self, session: Any, graph: Graph, weights: object = None) -> None:
        self._session = session
        self._weights = weights  # kept alive: a session compiled here reads them where they are
        self.inputs = _ports(session.get_inputs(), list(graph.inputs))
        self.outputs = _ports(session.get_outputs(), list(graph.outputs))

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
        with in_flight(), runtime_errors("running a graph", running=True):
            return list(self._session.run(list(names), dict(feeds)))


class BoundSession(Session):
    """A graph on a GPU, bound to its memory: what one graph gives, another takes from where it lies.

    Its `run` takes arrays, arrays on the device, and values that such a session gave. It gives values on the device;
    `on_host` fetches them.
    """

    def run(self, feeds: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
        values = _onnxruntime().OrtValue
        with in_flight(), runtime_errors("running a graph", running=True):
            binding = self._session.io_binding()
            for name, feed in feeds.items():
                if isinstance(feed, np.ndarray):
                    binding.bind_cpu_input(name, feed)  # the one copy to the device
                elif isinstance(feed, values):
                    binding.bind_ortvalue_input(name, feed)
                else:  # a `DeviceFeed`
                    feed.ready.sync()  # the session has a stream of its own
                    where = (_BOUND_ON, feed.device.index, feed.dtype.type, feed.shape, feed.ptr)
                    binding.bind_input(name, *where)
            for name in names:
                binding.bind_output(name, _BOUND_ON)
            self._session.run_with_iobinding(binding)
            return list(binding.get_outputs())


def on_host(value: Any) -> np.ndarray:
    """A value that a session gave, as an array."""
    if isinstance(value, np.ndarray):
        return value
    with in_flight(), runtime_errors("copying a result from the device", running=True):
        found: np.ndarray = value.numpy()
        return found


def version() -> str:
    """The runtime's name and version, for the engine cache's key."""
    return f"onnxruntime {_onnxruntime().__version__}"


def set_global_pool(threads: int) -> None:
    """Make one pool of `threads` threads for every later session of the process.

    Raises:
        EngineBuildError: the runtime refuses it.
    """
    ort = _onnxruntime()
    with runtime_errors(f"share_threads({threads})"):
        ort.set_global_thread_pool_sizes(threads, 1)


def cuda_problem(providers: Sequence[Any] | None = None) -> str | None:
    """Why device "cuda" does not work here, and what to do; None where it does."""
    ort = _onnxruntime()
    found = ort.get_available_providers()
    wanted = provider_name((providers or providers_for("cuda"))[0])
    if wanted not in found:
        return (
            f"device 'cuda': expected a build of ONNX Runtime with {wanted}, found {ort.__version__} with "
            f"{', '.join(found)}; `onnxruntime` and `onnxruntime-gpu` side by side hide it: {_REPAIR}"
        )
    try:
        _session(_PROBE, "cuda", 1, optimise=True, providers=providers)
    except (EngineIncompatible, EngineBuildError) as error:
        return str(error)
    return None


def compile_graph(
    graph: Graph, folder: Path, device: str, threads: int, providers: Sequence[Any] | None = None
) -> None:
    """Write the graph, compiled for this machine, into `folder`, and prove that it opens.

    Raises:
        EngineBuildError: the runtime refuses it, or could not write it whole.
    """
    model, weights = _load(graph)
    options = {
        "session.optimized_model_external_initializers_file_name": WEIGHTS_FILE,
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
    }
    save = folder / GRAPH_FILE
    _session(model, device, threads, optimise=True, options=options, weights=weights, save=save, providers=providers)
    del weights
    open_compiled(graph, save.read_bytes(), folder, device, threads, providers)


def open_compiled(
    graph: Graph, model: bytes, folder: Path, device: str, threads: int, providers: Sequence[Any] | None = None
) -> Session:
    """The graph that `compile_graph` wrote; `model` is its checked graph, the weights are mapped from `folder`.

    Prepacking stays on: without it Gemm has other bits at batch 1 than at batch 2 (measured, 1.32).
    """
    options = {_EXTERNAL_FOLDER: str(folder)}
    return _kind(device)(_session(model, device, threads, optimise=False, options=options, providers=providers), graph)


def open_uncompiled(
    graph: Graph, device: str, threads: int, *, optimise: bool = True, providers: Sequence[Any] | None = None
) -> Session:
    """The graph, compiled for this process only; `optimise=False` runs it node by node as it stands."""
    model, weights = _load(graph)
    session = _session(model, device, threads, optimise=optimise, weights=weights, providers=providers)
    return _kind(device)(session, graph, weights)


def _load(graph: Graph) -> tuple[bytes, dict[str, Any]]:
    """The graph's bytes, and its big initialisers as the runtime's values, without a copy."""
    model, tensors = graph.load()
    with runtime_errors("reading a graph's weights"):
        return model, {name: _value(np.require(each, requirements=["C", "A"])) for name, each in tensors.items()}


def _value(array: np.ndarray) -> Any:
    make = _onnxruntime().OrtValue
    typed = array.dtype.name == "bfloat16"
    return make.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16) if typed else make.ortvalue_from_numpy(array)


def _session(
    model: bytes,
    device: str,
    threads: int,
    *,
    optimise: bool,
    options: Mapping[str, str] | None = None,
    weights: Mapping[str, Any] | None = None,
    save: Path | None = None,
    providers: Sequence[Any] | None = None,
) -> Any:
    """A session on `device`, which is really used.

    External data that is not in `weights` is looked for under `options`, else nowhere: a graph reads no other file.

    Raises:
        EngineBuildError: the runtime refuses the graph.
        EngineIncompatible: the runtime took another device.
    """
    ort = _onnxruntime()
    shared = enter_session()
    settings = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL  # parallel is 10 to 50 times slower (#11668, #23303)
    settings.log_severity_level = 3  # errors; a saved graph is tied to the CPU, and the cache's key knows it
    if shared is None:
        settings.inter_op_num_threads = 1
        settings.intra_op_num_threads = threads
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # doubles the next session's time
    else:
        settings.use_per_session_threads = False
    # session.set_denormal_as_zero stays off: it sets the caller's own thread, for good, to flush what is subnormal
    # (measured, 1.32), so that other code of the process computes otherwise. Export leaves no such weights instead.
    for name, value in {_EXTERNAL_FOLDER: os.devnull, **(options or {})}.items():
        settings.add_session_config_entry(name, value)
    if weights:
        settings.add_external_initializers(list(weights), list(weights.values()))
    if save is not None:
        settings.optimized_model_filepath = str(save)
    wanted = list(providers or providers_for(device))
    with in_flight(), runtime_errors(f"opening a graph on {device!r}"):
        session = ort.InferenceSession(model, settings, providers=wanted, enable_fallback=0)
    _check_device(session, device, provider_name(wanted[0]))
    leak_in_child(session)
    return session


def _check_device(session: Any, device: str, wanted: str) -> None:
    """ONNX Runtime takes the CPU, with a warning only, where a GPU does not work (#11323)."""
    session.disable_fallback()
    if device == "cuda" and wanted not in session.get_providers():
        raise EngineIncompatible(
            f"device 'cuda': expected {wanted}, found {', '.join(session.get_providers())}; check the driver with "
            f"nvidia-smi; `onnxruntime` and `onnxruntime-gpu` side by side hide it too: {_REPAIR}"
        )


def _kind(device: str) -> type[Session]:
    return Session if device == "cpu" else BoundSession


def _ports(nodes: Sequence[Any], names: list[str]) -> tuple[Port, ...]:
    """The session's inputs or outputs, in the order of `names`; others after them."""
    ports = []
    for node in nodes:
        if node.type not in _DTYPES:
            raise EngineBuildError(f"{node.name}: expected one of {', '.join(_DTYPES)}, found {node.type}")
        shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in node.shape)
        ports.append(Port(node.name, np.dtype(_DTYPES[node.type]), shape))
    return tuple(sorted(ports, key=lambda port: names.index(port.name) if port.name in names else len(names)))


def _onnxruntime() -> Any:
    """The module onnxruntime.

    Raises:
        MissingDependency: it is absent, broken, or overwritten by a second package.
    """
    # 1.32 starts a thread at import that reports use to its maker. graftsdk sends nothing anywhere; and in a forked
    # child, which lacks that thread, exit() would wait for it for ever (measured).
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise MissingDependency(f"expected the package onnxruntime, found {error}; pip install graftsdk") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingDependency(
            "expected the package onnxruntime, found a folder without it, as it is left where `onnxruntime` and "
            "`onnxruntime-gpu` were both installed and one was removed: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install graftsdk"
        )
    if os.environ["ORT_DISABLE_TELEMETRY"] == "1":
        onnxruntime.disable_telemetry_events()  # where other code imported it first
    return onnxruntime
