"""Arrays that lie on a GPU, fed to an engine from there: checked, cut into chunks, never copied to the host.

Anything with DLPack or `__cuda_array_interface__` is taken: torch tensors, CuPy arrays, a `DeviceArray`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graftsdk.engines.cuda import Device, Event, Stream
from graftsdk.engines.cuda.interop import DeviceArray, as_device_array
from graftsdk.engines.feeds import Port

__all__ = ["DeviceFeed", "Intake"]


class DeviceFeed:
    """Rows of an array in device memory, as the engine takes arrays: with a length, a shape, and slices.

    Args:
        array: contiguous. ready: recorded behind what its producer enqueued.
        start, stop: its rows that count.
    """

    def __init__(self, array: DeviceArray, ready: Event, start: int = 0, stop: int | None = None) -> None:
        self._array, self._start = array, start
        self._stop = array.shape[0] if stop is None else stop
        self.ready = ready

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, rows: slice) -> DeviceFeed:
        start, stop, _ = rows.indices(len(self))
        return DeviceFeed(self._array, self.ready, self._start + start, self._start + max(start, stop))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of these rows."""
        return (len(self), *self._array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        found: np.dtype[Any] = self._array.dtype
        return found

    @property
    def device(self) -> Device:
        """Where it lies."""
        return self._array.device

    @property
    def ptr(self) -> int:
        """Address of the first of these rows."""
        return self._array.ptr + self._start * self._row

    @property
    def nbytes(self) -> int:
        """Of these rows."""
        return len(self) * self._row

    @property
    def _row(self) -> int:
        return self._array.nbytes // max(self._array.shape[0], 1)


class Intake:
    """Takes arrays for one device, and closes it at the end where it `owns` it. Safe to use from many threads."""

    def __init__(self, device: Device, *, owns: bool = False) -> None:
        self._device, self._owns = device, owns
        self._stream: Stream = device.stream()

    def take(self, name: str, value: Any, port: Port) -> DeviceFeed:
        """The array, if it lies on this device and has the port's dtype and shape.

        Raises:
            InputError: it does not; its leaves DTypeError, ShapeError, LayoutError.
            MissingDependency: cuda.core is needed to read it.
        """
        shape = (None, *port.shape[1:])
        array = as_device_array(value, self._stream, what=f"feed {name!r}", dtype=port.dtype, shape=shape)
        ready = self._device.event()
        ready.record(self._stream)
        return DeviceFeed(array, ready)

    def close(self) -> None:
        """Let go of the stream, and of the device where it is its own."""
        self._stream.close()
        if self._owns:
            self._device.close()
