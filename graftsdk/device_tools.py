"""What one thread needs to work on frames on a device: kernels with their parameters, and memory that is used again."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines.cuda import Device, DeviceBuffer, DeviceSpan, Stream
from graftsdk.engines.cuda.crop import DeviceCrop, DeviceMasks
from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.engines.cuda.prototypes import DevicePrototypes
from graftsdk.engines.cuda.selection import DeviceSelection
from graftsdk.engines.cuda.workspace import Blocks
from graftsdk.errors import EngineClosed, NonFiniteOutput
from graftsdk.plan import CropSpec
from graftsdk.preprocess import BoxMasks

__all__ = ["Recycled", "ToolPool", "Tools"]

_LEAST = 1 << 16  # bytes of a block that is recycled
_KEPT = 16  # blocks of a size that wait to be used again

Masks = npt.NDArray[Any] | BoxMasks


class Recycled:
    """Device memory whose last holder gives it back to the next caller: freeing it would stop the whole device.

    What held it may have no work in flight by then, which is so for whatever a call waited for.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._idle: dict[int, list[DeviceBuffer]] = defaultdict(list)

    def room(self, nbytes: int) -> DeviceSpan:
        """At least `nbytes` bytes, as long as the span or a copy of its reference lives.

        Raises:
            EngineOutOfMemory: the device has not that much.
        """
        size = max(_LEAST, 1 << max(nbytes - 1, 0).bit_length())
        idle = self._idle[size]
        try:
            buffer = idle.pop()  # one step, also beside other threads
        except IndexError:
            buffer = self._device.alloc(size)
        span = DeviceSpan(self._device, buffer.ptr, size)
        weakref.finalize(span, _give_back, idle, buffer).atexit = False
        return span


def _give_back(idle: list[DeviceBuffer], buffer: DeviceBuffer) -> None:
    if len(idle) < _KEPT:
        idle.append(buffer)  # else it goes with the last reference to it


class Tools:
    """Kernels with their parameters, for one thread at a time; every call that enqueues says on which stream.

    Attributes:
        crop: cuts persons out. network: makes a segmenter's input of a frame; None without one.
        prototypes: makes masks. selection: finds candidates.
    """

    def __init__(self, kernels: Kernels, memory: Recycled, spec: CropSpec, network: CropSpec | None) -> None:
        self.crop = _cropper(kernels, spec)
        self.network = None if network is None else _cropper(kernels, network)
        self.prototypes = DevicePrototypes(kernels, memory.room)
        self.selection = DeviceSelection(kernels)
        self._uploads = Blocks(kernels.device)

    @contextmanager
    def uploaded(self, masks: Masks, windows: npt.NDArray[np.int32], stream: Stream) -> Iterator[DeviceMasks]:
        """Masks of the host on the device, for the work that is enqueued in the block.

        Args:
            masks: N of them, bool or uint8 over the image, or BoxMasks.
            windows: int32[N, 4], the pixels of the image that are looked at; of masks over the image no others go over.
            stream: where they are used.
        """
        yield (
            _send_boxed(masks, self._uploads, stream)
            if isinstance(masks, BoxMasks)
            else _send_frames(masks, windows, self._uploads, stream)
        )
        self._uploads.used(stream)

    def close(self) -> None:
        """Give everything back, once the device has done its work."""
        for tool in (self.crop, self.network, self.prototypes, self.selection, self._uploads):
            if tool is not None:
                tool.close()


class ToolPool:
    """Tools for as many threads as work at once.

    Args:
        kernels: on the device. spec: what a person's crop is. network: a segmenter's input as a crop of the frame.
    """

    def __init__(self, kernels: Kernels, spec: CropSpec, network: CropSpec | None) -> None:
        self._kernels, self._spec, self._network = kernels, spec, network
        self._memory = Recycled(kernels.device)
        self._lock = threading.Lock()
        self._idle: list[Tools] = []
        self._lent = 0
        self._closed = False

    @contextmanager
    def tools(self) -> Iterator[Tools]:
        """Tools for this thread alone. After an error they are not used again: what their streams did is unknown;
        but for NonFiniteOutput, which says something of the frame alone, and which was waited for.

        Raises:
            EngineClosed: after `close`.
        """
        with self._lock:
            if self._closed:
                raise EngineClosed("expected an open predictor, found one after close(); open another")
            found = self._idle.pop() if self._idle else None
            self._lent += 1
        sound = False
        try:
            found = found or Tools(self._kernels, self._memory, self._spec, self._network)
            yield found
            sound = True
        except NonFiniteOutput:
            sound = True
            raise
        finally:
            self._take_back(found, sound)

    def close(self) -> None:
        """Give everything back: idle tools now, others when their calls end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            last = not self._lent
        for each in idle:
            each.close()
        if last:
            self._kernels.close()

    def _take_back(self, tools: Tools | None, sound: bool) -> None:
        with self._lock:
            self._lent -= 1
            kept = sound and not self._closed
            last = self._closed and not self._lent
            if kept and tools is not None:
                self._idle.append(tools)
        if not kept and tools is not None:
            tools.close()
        if last:
            self._kernels.close()


def _cropper(kernels: Kernels, spec: CropSpec) -> DeviceCrop:
    return DeviceCrop(
        kernels,
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        fill=spec.fill,
        antialias=spec.antialias,
        letterbox=spec.fit == "letterbox",
    )


def _send_frames(
    masks: npt.NDArray[Any], windows: npt.NDArray[np.int32], uploads: Blocks, stream: Stream
) -> DeviceMasks:
    """Of each mask over the image its window, one behind the other; the rest, which nobody reads, stays."""
    corners = windows.tolist()
    pieces = [masks[index, y0:y1, x0:x1].view(np.uint8) for index, (x0, y0, x1, y1) in enumerate(corners)]
    start = uploads.send(pieces, stream)
    pointers = []
    for piece, (x0, y0, x1, _) in zip(pieces, corners, strict=True):
        pointers.append(start - y0 * (x1 - x0) - x0)  # where pixel (0, 0) would be
        start += piece.nbytes
    strides = (windows[:, 2] - windows[:, 0]).astype(np.int64)
    sizes = np.tile(np.array(masks.shape[1:], np.int32), (len(masks), 1))
    return DeviceMasks("frame", np.array(pointers, np.uint64), strides, sizes)


def _send_boxed(masks: BoxMasks, uploads: Blocks, stream: Stream) -> DeviceMasks:
    """Every array as it is; where some are floats, the others as 0 and 1."""
    floats = any(array.dtype == np.float32 for array in masks)
    if floats:
        arrays = [array if array.dtype == np.float32 else (array != 0).astype(np.float32) for array in masks]
    else:
        arrays = [array.view(np.uint8) for array in masks]
    start = uploads.send(arrays, stream)
    sizes = np.array([array.shape for array in arrays], np.int32).reshape(-1, 2)
    nbytes = np.array([array.nbytes for array in arrays], np.int64)
    pointers = (start + nbytes.cumsum() - nbytes).astype(np.uint64)
    strides = sizes[:, 1].astype(np.int64) * (4 if floats else 1)
    return DeviceMasks("floats" if floats else "bytes", pointers, strides, sizes, masks.extents)
