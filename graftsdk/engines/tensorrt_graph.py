"""One deserialised TensorRT engine: what goes in and out, the batches it takes, contexts to run it in.

TensorRT tells most failures by a False, None or 0 only; each is checked here. Tested with a stand-in; not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftsdk.engines.base import Graph
from graftsdk.engines.buckets import Profile, profile_for
from graftsdk.engines.feeds import Port
from graftsdk.engines.refittable import renamed
from graftsdk.engines.tensorrt import Library
from graftsdk.errors import EngineError, EngineIncompatible

__all__ = ["DeviceGraph", "RunContext"]

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
_REBUILD = "build the engine again with graftsdk build"


class DeviceGraph:
    """One engine, open; see `base.OpenGraph`. Many contexts may run it at once.

    Its ports are called as in the graph; `names` tells how the engine calls their parts, where otherwise.

    Attributes:
        profiles: the batches it takes; of an engine with a fixed batch that one.
        aux_streams: how many streams beside the main one a context of it uses.
        most_scratch: bytes that a run needs at most beside inputs and outputs.

    Raises:
        EngineIncompatible: the engine computes something else than the graph, or has inputs that cannot be fed.
    """

    def __init__(
        self, library: Library, content: bytes | memoryview, graph: Graph, names: Mapping[str, str] | None = None
    ) -> None:
        self._library, self._names = library, names or {}
        self._engine = library.deserialize(content)
        trt, engine = library.module, self._engine
        found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        fed = [name for name in found if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.inputs = self._ports(fed, list(graph.inputs), "inputs")
        self.outputs = self._ports([name for name in found if name not in fed], list(graph.outputs), "outputs")
        self.profiles = self._profiles()
        self.aux_streams = int(engine.num_aux_streams)
        self.most_scratch = int(engine.device_memory_size_v2)
        self._cache: Any = None
        self._config = self._runtime_config()

    def context(self, size: int, stream: int) -> RunContext:
        """A context for batches of `size`, with shapes and profile set; memory is given to it by `RunContext.bind`.

        Args:
            size: a batch that some profile admits.
            stream: handle of the stream that the context will run on.

        Raises:
            EngineOutOfMemory: the device has not enough memory.
            EngineError: the library refuses.
        """
        self._library.forget_errors()
        if self._config is not None:
            native = self._engine.create_execution_context(self._config)
        else:
            native = self._engine.create_execution_context(
                self._library.module.ExecutionContextAllocationStrategy.USER_MANAGED
            )
        if native is None:
            raise self._library.failure("making an execution context", _REBUILD, EngineError)
        return RunContext(self._library, native, self, size, stream)

    def inside(self, name: str) -> str:
        """What the engine calls a port."""
        return renamed(name, self._names)

    def _ports(self, found: Sequence[str], wanted: Sequence[str], kind: str) -> tuple[Port, ...]:
        if sorted(found) != sorted(map(self.inside, wanted)):
            raise EngineIncompatible(
                f"engine: expected the {kind} {sorted(wanted)[:8]}, found {sorted(found)[:8]}; it was built from "
                f"another plan: {_REBUILD}"
            )
        ports = []
        for name in wanted:
            kind_of = self._engine.get_tensor_dtype(self.inside(name)).name
            if kind_of not in _DTYPES:
                raise EngineIncompatible(f"engine: {name}: expected one of {', '.join(_DTYPES)}, found {kind_of}")
            shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(self.inside(name)))
            ports.append(Port(name, np.dtype(_DTYPES[kind_of]), shape))
        return tuple(ports)

    def _profiles(self) -> tuple[Profile, ...]:
        fixed = self.inputs[0].shape[0] if self.inputs[0].shape else 1
        if fixed is not None:
            return (Profile(fixed, fixed, fixed),)
        name, found = self.inside(self.inputs[0].name), []
        for index in range(self._engine.num_optimization_profiles):
            least, best, most = (int(shape[0]) for shape in self._engine.get_tensor_profile_shape(name, index))
            found.append(Profile(least, best, most))
        if not found:
            raise EngineIncompatible(f"engine: expected an optimisation profile of its batches, found none; {_REBUILD}")
        return tuple(found)

    def _runtime_config(self) -> Any:
        """Of tensorrt_rtx, which compiles kernels for a shape when it meets it; None with `tensorrt`.

        At once, not in the background: a captured graph would keep the slow fallback. Its own CUDA graphs are off,
        ours hold several engines. All contexts share what was compiled.
        """
        trt = self._library.module
        if not hasattr(trt, "CudaGraphStrategy"):
            return None
        self._library.forget_errors()
        config = self._engine.create_runtime_config()
        if config is None:
            raise self._library.failure("making a runtime configuration", _REBUILD, EngineError)
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        kinds = trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = kinds.EAGER
        self._cache = config.create_runtime_cache()  # kept as long as contexts are made from it
        if self._cache is None or not config.set_runtime_cache(self._cache):
            raise self._library.failure("sharing compiled kernels", _REBUILD, EngineError)
        return config


class RunContext:
    """One execution context of an engine, for one batch size and stream. One thread at a time.

    Attributes:
        scratch: bytes of device memory that a run needs beside its inputs and outputs.
        shapes: output name -> its shape at this batch.
    """

    def __init__(self, library: Library, native: Any, graph: DeviceGraph, size: int, stream: int) -> None:
        self._library, self._native, self._stream, self._inside = library, native, stream, graph.inside
        if any(None in port.shape for port in graph.inputs):  # else there is nothing to choose
            profile = profile_for(graph.profiles, size)
            done = native.set_optimization_profile_async(profile, stream)
            self._check(done, f"taking optimisation profile {profile}")
            for port in graph.inputs:
                shape = tuple(size if side is None else side for side in port.shape)
                done = native.set_input_shape(self._inside(port.name), shape)
                self._check(done, f"setting {port.name!r} to shape {shape}")
        missing = native.infer_shapes()
        self.shapes = {port.name: tuple(native.get_tensor_shape(self._inside(port.name))) for port in graph.outputs}
        free = [name for name, shape in self.shapes.items() if any(side < 0 for side in shape)]
        if missing or free:
            raise EngineIncompatible(
                f"engine: expected shapes that follow from the batch, found {missing or free} free; {_REBUILD}"
            )
        self.scratch = int(native.update_device_memory_size_for_shapes()) or graph.most_scratch  # 0: it does not know

    def bind(self, addresses: Mapping[str, int], scratch: tuple[int, int], aux: Sequence[int]) -> None:
        """Say where everything lies, for good: a captured graph keeps the addresses.

        Args:
            addresses: of every input and output, 256-byte aligned.
            scratch: address and size of the memory that runs on the same stream may share.
            aux: handles of streams for what runs beside the main one; empty lets TensorRT make its own.
        """
        self._native.set_device_memory(*scratch)
        for name, address in addresses.items():
            done = self._native.set_tensor_address(self._inside(name), address)
            self._check(done, f"setting the address of {name!r}")
        if aux:
            self._native.set_aux_streams(list(aux))

    def enqueue(self) -> None:
        """Put one run on the stream.

        Raises:
            EngineOutOfMemory: the device has not enough memory. EngineError: the library refuses.
        """
        self._library.forget_errors()
        self._check(self._native.execute_async_v3(self._stream), "running an engine")

    @property
    def capturable(self) -> bool:
        """Whether its runs can be captured; only tensorrt_rtx can tell, `tensorrt` finds out."""
        ask = getattr(self._native, "is_stream_capturable", None)
        return True if ask is None else bool(ask(self._stream))

    def _check(self, done: object, doing: str) -> None:
        if not done:
            raise self._library.failure(doing, _REBUILD, EngineError)
