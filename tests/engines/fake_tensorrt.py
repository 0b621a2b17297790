"""A stand-in for `tensorrt` and `tensorrt_rtx` at run time: engines that compute their ONNX graph on a CPU.

It fails as the real one does, silently: False, None, -1 and a line in the log. What is undefined there (a context
used twice at once, scratch memory shared by runs that overlap, addresses never set) is noted in `wrong` here, which a
test looks at in the end. Work goes through the queue of the stream it is enqueued on, so that missing synchronisation
shows.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import json
import struct
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from graftsdk.engines.cuda.host import HostDevice
from graftsdk.errors import EngineError

MAGIC = b"fakE"
HEADER = 64
ALIGNMENT = 256
SCRATCH_ALIGNMENT = 512  # CUDA's texture alignment
Shape = tuple[int, ...]
_tokens = itertools.count(1)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY, EAGER, NONE = range(3)


class CudaGraphStrategy(enum.Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = range(2)


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


_TYPES = {
    TensorProto.FLOAT: (DataType.FLOAT, np.float32),
    TensorProto.FLOAT16: (DataType.HALF, np.float16),
    TensorProto.INT32: (DataType.INT32, np.int32),
    TensorProto.INT64: (DataType.INT64, np.int64),
}


def engine_bytes(
    model: onnx.ModelProto,
    profiles: Sequence[tuple[int, int, int]] = ((1, 2, 4),),
    *,
    version: str = "11.4.0",
    aux_streams: int = 0,
    scratch: int = 1024,
    refittable: bool = False,
) -> bytes:
    """An engine as it lies on the disk: header with magic, whole size and version; profiles (least, best, most)."""
    described = {"version": version, "profiles": list(profiles), "aux": aux_streams, "scratch": scratch}
    described["refittable"] = refittable
    text, graph = json.dumps(described).encode(), model.SerializeToString()
    size = HEADER + len(text) + len(graph)
    return struct.pack("<4sQI", MAGIC, size, len(text)).ljust(HEADER, b"\0") + text + graph


class FakeTensorRT:
    """The module, working on a `HostDevice`.

    Attributes:
        wrong: what the real library would have punished with garbage or a crash. runs: (engine's outputs, batch) of
            each execution that was really done. most_rows: executions of more rows find the device out of memory.
        contexts_left: how many more contexts can be made before the device is out of memory.
        breaks: how many more executions fail on the device, after the call.
        refuses_capture: nothing can be captured. allocates: every run does, so that none can be.
        free_sides: sides of outputs depend on the data.
        unsure: a context cannot say how much scratch memory its shapes need.
        refuses: names of calls that fail, of those that a runtime configuration is made with.
        aux_given: how many streams each new context was given.
        configs: those that were made, one an engine.
    """

    def __init__(
        self,
        device: HostDevice,
        *,
        version: str = "11.4.0",
        rtx: bool = False,
    ) -> None:
        self.__version__ = version
        self.device, self.rtx = device, rtx
        self.wrong: list[str] = []
        self.runs: list[tuple[tuple[str, ...], int]] = []
        self.most_rows: int | None = None
        self.contexts_left: int | None = None
        self.breaks = 0
        self.refuses_capture = self.allocates = self.free_sides = self.unsure = False
        self.refuses: set[str] = set()
        self.aux_given: list[int] = []
        self.configs: list[RuntimeConfig] = []
        self.executed = 0  # calls of execute_async_v3 that were accepted
        self.open_contexts = 0
        self.lock = threading.Lock()
        self.ILogger = ILogger
        self.TensorIOMode, self.DataType = TensorIOMode, DataType
        self.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
        if rtx:
            self.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
            self.CudaGraphStrategy = CudaGraphStrategy

    def submit(self, stream: int, work: Callable[[], None]) -> None:
        self.device.queues.put(self.device._handles[stream].queue, work)

    def capturing(self, stream: int) -> bool:
        return self.device._handles[stream].queue.recording is not None

    def check(self, address: int, nbytes: int) -> None:
        """Raises where the bytes are none of the device's."""
        self.device.memory.check(address, nbytes)

    def Runtime(self, logger: ILogger) -> Runtime:
        return Runtime(self, logger)


@cache
def _session(graph: bytes) -> Any:
    """Made once; engines of one graph share it."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])


class Runtime:
    engine_host_code_allowed = True  # the caller has to clear it

    def __init__(self, fake: FakeTensorRT, logger: ILogger) -> None:
        self.fake, self.logger = fake, logger

    def fail(self, text: str) -> None:
        self.logger.log(ILogger.Severity.ERROR, text)

    def deserialize_cuda_engine(self, content: bytes | memoryview) -> Engine | None:
        if self.engine_host_code_allowed:
            self.fake.wrong.append("an engine was deserialised with host code allowed")
        content = bytes(content)
        magic, size, length = struct.unpack("<4sQI", content[:16]) if len(content) >= HEADER else (b"", 0, 0)
        if magic != MAGIC or size != len(content):
            return self.fail("Error Code 1: Serialization (Serialization assertion failed: magic tag or size)")
        try:
            described = json.loads(content[HEADER : HEADER + length])
            model = onnx.ModelProto.FromString(content[HEADER + length :])
            session = _session(content[HEADER + length :])
        except Exception as error:
            self.fake.wrong.append(f"a damaged engine was deserialised: {error}")
            raise
        if described["version"] != self.fake.__version__:
            return self.fail(f"Error Code 1: version tag {described['version']} does not match")
        return Engine(self, described, model, session)


class Engine:
    def __init__(self, runtime: Runtime, described: Mapping[str, Any], model: onnx.ModelProto, session: Any) -> None:
        self.runtime, self.fake, self.session = runtime, runtime.fake, session
        self.profiles = [tuple(each) for each in described["profiles"]]
        self.num_aux_streams: int = described["aux"]
        self._scratch: int = described["scratch"]
        self.refittable: bool = described["refittable"]
        self._model, self._version = model, described["version"]
        self.infos = {info.name: info for info in (*model.graph.output, *model.graph.input)}  # not in our order
        self.inputs = [info.name for info in model.graph.input]
        self.outputs = [info.name for info in model.graph.output]
        self.names = sorted(self.infos)

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    @property
    def device_memory_size_v2(self) -> int:
        return max(self.get_device_memory_size_for_profile_v2(index) for index in range(len(self.profiles) or 1))

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return self._scratch * (self.profiles[index][2] if self.profiles else 2)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[self.infos[name].type.tensor_type.elem_type][0]

    def get_tensor_shape(self, name: str) -> Shape:
        sizes = self.infos[name].type.tensor_type.shape.dim
        return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[Shape]:
        own = self.get_tensor_shape(name)
        return [tuple(batch if size == -1 else size for size in own) for batch in self.profiles[index]]

    def serialize(self) -> bytes | None:
        return engine_bytes(
            self._model, self.profiles, version=self._version, aux_streams=self.num_aux_streams,
            scratch=self._scratch, refittable=self.refittable,
        )  # fmt: skip

    def create_runtime_config(self) -> RuntimeConfig | None:
        if not self.fake.rtx:
            raise AttributeError("create_runtime_config")
        if "create_runtime_config" in self.fake.refuses:
            return self.runtime.fail("Error Code 4: API Usage Error (no runtime configuration)")
        self.fake.configs.append(RuntimeConfig(self.runtime))
        return self.fake.configs[-1]

    def create_execution_context(self, how: Any = ExecutionContextAllocationStrategy.STATIC) -> Context | None:
        strategy = how.strategy if isinstance(how, RuntimeConfig) else how
        fake = self.fake
        if isinstance(how, RuntimeConfig) and how.cache is not None and how.cache() is None:
            fake.wrong.append("the runtime cache was destroyed before contexts were made from it")
        with fake.lock:
            if fake.contexts_left is not None:
                if fake.contexts_left <= 0:
                    return self.runtime.fail("Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
                fake.contexts_left -= 1
            fake.open_contexts += 1
        return Context(self, strategy)

    def compute(
        self, addresses: Mapping[str, int], shapes: Mapping[str, Shape], rows: int, memory: tuple[int, int] | None
    ) -> None:
        """Done by the stream: reads and writes memory as it is now."""
        if self.fake.breaks:
            self.fake.breaks -= 1
            raise EngineError("CUDA: an illegal memory access was encountered")
        token, scratch = next(_tokens) & 0xFF, None
        if memory is not None:
            scratch = self._view(memory[0], np.uint8, (memory[1],))
            scratch[:] = token
        feeds = {name: self._view(addresses[name], self._dtype(name), shape).copy() for name, shape in shapes.items()}
        found = self.session.run(self.outputs, feeds)
        if scratch is not None and (scratch != token).any():
            self.fake.wrong.append("two runs that overlap share scratch memory")
        for name, value in zip(self.outputs, found, strict=True):
            self._view(addresses[name], self._dtype(name), value.shape)[...] = value
        with self.fake.lock:
            self.fake.runs.append((tuple(self.outputs), rows))

    def _dtype(self, name: str) -> Any:
        return _TYPES[self.infos[name].type.tensor_type.elem_type][1]

    def _view(self, address: int, dtype: Any, shape: Shape) -> np.ndarray:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.fake.check(address, count)
        return np.frombuffer((ctypes.c_uint8 * count).from_address(address), dtype).reshape(shape)


class RuntimeCache:
    """What contexts share; who made it has to keep it."""


class RuntimeConfig:
    cache: weakref.ref[RuntimeCache] | None = None
    strategy = ExecutionContextAllocationStrategy.STATIC
    cuda_graph_strategy = CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache | None:
        return None if "create_runtime_cache" in self._runtime.fake.refuses else RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache | None = None) -> bool:
        if "set_runtime_cache" in self._runtime.fake.refuses:
            return bool(self._runtime.fail("Error Code 4: API Usage Error (no cache is set)"))
        self.cache = None if cache is None else weakref.ref(cache)
        return True


class Context:
    def __init__(self, engine: Engine, strategy: Any) -> None:
        self.engine, self.fake, self.strategy = engine, engine.fake, strategy
        self.profile = 0
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None
        self.fake.aux_given.append(0)
        self.warmed: set[tuple[Shape, ...]] = set()
        self.pending: dict[int, int] = {}  # stream -> executions that have not been done
        self.calling = threading.Lock()
        self.ran = False

    def __del__(self) -> None:
        self.fake.open_contexts -= 1

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if not 0 <= index < len(self.engine.profiles):
            return bool(self.engine.runtime.fail(f"Error Code 3: profile {index} is out of range"))
        if index != self.profile:
            self.profile, self.shapes = index, {}
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        shape, (least, _, most) = tuple(shape), self.engine.get_tensor_profile_shape(name, self.profile)
        fits = len(shape) == len(most) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        if name not in self.engine.inputs or not fits:
            return bool(self.engine.runtime.fail(f"Error Code 3: {name}: {shape} is not in [{least}, {most}]"))
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine.infos or memory % ALIGNMENT:
            return bool(self.engine.runtime.fail(f"Error Code 3: {name}: {memory} is not aligned"))
        self.addresses[name] = memory
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if self.strategy is not ExecutionContextAllocationStrategy.USER_MANAGED or memory % SCRATCH_ALIGNMENT:
            self.fake.wrong.append("set_device_memory: not aligned, or the context has memory of its own")
        if size < self._scratch():
            self.fake.wrong.append(f"set_device_memory: {size} bytes are too few")
        self.memory = (memory, size)

    def set_aux_streams(self, streams: Sequence[int]) -> None:
        self.fake.aux_given[-1] = len(streams)

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if -1 in self._shape(name)]

    def _shape(self, name: str) -> Shape:
        return self.shapes.get(name, self.engine.get_tensor_shape(name))

    def get_tensor_shape(self, name: str) -> Shape:
        own = self.engine.get_tensor_shape(name)
        batch = next((shape[0] for shape in self.shapes.values()), -1)
        free = self.fake.free_sides
        return tuple(batch if size == -1 and not (free and side) else size for side, size in enumerate(own))

    def update_device_memory_size_for_shapes(self) -> int:
        assert not self.infer_shapes()
        return 0 if self.fake.unsure else self._scratch()

    def _scratch(self) -> int:
        return self.engine._scratch * self._shape(self.engine.inputs[0])[0]

    def is_stream_capturable(self, stream: int) -> bool:
        return self.ran and not self.fake.allocates

    def execute_async_v3(self, stream: int) -> bool:
        if not self.calling.acquire(blocking=False):
            self.fake.wrong.append("one context was used by two threads at once")
            return False
        try:
            return self._execute(stream)
        finally:
            self.calling.release()

    def _execute(self, stream: int) -> bool:
        engine, fail = self.engine, self.engine.runtime.fail
        self.ran = True
        unset = [name for name in engine.infos if name not in self.addresses]
        if self.infer_shapes() or unset:
            return bool(fail(f"Error Code 3: shapes of {self.infer_shapes()} or addresses of {unset} are not set"))
        if self.strategy is ExecutionContextAllocationStrategy.USER_MANAGED and self.memory is None:
            self.fake.wrong.append("no device memory was given to a context that has none of its own")
            return False
        shapes = tuple(self._shape(name) for name in engine.inputs)
        rows = shapes[0][0]
        if self.fake.most_rows is not None and rows > self.fake.most_rows:
            return bool(fail("Error Code 1: Cuda Runtime (out of memory)"))
        if self.fake.capturing(stream):
            if shapes not in self.warmed or self.fake.refuses_capture:
                return bool(fail("Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)"))
        else:
            if any(count for other, count in self.pending.items() if other != stream):
                self.fake.wrong.append("one context has work in flight on two streams")
            self.warmed.add(shapes)
        self._enqueue(stream, dict(self.addresses), dict(zip(engine.inputs, shapes, strict=True)), rows)
        self.fake.executed += 1
        return True

    def _enqueue(self, stream: int, addresses: dict[str, int], shapes: dict[str, Shape], rows: int) -> None:
        captured = self.fake.capturing(stream)  # a recorded run counts when it is launched, not now
        engine, memory, pending, alive = self.engine, self.memory, self.pending, weakref.ref(self)

        def work() -> None:
            if alive() is None:
                engine.fake.wrong.append("a context was destroyed before its work was done")
            try:
                engine.compute(addresses, shapes, rows, memory)
            finally:
                if not captured:
                    pending[stream] -= 1

        if not captured:
            pending[stream] = pending.get(stream, 0) + 1
        self.fake.submit(stream, work)
