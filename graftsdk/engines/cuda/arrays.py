"""Device memory with a shape, handed out without a copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from graftsdk.engines.cuda.driver_errors import cuda_errors
from graftsdk.engines.cuda.layout import contiguous_strides
from graftsdk.engines.cuda.pinned import array_at
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.cuda.resources import Event
from graftsdk.errors import EngineIncompatible, InputError, MissingDependency

__all__ = ["CPU", "CUDA", "DeviceArray", "cuda_core"]

CPU, CUDA = 1, 2  # DLDeviceType


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
        return (CPU, 0) if self.device.kind == "host" else (CUDA, self.device.index)

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
        core = cuda_core("__dlpack__: handing out an array; torch.as_tensor and cupy.asarray take it without")
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


def cuda_core(doing: str) -> Any:
    """cuda.core, which reads and makes DLPack's capsules.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return import_module("cuda.core")
    except ImportError as error:
        raise MissingDependency(f"{doing}: expected cuda-core, found {error}; pip install 'graftsdk[gpu]'") from error


def _span(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> int:
    """Bytes from the first element to behind the last."""
    if not math.prod(shape):
        return 0
    if min(strides, default=0) < 0:
        raise EngineIncompatible("__dlpack__: expected strides from the first element on, found negative ones")
    return itemsize + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
