"""One run of a device engine in parts: its inputs are filled on the device, and its outputs may stay there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graftsdk.engines.cuda import Device
from graftsdk.engines.cuda.interop import DeviceArray
from graftsdk.engines.device_bucket import Bucket
from graftsdk.engines.lanes import Lane
from graftsdk.engines.wiring import Wiring
from graftsdk.errors import InputError
from graftsdk.text import listed

__all__ = ["Lease"]


class Lease:
    """A lane and its bucket, lent to one thread by `TensorRTEngine.lease`; nothing of it may be used afterwards.

    What is enqueued on `stream` before `run` is seen by the engine: a kernel that cuts crops, for one, writes into
    `input("crops")`.

    Attributes:
        rows: how many count. stream: on which everything runs.
    """

    def __init__(
        self,
        lane: Lane,
        bucket: Bucket,
        rows: int,
        device: Device,
        wiring: Wiring,
        asked: Callable[[Sequence[str] | None], tuple[str, ...]],
    ) -> None:
        self.rows, self.stream = rows, lane.stream
        self._lane, self._bucket, self._device, self._wiring, self._asked = lane, bucket, device, wiring, asked
        self._given: set[str] = set()

    def input(self, value: str) -> DeviceArray:
        """Device memory of the rows of a value that is fed, C order; to be written on `stream`.

        Raises:
            InputError: nothing of that name is fed.
        """
        self._check(value, self._wiring.inputs, "fed")
        return self._array(value)

    def staging(self, value: str) -> np.ndarray:
        """Pinned memory of the host for the same rows; `upload` copies it to `input`.

        Raises:
            InputError: nothing of that name is fed.
        """
        self._check(value, self._wiring.inputs, "fed")
        return self._bucket.staging(value, self.rows)

    def upload(self, value: str) -> None:
        """Enqueue the copy of what was written to `staging`, which may not be written again before `run`."""
        self._check(value, self._wiring.inputs, "fed")
        self._bucket.upload(value, self.rows)

    def run(self, outputs: Sequence[str] | None = None, *, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Run on what was put into the inputs, and wait for it.

        Args:
            outputs: names of the values to compute; None for all.
            fetch: those of them to copy to the host, all in one copy; None for every one. Others stay, see `output`.

        Returns:
            Value name -> array, for those that were fetched; they belong to the caller.

        Raises:
            InputError: an unknown name. EngineOutOfMemory, EngineError: it failed.
        """
        asked = self._asked(outputs)
        fetched = asked if fetch is None else self._asked(fetch)
        for value in fetched:
            self._check(value, frozenset(asked), "computed")
        self._bucket.run(self._wiring.needed(asked), fetched)
        self.stream.sync()
        self._given = set(asked)
        return self._bucket.fetch(fetched, self.rows)

    def start(self, outputs: Sequence[str] | None = None) -> None:
        """As `run`, but nothing comes to the host and nothing is waited for: what is enqueued on `stream` next sees it.

        Raises:
            InputError: an unknown name. EngineOutOfMemory, EngineError: it failed.
        """
        asked = self._asked(outputs)
        self._bucket.run(self._wiring.needed(asked), ())
        self._given = set(asked)

    def output(self, value: str) -> DeviceArray:
        """What the last `run` or `start` computed, where it lies on the device.

        Raises:
            InputError: that was not computed.
        """
        self._check(value, frozenset(self._given), "computed")
        return self._array(value)

    def _array(self, value: str) -> DeviceArray:
        region, span = self._bucket.regions[value], self._bucket.span(value, self.rows)
        return DeviceArray(self._device, span.ptr, region.shape_of(self.rows), region.dtype, owner=span)

    def _check(self, value: str, known: frozenset[str], how: str) -> None:
        if value not in known:
            raise InputError(f"lease: expected a value that is {how} ({listed(sorted(known))}), found {value!r:.80}")
