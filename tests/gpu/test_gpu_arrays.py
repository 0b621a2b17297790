"""Arrays of torch and CuPy on a GPU, in and out without a copy, each side waiting for the other's work."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

from graftsdk.engines.cuda import DeviceArray, as_device_array
from graftsdk.engines.cuda.protocol import Device
from graftsdk.errors import InputError

pytestmark = pytest.mark.gpu

SLOW = 300  # passes over so many bytes: milliseconds of work for any GPU, and a copy alone takes microseconds
BIG = 64 << 20


class Arrays(ABC):
    """A library of arrays on the device."""

    @abstractmethod
    def make(self, array: np.ndarray) -> Any:
        """A copy of it on the device."""

    @abstractmethod
    def address(self, array: Any) -> int: ...

    @abstractmethod
    def take(self, array: Any) -> Any:
        """By DLPack, not copied."""

    @abstractmethod
    def host(self, array: Any) -> np.ndarray: ...

    @abstractmethod
    def late(self) -> AbstractContextManager[object]:
        """What is enqueued in the block is done late, on a stream of its own."""


class Torch(Arrays):
    def __init__(self, place: str) -> None:
        self.torch = pytest.importorskip("torch")
        self.place = place
        if place == "cuda" and not self.torch.cuda.is_available():
            pytest.skip(f"torch {self.torch.__version__} finds no CUDA device")

    def make(self, array: np.ndarray) -> Any:
        return self.torch.tensor(array, device=self.place)

    def address(self, array: Any) -> int:
        return int(array.data_ptr())

    def take(self, array: Any) -> Any:
        return self.torch.from_dlpack(array)

    def host(self, array: Any) -> np.ndarray:
        return np.asarray(array.cpu())

    @contextmanager
    def late(self) -> Iterator[object]:
        if self.place == "cpu":
            yield
            return
        with self.torch.cuda.stream(self.torch.cuda.Stream()):
            work = self.torch.zeros(BIG, dtype=self.torch.uint8, device="cuda")
            for _ in range(SLOW):
                work += 1
            yield


class CuPy(Arrays):
    def __init__(self, place: str) -> None:
        self.cupy = pytest.importorskip("cupy")
        if place == "cpu":
            pytest.skip("CuPy has no arrays of the host for a dry run")

    def make(self, array: np.ndarray) -> Any:
        return self.cupy.asarray(array)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def take(self, array: Any) -> Any:
        return self.cupy.from_dlpack(array)

    def host(self, array: Any) -> np.ndarray:
        return np.asarray(self.cupy.asnumpy(array))

    @contextmanager
    def late(self) -> Iterator[object]:
        with self.cupy.cuda.Stream(non_blocking=True):
            work = self.cupy.zeros(BIG, self.cupy.uint8)
            for _ in range(SLOW):
                work += 1
            yield


@pytest.fixture(params=[Torch, CuPy], ids=["torch", "cupy"])
def arrays(request: pytest.FixtureRequest, device: Device, record_property: Callable[[str, object], None]) -> Any:
    record_property("runtime", device.kind)
    return request.param("cpu" if device.kind == "host" else "cuda")


def fetch(device: Device, array: DeviceArray, stream: Any) -> np.ndarray:
    out = np.zeros(array.shape, array.dtype)
    device.d2h(out.reshape(-1).view(np.uint8), array, array.nbytes, stream)
    stream.sync()
    return out


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64"])
def test_in_without_a_copy(arrays: Arrays, device: Device, dtype: str, rng: np.random.Generator) -> None:
    given = rng.integers(0, 100, (5, 7, 3)).astype(dtype)
    array = arrays.make(given)
    with device.stream() as stream:
        taken = as_device_array(array, stream, dtype=dtype, shape=(None, 7, 3))
        assert taken.ptr == arrays.address(array) and taken.device is device
        assert fetch(device, taken, stream).tobytes() == given.tobytes()


def test_rows_that_lie_apart(arrays: Arrays, device: Device, rng: np.random.Generator) -> None:
    """A frame with padded rows, as decoders give it."""
    padded = arrays.make(rng.integers(0, 256, (6, 10, 3)).astype(np.uint8))
    frame = padded[:, :8]
    with device.stream() as stream:
        taken = as_device_array(frame, stream, layout="rows")
        assert taken.ptr == arrays.address(frame) and taken.strides == (30, 3, 1)
        with pytest.raises(InputError, match="one after another"):
            as_device_array(frame, stream)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_out_without_a_copy(arrays: Arrays, device: Device, dtype: str, rng: np.random.Generator) -> None:
    given = rng.integers(0, 100, (4, 6)).astype(dtype)
    with device.stream() as stream:
        buffer = device.alloc(given.nbytes)
        device.h2d(buffer, given, given.nbytes, stream)
        stream.sync()
        address = buffer.ptr
        handed = arrays.take(DeviceArray(device, buffer.ptr, given.shape, given.dtype, owner=buffer))
        del buffer
        gc.collect()
        device.sync()  # frees what nobody holds
        assert arrays.address(handed) == address
        assert arrays.host(handed).tobytes() == given.tobytes()


def test_we_wait_for_the_producer(arrays: Arrays, device: Device) -> None:
    array = arrays.make(np.zeros(1 << 20, np.uint8))
    device.sync()
    with device.stream() as stream:
        with arrays.late():
            array[...] = 7
            taken = as_device_array(array, stream)
        assert (fetch(device, taken, stream) == 7).all()


def test_the_consumer_waits_for_us(arrays: Arrays, device: Device) -> None:
    with device.stream() as stream, device.alloc(BIG) as work:
        buffer = device.alloc(1 << 20)
        device.memset(buffer, 0, buffer.nbytes, stream)
        for value in range(SLOW):
            device.memset(work, value % 256, work.nbytes, stream)
        device.memset(buffer, 5, buffer.nbytes, stream)
        ready = device.event()
        ready.record(stream)
        handed = arrays.take(DeviceArray(device, buffer.ptr, (buffer.nbytes,), np.uint8, owner=buffer, ready=ready))
        assert (arrays.host(handed) == 5).all()
        stream.sync()


class ByInterface:
    """An array that is known by `__cuda_array_interface__` alone."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__


def test_by_the_older_interface(arrays: Arrays, device: Device, rng: np.random.Generator) -> None:
    if device.kind == "host":
        pytest.skip("arrays of the host have no __cuda_array_interface__")
    given = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    array = arrays.make(given)
    with device.stream() as stream:
        taken = as_device_array(ByInterface(array), stream)
        assert taken.ptr == arrays.address(array)
        assert fetch(device, taken, stream).tobytes() == given.tobytes()
