"""Arrays on a device, taken from and given to torch, CuPy and others without a copy.

DLPack and `__cuda_array_interface__` (version 3) both say who has to wait for whom: `as_device_array` makes our stream
wait for what the producer has enqueued, and a `DeviceArray` makes the consumer's stream wait for what we have. On the
host device NumPy's DLPack (device type 1) plays the part, with torch's CPU tensors as the other side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graftsdk.engines.cuda.arrays import CPU, CUDA, DeviceArray, cuda_core
from graftsdk.engines.cuda.layout import check_layout
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import Stream
from graftsdk.errors import DTypeError, InputError, LayoutError, ShapeError

__all__ = ["DeviceArray", "as_device_array"]

_CUDA_HOST, _MANAGED = 3, 13  # DLDeviceType: memory that the other side can use too


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
        if stream.device.kind == "pycuda" and _has_interface(obj):
            return _by_interface(obj, stream, what)
        return _by_dlpack(obj, stream, what)
    if _has_interface(obj):
        return _by_interface(obj, stream, what)
    raise InputError(
        f"{what}: expected an array on the device, with __dlpack__ or __cuda_array_interface__, found "
        f"{type(obj).__name__}"
    )


def _has_interface(obj: Any) -> bool:
    try:
        return hasattr(obj, "__cuda_array_interface__")
    except RuntimeError:  # it has, and will say what is wrong when it is asked
        return True


def _by_dlpack(obj: Any, stream: Stream, what: str) -> DeviceArray:
    device = stream.device
    try:
        kind, index = (int(number) for number in obj.__dlpack_device__())
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(error, what) from error
    wanted = (CPU, _CUDA_HOST) if device.kind == "host" else (CUDA, _MANAGED)
    if kind not in wanted or (kind == CUDA and index != device.index):
        raise InputError(
            f"{what}: expected an array on {device!r}, found one on DLPack device type {kind}, number {index}; "
            "copy it over first"
        )
    if device.kind == "host":
        return _by_numpy(obj, device, what)
    core = cuda_core(f"{what}: an array of {type(obj).__name__}")
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
    try:
        said = obj.__cuda_array_interface__
    except RuntimeError as error:  # torch's, of a tensor that needs gradients
        raise _refused(error, what) from error
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
    return InputError(f"{what}: expected an array that can be taken as it is, found: {text}")


def _fits(found: Sequence[int], shape: Sequence[int | None]) -> bool:
    return len(found) == len(shape) and all(
        side is None or side == size for size, side in zip(found, shape, strict=True)
    )


def _place(index: int | None) -> str:
    return "memory of no device" if index is None else f"memory of device {index}"
