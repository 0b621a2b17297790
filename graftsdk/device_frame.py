"""Frames that lie on a GPU: taken without a copy, and fetched to the host only when somebody asks for their pixels.

Who hands a frame in may write over it once `predict` has returned. What is asked for later, `Prediction.image` and what
is drawn on it, are the pixels that the frame holds then, and the first such fetch is kept; the prediction keeps the
frame's memory alive until it. Scores, boxes and masks are those of the frame as it was.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines.cuda import Device, DeviceSpan, Event, Stream
from graftsdk.engines.cuda.crop_inputs import DeviceFrame
from graftsdk.engines.cuda.interop import DeviceArray, as_device_array
from graftsdk.engines.cuda.layout import check_layout
from graftsdk.errors import DTypeError, EngineClosed, InputError, LayoutError
from graftsdk.preprocess.image import check_shape, check_size

__all__ = ["DeviceImage", "check_reduce"]


def check_reduce(reduce: int) -> None:
    """Refuse to scale a frame on the device. Raises InputError."""
    if reduce != 1:
        raise InputError(
            f"reduce: expected 1 for a frame on a device, found {reduce}; crops are cut from all its pixels"
        )


class DeviceImage:
    """One frame: uint8[H, W, 3] in device memory, in the order `color`; a function of no arguments that fetches it.

    Attributes:
        shape: (H, W, 3). frame: where it lies. color: "bgr" or "rgb".
        spent_ms: what taking it took, on the host.
    """

    def __init__(self, source: Any, color: str, stream: Stream) -> None:
        """The frame, once it has passed the checks of `check_image`; nothing of it is read.

        Args:
            source: an array with DLPack or `__cuda_array_interface__` on the stream's device; rows may lie apart.
            color: its channel order.
            stream: made to wait for what its producer has enqueued.

        Raises:
            InputError: an array of another device. DTypeError, ShapeError, ImageTooSmall, ImageTooLarge: no image.
            LayoutError: channels first, or pixels that do not lie side by side.
        """
        started = time.perf_counter()
        array = _taken(source, stream)
        self._source, self._device = source, stream.device
        self._array: DeviceArray | None = array  # its producer's hold on the memory, until the frame is fetched
        self.shape, self.color = array.shape, color
        self.frame = DeviceFrame(array.ptr, array.shape[0], array.shape[1], array.strides[0])
        self._ready: Event = self._device.event()
        self._ready.record(stream)
        self.spent_ms = 1e3 * (time.perf_counter() - started)

    def order(self, stream: Stream) -> None:
        """Later work on `stream` sees the frame as its producer made it."""
        self._ready.wait(stream)

    @property
    def nbytes(self) -> int:
        """Of its pixels."""
        return int(np.prod(self.shape))

    def __call__(self) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3], BGR: the pixels that the frame holds now, behind what its producer has enqueued.

        Raises:
            EngineClosed: the predictor was closed. InputError: the array is another one by now.
        """
        try:
            pixels = _fetched(self._source, self.shape, self._device)
        except EngineClosed as error:
            raise EngineClosed(
                "image: expected an open predictor when the pixels of a frame on its device are first asked for, found "
                "one after close(); ask before"
            ) from error
        return pixels if self.color == "bgr" else np.ascontiguousarray(pixels[:, :, ::-1])


def _fetched(source: Any, shape: tuple[int, ...], device: Device) -> npt.NDArray[np.uint8]:
    with device.active(), device.stream() as stream:
        array = _taken(source, stream)
        if array.shape != shape:
            raise InputError(f"image: expected the frame of shape {list(shape)} still, found {list(array.shape)}")
        height, width, _ = shape
        pitch = array.strides[0]
        rows = np.empty((height - 1) * pitch + 3 * width, np.uint8)
        device.d2h(rows, DeviceSpan(device, array.ptr, rows.nbytes, array), rows.nbytes, stream)
        stream.sync()
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(rows, shape, (pitch, 3, 1)))


def _taken(source: Any, stream: Stream) -> DeviceArray:
    array = as_device_array(source, stream, what="image", layout="any")
    if array.dtype != np.uint8:
        raise DTypeError(
            f"image: expected uint8 values 0..255, found {array.dtype}; convert it on its device, values 0..1 as "
            f"(frame * 255).round()"
        )
    if len(array.shape) == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        raise LayoutError(
            f"image: expected [H, W, 3], found shape {list(array.shape)}, channels first; use "
            f"frame.permute(1, 2, 0).contiguous() or its like"
        )
    check_shape(array.shape)
    check_size(array.shape[0], array.shape[1])
    check_layout("image", array.shape, array.strides, 1, array.ptr, "rows")
    return array
