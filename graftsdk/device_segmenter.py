"""A plan's segmenter on frames that lie on its GPU: candidates and boxes come to the host, prototypes never do.

The frame becomes the network's input by the crop's kernel, which is bilinear as OpenCV is, but in floats where OpenCV
rounds to whole grey levels: scores and boxes differ a little from those of the same frame in host memory. Measured
with the kernels compiled for the host: on 24 drawn scenes and 9 photographs the demo segmenter finds the same 66
people, scores within 0.004, boxes within 4% of their longer side, masks of a mean IoU of 0.995; YOLOv8n-seg the same
16 on the photographs, within 0.006, 3% and 0.998. Of people asked for down to a score of 0.05, 1 in 30 is found in one
way alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.device_frame import DeviceImage
from graftsdk.device_tools import Tools
from graftsdk.engines.cuda import Device, DeviceArray, Stream
from graftsdk.engines.cuda.crop_inputs import DeviceMasks
from graftsdk.engines.cuda.prototypes import Coefficients, Prototypes
from graftsdk.engines.cuda.selection import DeviceField, Predictions
from graftsdk.engines.lease import Lease
from graftsdk.engines.tensorrt_engine import TensorRTEngine
from graftsdk.errors import NonFiniteOutput
from graftsdk.plan import CropSpec
from graftsdk.preprocess import BoxMasks, LazyMask
from graftsdk.segment.finite import ADVICE
from graftsdk.segment.places import People, Place, Places, PrototypeAdapter
from graftsdk.segment.prototypes import SLOPE, sample_shapes
from graftsdk.segmenter import Segmenter

__all__ = ["DeviceSegmenter", "Found", "FoundMasks"]

_MOST_READINGS = 64


class FoundMasks:
    """Masks of the people of one frame, in device memory of their own.

    Attributes:
        masks: where they are. boxes: int32[N, 4], xyxy, the pixels that each one covers, at least one.
    """

    def __init__(self, masks: DeviceMasks, boxes: npt.NDArray[np.int32], device: Device) -> None:
        self.masks, self.boxes, self._device = masks, boxes, device
        self._fetched: BoxMasks | None = None

    def __len__(self) -> int:
        return len(self.masks)

    def select(self, rows: Any) -> FoundMasks:
        """Those at `rows`, a slice or indices."""
        masks = self.masks
        assert masks.extents is not None  # prototypes' masks have extents
        chosen = DeviceMasks(
            masks.kind,
            masks.pointers[rows],
            masks.row_strides[rows],
            masks.sizes[rows],
            masks.extents[rows],
            masks.owner,
        )
        return FoundMasks(chosen, self.boxes[rows], self._device)

    def lazy(self, index: int, size: tuple[int, int]) -> LazyMask:
        """One of them over the frame of `size`, fetched when it is asked for."""
        return _FetchedMask(self, index, size)

    def on_host(self) -> BoxMasks:
        """All of them, fetched once.

        Raises:
            EngineClosed: the predictor was closed.
        """
        if self._fetched is None:
            owner: Any = self.masks.owner
            starts = ((self.masks.pointers - np.uint64(owner.ptr)) // np.uint64(4)).astype(np.int64)
            areas = self.masks.sizes.prod(axis=1, dtype=np.int64)
            values = np.empty(int((starts + areas).max(initial=0)), np.float32)
            with self._device.active(), self._device.stream() as stream:
                self._device.d2h(values, owner, values.nbytes, stream)
                stream.sync()
            arrays = [
                values[start : start + rows * columns].reshape(rows, columns)
                for start, (rows, columns) in zip(starts.tolist(), self.masks.sizes.tolist(), strict=True)
            ]
            assert self.masks.extents is not None  # prototypes' masks have extents
            self._fetched = BoxMasks.unchecked(arrays, self.masks.extents.copy())
        return self._fetched


class _FetchedMask(LazyMask):
    """A `LazyMask` whose arrays are fetched from the device; it pickles as one of the host."""

    def __init__(self, found: FoundMasks, index: int, size: tuple[int, int]) -> None:
        for name, value in (("_found", found), ("index", index), ("size", size)):
            object.__setattr__(self, name, value)

    @property
    def masks(self) -> BoxMasks:
        """All masks of the frame."""
        found: FoundMasks = self.__dict__["_found"]
        return found.on_host()

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyMask, (self.masks.select([self.index]), 0, self.size)


@dataclass(frozen=True, eq=False)
class Found:
    """The people in one frame; as `graftsdk.segment.Instances`, but for the masks."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    masks: FoundMasks | BoxMasks | None
    truncated: bool


@dataclass(frozen=True)
class _Reading:
    """How a bucket's outputs are read: they lie at fixed addresses."""

    places: Places
    predictions: Predictions
    coefficients: DeviceField
    prototypes: Prototypes


class DeviceSegmenter:
    """Finds people in frames on a device. For many threads.

    Families whose masks are sums of prototypes ("yolact", "yolo") have this way. For others ("maskrcnn", and networks
    with outputs that are not float32) `find` fetches the frame, and the segmenter works as on any image.

    Args:
        segmenter: open on TensorRT. device: where its engine runs.
    """

    def __init__(self, segmenter: Segmenter, device: Device) -> None:
        self._segmenter, self._device, self._info = segmenter, device, segmenter.info
        engine = segmenter.engine
        assert isinstance(engine, TensorRTEngine)  # callers look
        self._engine = engine
        self._readings: dict[int, _Reading] = {}
        adapter = segmenter.adapter
        self._adapter = adapter if isinstance(adapter, PrototypeAdapter) and self._readable() else None

    @property
    def input_spec(self) -> CropSpec | None:
        """The network's input as a crop of the frame; None where a frame is fetched."""
        return None if self._adapter is None else self._adapter.input_spec

    def find(self, image: DeviceImage, tools: Tools, min_score: float | None = None) -> Found:
        """The people in a frame, the surest first.

        Args:
            image: the frame. tools: this thread's.
            min_score: as of `Segmenter.find`, checked.

        Raises:
            NonFiniteOutput: the network gives NaN or infinity for this frame. EngineError: the engine failed.
        """
        if self._adapter is None:
            on_host = self._segmenter.find(image(), min_score)
            return Found(on_host.boxes, on_host.scores, on_host.masks, on_host.truncated)
        adapter, size = self._adapter, (image.shape[0], image.shape[1])
        least = adapter.least(min_score)
        geometry = adapter.geometry(size)
        problem = None  # raised below: an error inside the block would cost the lane
        with self._engine.lease(1) as lease:
            stream = lease.stream
            image.order(stream)
            assert tools.network is not None  # made for this segmenter
            target = lease.input(self._info.input)
            tools.network.cut_whole(image.frame, target.ptr, stream, reverse=image.color != "rgb")
            lease.start(self._info.outputs)
            reading = self._reading(adapter, lease)
            tools.selection.start(reading.predictions, least, reading.places.bound, stream)
            stream.sync()
            seen = tools.selection.finish(stream)
            people = adapter.people(reading.places, seen.boxes, seen.priors, seen.scores, geometry)
            if any(seen.bad):
                name = self._info.outputs[seen.bad.index(True)]
                problem = f"segmenter output {name!r}: expected finite values, found NaN or infinity; {ADVICE}"
            elif len(people.rows):
                masks = _masks(adapter, tools, reading, people, seen.rows[people.rows], size, stream)
                covered = tools.crop.mask_boxes(*size, masks, stream)  # waits: the network's outputs are read by then
                if tools.prototypes.overflowed(stream).any():
                    problem = f"segmenter masks: expected finite sums of prototypes, found an overflow; {ADVICE}"
            else:
                return Found(people.in_image, people.scores, None, people.truncated)
        if problem is not None:
            raise NonFiniteOutput(problem)
        found = FoundMasks(masks, covered, self._device)
        if covered[:, 2].all():
            return Found(people.in_image, people.scores, found, people.truncated)
        kept = np.flatnonzero(covered[:, 2])
        return Found(people.in_image[kept], people.scores[kept], found.select(kept), people.truncated)

    def _readable(self) -> bool:
        """Whether all outputs are float32."""
        with self._engine.lease(1) as lease:
            lease.start(self._info.outputs)
            lease.stream.sync()
            return all(lease.output(name).dtype == np.float32 for name in self._info.outputs)

    def _reading(self, adapter: PrototypeAdapter, lease: Lease) -> _Reading:
        """Made once for each bucket of each lane, which the address of the first output tells."""
        outputs = self._info.outputs
        key = lease.output(outputs[0]).ptr
        found = self._readings.get(key)
        if found is None:
            if len(self._readings) >= _MOST_READINGS:  # lanes came and went
                self._readings.clear()
            arrays = [lease.output(name) for name in outputs]
            found = self._readings[key] = _read(adapter.places([array.shape for array in arrays]), arrays)
        return found


def _read(places: Places, arrays: Sequence[DeviceArray]) -> _Reading:
    def field(place: Place) -> DeviceField:
        return DeviceField(arrays[place.output].ptr + 4 * place.start, place.row, place.step)

    predictions = Predictions(
        count=places.count,
        score=field(places.score),
        factor=None if places.factor is None else field(places.factor),
        classes=field(places.classes),
        class_count=places.class_count,
        person=places.person,
        rule=places.rule,
        box=field(places.box),
        prior=None if places.prior is None else field(places.prior),
        outputs=tuple((array.ptr, array.nbytes // 4) for array in arrays),
    )
    prototypes = Prototypes(arrays[places.prototypes].ptr, *places.grid, places.kinds)
    return _Reading(places, predictions, field(places.coefficients), prototypes)


def _masks(
    adapter: PrototypeAdapter,
    tools: Tools,
    reading: _Reading,
    people: People,
    rows: npt.NDArray[np.int64],
    size: tuple[int, int],
    stream: Stream,
) -> DeviceMasks:
    """The people's masks, enqueued; `rows` are theirs among the predictions."""
    field, maker = reading.coefficients, tools.prototypes
    coefficients = Coefficients(field.ptr, rows, field.row_stride, field.step)
    if adapter.masks == "cut":
        return maker.cut(coefficients, reading.prototypes, people.boxes, size, stream)
    shapes = sample_shapes(people.boxes)
    return maker.sample(coefficients, reading.prototypes, people.boxes, shapes, people.in_image, SLOPE, stream)
