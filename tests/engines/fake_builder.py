"""The stand-in for `tensorrt` with what builds and refits: an engine is its ONNX graph, weights inside.

Refit works as the real library says of itself: weights are found by name, put in by `refit_cuda_engine` only, and where
that fails some of them have arrived already.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from graftsdk.engines.cuda.host import HostDevice
from tests.engines.fake_tensorrt import _TYPES, Engine, FakeTensorRT, ILogger, Runtime, engine_bytes

_NUMPY = {kind: np.dtype(dtype) for kind, dtype in _TYPES.values()}


class BuilderFlag(enum.Enum):
    TF32, REFIT = range(2)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class SerializationFlag(enum.Enum):
    EXCLUDE_WEIGHTS, EXCLUDE_LEAN_RUNTIME, INCLUDE_REFIT = range(3)


class IProgressMonitor:
    pass


class IStreamWriter:
    pass


class FakeBuilder(FakeTensorRT):
    """The module.

    Attributes:
        builds: the outputs of each engine that was built. refits: of each that was refitted.
        loses_bias: kREFIT drops the bias of a Gemm. refuses: names of weights that end so are refused by a refit.
        misses: weights that it finds missing. half_way: it fails when half of the weights are in.
        ignores: it says that it is done, and nothing was. leaves_out: engines are serialised without their weights.
    """

    def __init__(self) -> None:
        super().__init__(HostDevice(memory=1 << 28))
        self.builds: list[tuple[str, ...]] = []
        self.refits: list[tuple[str, ...]] = []
        self.loses_bias = self.half_way = self.ignores = self.leaves_out = False
        self.refuses = "nothing"
        self.misses: list[str] = []
        self.BuilderFlag, self.NetworkDefinitionCreationFlag = BuilderFlag, NetworkDefinitionCreationFlag
        self.SerializationFlag = SerializationFlag
        self.IProgressMonitor, self.IStreamWriter = IProgressMonitor, IStreamWriter
        self.nptype = _NUMPY.__getitem__

    def open_device(self) -> HostDevice:
        self.device = HostDevice(memory=1 << 28, compute_capability="8.9")
        return self.device

    def Runtime(self, logger: ILogger) -> Runtime:
        return _Runtime(self, logger)

    def Builder(self, logger: ILogger) -> Builder:
        return Builder(self)

    def OnnxParser(self, network: Network, logger: ILogger) -> OnnxParser:
        return OnnxParser(network)

    def Refitter(self, engine: Engine, logger: ILogger) -> Refitter:
        return Refitter(engine, logger)

    def OnnxParserRefitter(self, refitter: Refitter, logger: ILogger) -> OnnxParserRefitter:
        return OnnxParserRefitter(refitter)


class _Runtime(Runtime):
    def deserialize_cuda_engine(self, content: bytes | memoryview) -> Engine | None:
        engine = super().deserialize_cuda_engine(content)
        if engine is not None:
            engine.__class__ = BuiltEngine
        return engine


class BuiltEngine(Engine):
    """What it is serialised as can be refitted only where that is asked for."""

    def create_serialization_config(self) -> SerializationConfig:
        return SerializationConfig({SerializationFlag.EXCLUDE_WEIGHTS} if self.fake.leaves_out else set())

    def serialize_with_config(self, config: SerializationConfig) -> bytes:
        return engine_bytes(
            self._model, self.profiles, version=self._version, aux_streams=self.num_aux_streams,
            scratch=self._scratch, refittable=self.refittable and config.get_flag(SerializationFlag.INCLUDE_REFIT),
        )  # fmt: skip


class SerializationConfig:
    def __init__(self, flags: set[SerializationFlag]) -> None:
        self._flags = flags

    def set_flag(self, flag: SerializationFlag) -> bool:
        self._flags.add(flag)
        return True

    def get_flag(self, flag: SerializationFlag) -> bool:
        return flag in self._flags


class Tensor:
    def __init__(self, info: onnx.ValueInfoProto) -> None:
        kind = info.type.tensor_type
        self.name, self.dtype = info.name, _TYPES[kind.elem_type][0]
        self.shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)


class Network:
    def __init__(self) -> None:
        self._model = onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._model.graph.output)

    def get_input(self, index: int) -> Tensor:
        return Tensor(self._model.graph.input[index])

    def get_output(self, index: int) -> Tensor:
        return Tensor(self._model.graph.output[index])


class _Loads:
    """What parser and refitter share: bytes, and weights that are read where they lie."""

    def __init__(self) -> None:
        self._loaded: onnx.ModelProto | None = None

    num_errors = 0

    def load_model_proto(self, model: bytes, path: str | None = None) -> bool:
        self._loaded = onnx.ModelProto.FromString(model)
        return True

    def load_initializer(self, name: str, data: int, size: int) -> bool:
        assert self._loaded is not None
        found = [each for each in self._loaded.graph.initializer if each.name == name]
        if not found or int(found[0].external_data[2].value) != size:
            return False
        found[0].ClearField("external_data")
        found[0].data_location = TensorProto.DEFAULT
        found[0].raw_data = ctypes.string_at(data, size)
        return True


class OnnxParser(_Loads):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network

    def parse_model_proto(self) -> bool:
        assert self._loaded is not None
        self._network._model.CopyFrom(self._loaded)
        return True


class OptimizationProfile:
    def __init__(self) -> None:
        self._sizes: tuple[int, int, int] = (0, 0, 0)

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        self._sizes = min[0], opt[0], max[0]


class BuilderConfig:
    progress_monitor: object = None

    def __init__(self) -> None:
        self._flags = {BuilderFlag.TF32}
        self._profiles: list[tuple[int, int, int]] = []

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.remove(flag)

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        self._profiles.append(profile._sizes)
        return len(self._profiles) - 1


class Builder:
    def __init__(self, fake: FakeBuilder) -> None:
        self._fake = fake

    def create_network(self, flags: int = 0) -> Network:
        return Network()

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile()

    def build_serialized_network_to_stream(self, network: Network, config: BuilderConfig, writer: Any) -> bool:
        refittable = BuilderFlag.REFIT in config._flags
        model = network._model
        if refittable and self._fake.loses_bias:
            _lose_biases(model)
        self._fake.builds.append(tuple(each.name for each in model.graph.output))
        write: Callable[[bytes], int] = writer.write
        content = engine_bytes(model, config._profiles, refittable=refittable)
        return all(write(content[start : start + 10_000]) for start in range(0, len(content), 10_000))


class Refitter:
    def __init__(self, engine: Engine, logger: ILogger) -> None:
        if not engine.refittable:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._engine, self._logger, self._fake = engine, logger, engine.fake
        self._new: dict[str, TensorProto] = {}

    def get_missing_weights(self) -> list[str]:
        held = {each.name for each in self._engine._model.graph.initializer}
        return [*self._fake.misses, *sorted(held - set(self._new))]

    def refit_cuda_engine(self) -> bool:
        fake, graph = self._fake, self._engine._model.graph
        if fake.ignores:
            return True
        for index, tensor in enumerate(graph.initializer):
            if fake.half_way and index == len(graph.initializer) // 2:
                self._logger.log(ILogger.Severity.ERROR, "Error Code 1: Cuda Runtime (an illegal memory access)")
                return False
            tensor.CopyFrom(self._new[tensor.name])
        if fake.loses_bias:
            _lose_biases(self._engine._model)
        fake.refits.append(tuple(each.name for each in graph.output))
        return True


class OnnxParserRefitter(_Loads):
    def __init__(self, refitter: Refitter) -> None:
        super().__init__()
        self._refitter = refitter

    def load_initializer(self, name: str, data: int, size: int) -> bool:
        return not name.endswith(self._refitter._fake.refuses) and super().load_initializer(name, data, size)

    def refit_model_proto(self) -> bool:
        assert self._loaded is not None
        self._refitter._new = {each.name: each for each in self._loaded.graph.initializer}
        return True


def _lose_biases(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Gemm":
            for tensor in model.graph.initializer:
                if tensor.name == node.input[2]:
                    zeros = np.zeros(tuple(tensor.dims), helper.tensor_dtype_to_np_dtype(tensor.data_type))
                    tensor.ClearField("float_data")
                    tensor.raw_data = zeros.tobytes()
