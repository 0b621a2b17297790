"""Arrays on a device, taken from and given to torch, CuPy and others without a copy.

DLPack and `__cuda_array_interface__` (version 3) both say who has to wait for whom: `as_device_array` makes our stream
wait for what the producer has enqueued, and a `DeviceArray` makes the consumer's stream wait for what we have. On the
host device NumPy's DLPack (device type 1) plays the part, with torch's CPU tensors as the other side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from graftsdk.engines.cuda.driver_errors import cuda_errors
from graftsdk.engines.cuda.layout import check_layout, contiguous_strides
from graftsdk.engines.cuda.pinned import array_at
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import Event, Stream
from graftsdk.errors import DTypeError, EngineIncompatible, InputError, LayoutError, MissingDependency, ShapeError

__all__ = ["DeviceArray", "as_device_array"]

_CPU, _CUDA, _CUDA_HOST, _MANAGED = 1, 2, 3, 13  # DLDeviceType


class DeviceArray:
    """Device memory with a shape; torch.from_dlpack and cupy.from_dlpack take it without a copy.

    Args:
        device: the device of the memory.
        ptr: address of the first element.
        shape: elements along each axis.
        dtype: type of an element, in the machine's byte order.
        owner: what keeps the memory; alive as long as this, and as whatever was made of it.
        strides: bytes from one element to the next along each axis; None for C order.
        ready: an event after which the contents are there; None where they are.
        readonly: whether nobody may write to it. DLPack tells it since version 1 only: others cannot know.
    """

    def __init__(
        self,
        device: Device,
        ptr: int,
        shape: Sequence[int],
        dtype: Any,
        *,
        owner: object,
        strides: Sequence[int] | None = None,
        ready: Event | None = None,
        readonly: bool = False,
    ) -> None:
        self.device = device
        self.ptr = int(ptr)
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self.strides = contiguous_strides(self.shape, self.dtype.itemsize) if strides is None else tuple(strides)
        self.owner = owner
        self.ready = ready
        self.readonly = readonly

    @property
    def nbytes(self) -> int:
        """Bytes of the elements; with gaps between them the memory is longer."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after another in C order."""
        return not self.nbytes or all(
            size == 1 or stride == dense
            for size, stride, dense in zip(
                self.shape, self.strides, contiguous_strides(self.shape, self.dtype.itemsize), strict=True
            )
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_CPU, 0) if self.device.kind == "host" else (_CUDA, self.device.index)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule for `from_dlpack`; `stream` as DLPack has it (None: the legacy default stream; -1: no waiting).

        Raises:
            BufferError: a copy, or another device, is asked for.
            InputError: stream 0, which says no more than None and is not allowed.
            EngineIncompatible: cuda.core is not there to make the capsule.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError(f"__dlpack__: expected to hand out {self!r} as it is, found a copy or other device asked")
        self.device.check_open()
        if self.device.kind == "host":
            if self.ready is not None:
                self.ready.sync()
            return self._as_numpy().__dlpack__(max_version=max_version)
        self._order(1 if stream is None else stream)
        core = _cuda_core("__dlpack__: handing out an array; torch.as_tensor and cupy.asarray take it without")
        with self.device.active(), cuda_errors("__dlpack__"):
            span = _span(self.shape, self.strides, self.dtype.itemsize)
            buffer = core.Buffer.from_handle(self.ptr, span, owner=self)
            elements = tuple(stride // self.dtype.itemsize for stride in self.strides)
            view = core.utils.StridedMemoryView.from_buffer(
                buffer, self.shape, elements, dtype=self.dtype, is_readonly=self.readonly
            )
            return view.__dlpack__(max_version=max_version)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, without a stream: the contents are waited for here.

        Raises:
            AttributeError: on the host device, whose memory no CUDA library may be given.
        """
        if self.device.kind == "host":
            raise AttributeError("a DeviceArray on the host device has no __cuda_array_interface__; use __dlpack__")
        if self.ready is not None:
            self.ready.sync()
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.ptr, self.readonly),
            "strides": None if self.contiguous else self.strides,
            "stream": None,
            "version": 3,
        }

    def _order(self, stream: int) -> None:
        if stream == 0:
            raise InputError("__dlpack__: stream: expected None, -1, 1, 2 or a stream's handle, found 0")
        if stream != -1 and self.ready is not None:
            self.device.order_handle(self.ready, stream)

    def _as_numpy(self) -> np.ndarray:
        memory = array_at(self.ptr, _span(self.shape, self.strides, self.dtype.itemsize), owner=self)
        array: np.ndarray = np.ndarray(self.shape, self.dtype, memory, 0, self.strides)
        array.flags.writeable = not self.readonly
        return array

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype}{list(self.shape)} on {self.device!r}>"


def as_device_array(
    obj: Any,
    stream: Stream,
    *,
    what: str = "array",
    dtype: Any = None,
    shape: Sequence[int | None] | None = None,
    layout: str = "contiguous",
    writable: bool = False,
) -> DeviceArray:
    """The array `obj` on the device of `stream`, not copied; work on `stream` from now on sees what was enqueued on it.

    Args:
        obj: anything with DLPack or `__cuda_array_interface__`: a torch tensor, a CuPy array, a `DeviceArray`.
        stream: where the array will be used.
        what: names it in the messages.
        dtype: what its elements must be; None for any that NumPy has.
        shape: its sides, None where any is right; None for any shape.
        layout: "contiguous", "rows" (rows of the first axis may lie apart, as in padded frames) or "any".
        writable: whether it will be written to.

    Raises:
        InputError: no array, one on another device, or read-only where it is written.
        DTypeError, ShapeError, LayoutError: an array that does not fit.
        MissingDependency: cuda.core is needed to read it.
    """
    device = stream.device
    stream.check_open()
    found = _taken(obj, stream, what)
    if dtype is not None and found.dtype != np.dtype(dtype):
        raise DTypeError(f"{what}: expected elements {np.dtype(dtype)}, found {found.dtype}; convert it on its device")
    if shape is not None and not _fits(found.shape, shape):
        sides = ", ".join("any" if side is None else str(side) for side in shape)
        raise ShapeError(f"{what}: expected shape [{sides}], found {list(found.shape)}")
    if writable and found.readonly:
        raise InputError(f"{what}: expected a writable array, found a read-only one")
    check_layout(what, found.shape, found.strides, found.dtype.itemsize, found.ptr, layout)
    if found.device is not device:
        raise InputError(f"{what}: expected an array on {device!r}, found one on {found.device!r}; copy it over")
    return found


def _taken(obj: Any, stream: Stream, what: str) -> DeviceArray:
    if isinstance(obj, DeviceArray):
        if obj.ready is not None and obj.device is stream.device:
            obj.ready.wait(stream)
        return obj
    if hasattr(obj, "__dlpack__") and hasattr(obj, "__dlpack_device__"):
        # pycuda's own arrays, and CuPy's where cuda.core is absent, say as much by the other interface
        if stream.device.kind == "pycuda" and hasattr(obj, "__cuda_array_interface__"):
            return _by_interface(obj, stream, what)
        return _by_dlpack(obj, stream, what)
    if hasattr(obj, "__cuda_array_interface__"):
        return _by_interface(obj, stream, what)
    raise InputError(
        f"{what}: expected an array on the device, with __dlpack__ or __cuda_array_interface__, found "
        f"{type(obj).__name__}"
    )


def _by_dlpack(obj: Any, stream: Stream, what: str) -> DeviceArray:
    device = stream.device
    kind, index = (int(number) for number in obj.__dlpack_device__())
    wanted = (_CPU, _CUDA_HOST) if device.kind == "host" else (_CUDA, _MANAGED)
    if kind not in wanted or (kind == _CUDA and index != device.index):
        raise InputError(
            f"{what}: expected an array on {device!r}, found one on DLPack device type {kind}, number {index}; "
            "copy it over first"
        )
    if device.kind == "host":
        return _by_numpy(obj, device, what)
    core = _cuda_core(f"{what}: an array of {type(obj).__name__}")
    with device.active():
        try:
            view = core.utils.StridedMemoryView.from_dlpack(obj, stream.handle)
            dtype = view.dtype
        except (BufferError, NotImplementedError, TypeError, RuntimeError, ValueError) as error:
            raise _refused(error, what) from error
        size = dtype.itemsize
        strides = None if view.strides is None else [stride * size for stride in view.strides]
        return DeviceArray(
            device, view.ptr, view.shape, dtype, owner=view, strides=strides, readonly=bool(view.readonly)
        )


def _by_numpy(obj: Any, device: Device, what: str) -> DeviceArray:
    try:
        array = np.from_dlpack(obj)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(error, what) from error
    return DeviceArray(
        device,
        array.__array_interface__["data"][0],
        array.shape,
        array.dtype,
        owner=array,
        strides=array.strides,
        readonly=not array.flags.writeable,
    )


def _by_interface(obj: Any, stream: Stream, what: str) -> DeviceArray:
    """By `__cuda_array_interface__`, a dictionary.

    Version 2 does not name the producer's stream: all work of the device is waited for. Version 3 may say None, which
    means that there is nothing to wait for.
    """
    device = stream.device
    said = obj.__cuda_array_interface__
    try:
        shape = tuple(int(size) for size in said["shape"])
        ptr, readonly = int(said["data"][0] or 0), bool(said["data"][1])
        dtype = np.dtype(said["typestr"])
        strides = None if said.get("strides") is None else tuple(int(stride) for stride in said["strides"])
        version, producer = int(said["version"]), said.get("stream")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{what}: expected a __cuda_array_interface__ of version 2 or 3, found {error!r}") from error
    if version < 2 or said.get("mask") is not None or any(size < 0 for size in shape):
        raise InputError(f"{what}: expected a __cuda_array_interface__ of version 2 or 3 without a mask, found another")
    if dtype.kind not in "biufc" or not dtype.isnative:
        raise DTypeError(f"{what}: expected elements that NumPy has, in this machine's byte order, found {dtype.str}")
    if strides is not None and len(strides) != len(shape):
        raise LayoutError(f"{what}: expected {len(shape)} strides, found {len(strides)}")
    if math.prod(shape):
        where = device.index_of(ptr)
        if where != device.index:
            raise InputError(f"{what}: expected memory of {device!r}, found {_place(where)}; copy it over first")
    if version < 3:
        device.sync()
    elif producer is not None:
        if isinstance(producer, bool) or not isinstance(producer, int) or producer <= 0:
            raise InputError(f"{what}: stream: expected None or a positive handle, found {producer!r:.80}")
        device.wait_for_handle(stream, producer)
    return DeviceArray(device, ptr, shape, dtype, owner=obj, strides=strides, readonly=readonly)


def _refused(error: Exception, what: str) -> InputError:
    """What a producer or reader of DLPack says, by what it means."""
    text = " ".join(str(error).split())[:300]
    if any(word in text.lower() for word in ("dtype", "bfloat", "float8", "bit", "lanes", "byte order")):
        return DTypeError(f"{what}: expected elements that NumPy has, found: {text}")
    return InputError(f"{what}: expected an array that can be taken by DLPack, found: {text}")


def _cuda_core(doing: str) -> Any:
    try:
        return import_module("cuda.core")
    except ImportError as error:
        raise MissingDependency(f"{doing}: expected cuda-core, found {error}; pip install 'graftsdk[gpu]'") from error


def _fits(found: Sequence[int], shape: Sequence[int | None]) -> bool:
    return len(found) == len(shape) and all(
        side is None or side == size for size, side in zip(found, shape, strict=True)
    )


def _span(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> int:
    """Bytes from the first element to behind the last."""
    if not math.prod(shape):
        return 0
    if min(strides, default=0) < 0:
        raise EngineIncompatible("__dlpack__: expected strides from the first element on, found negative ones")
    return itemsize + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _place(index: int | None) -> str:
    return "memory of no device" if index is None else f"memory of device {index}"
