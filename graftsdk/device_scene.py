"""Frames on a GPU on their way through a predictor: persons are cut out there, in the engine's own input buffer.

What goes over to the host and back: a plan's segmenter sends candidates and the boxes that masks cover, 40 and 16 bytes
a person, and each batch its scores. Masks that a caller brings go to the device once, as far as boxes reach.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

from graftsdk.device_frame import DeviceImage, check_reduce
from graftsdk.device_segmenter import DeviceSegmenter, Found, FoundMasks
from graftsdk.device_tools import ToolPool, Tools
from graftsdk.engines.buckets import smallest_bucket
from graftsdk.engines.cache import Cache
from graftsdk.engines.cuda import Device, Stream
from graftsdk.engines.cuda.crop import crop_windows
from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.engines.tensorrt_engine import TensorRTEngine
from graftsdk.errors import EngineError, EngineOutOfMemory, GraftError, MissingDependency
from graftsdk.plan import BranchDocument, CropSpec
from graftsdk.preprocess import mask_boxes
from graftsdk.preprocess.ahead import Decoded
from graftsdk.preprocess.image import Color
from graftsdk.scene import Piece, Scene, hand_out
from graftsdk.segmenter import Segmenter

__all__ = ["DeviceCropBatch", "DeviceFrames"]


class DeviceFrames:
    """Takes frames on the device of a predictor's engine. Safe to use from many threads.

    Where the kernels cannot be had here (NVRTC is not installed, for one), everything else of the predictor works; the
    first frame raises what is wrong.

    Args:
        engine: the predictor's. device: where it runs.
        spec: what a crop is. segmenter: the plan's, or None.
    """

    def __init__(self, engine: TensorRTEngine, device: Device, spec: CropSpec, segmenter: Segmenter | None) -> None:
        self._engine, self._spec = engine, spec
        self._problem: GraftError | None = None
        self._segmenter = None if segmenter is None else DeviceSegmenter(segmenter, device)
        with ExitStack() as undo:
            self._stream: Stream = undo.enter_context(device.stream())
            try:
                kernels = undo.enter_context(Kernels(device, Cache()))
            except (EngineError, MissingDependency) as error:
                self._problem = error
            else:
                self._pool = ToolPool(kernels, spec, None if self._segmenter is None else self._segmenter.input_spec)
            undo.pop_all()

    def take(self, source: Any, color: Color, reduce: int) -> Decoded:
        """A frame, or why it cannot be used, and the time that it took; `image` is a `DeviceImage`."""
        started = time.perf_counter()
        try:
            if self._problem is not None:
                raise self._problem
            check_reduce(reduce)
            image: Any = DeviceImage(source, color, self._stream)
        except GraftError as error:
            image = error
        return Decoded(source, image, 1e3 * (time.perf_counter() - started))

    def find(self, image: DeviceImage, min_score: float | None) -> Found:
        """The people whom the plan's segmenter finds in a frame; see `DeviceSegmenter.find`."""
        assert self._segmenter is not None  # callers look
        with self._pool.tools() as tools:
            return self._segmenter.find(image, tools, min_score)

    def batch(self, documents: Mapping[str, BranchDocument], names: Mapping[str, str]) -> DeviceCropBatch:
        """A batch for one call; arguments as for the class."""
        return DeviceCropBatch(self._engine, self._pool, self._spec, documents, names)

    def close(self) -> None:
        """Let go of kernels and memory. Calls in flight finish."""
        if self._problem is None:
            self._pool.close()
        self._stream.close()


class DeviceCropBatch:
    """Persons of several frames that share the engine's batches; as `CropBatch`, for frames on the device.

    Nobody is cut before a batch is full or the last one: the bucket, whose input the crops are written into, follows
    from how many there are.

    Args:
        engine: runs on the crops. pool: tools. spec: what a crop is.
        documents: those of the labels that are computed, by label. names: label -> the value that is its scores.
    """

    def __init__(
        self,
        engine: TensorRTEngine,
        pool: ToolPool,
        spec: CropSpec,
        documents: Mapping[str, BranchDocument],
        names: Mapping[str, str],
    ) -> None:
        self._engine, self._pool, self._spec = engine, pool, spec
        self._documents, self._names = documents, names
        self._values = list(dict.fromkeys(names.values()))
        self._room = engine.buckets[-1]
        self._pieces: list[Piece] = []
        self._used = 0

    def add(self, scene: Scene) -> None:
        """Line up the scene's persons; score whatever fills a batch."""
        first = 0
        while first < len(scene.boxes):
            count = min(len(scene.boxes) - first, self._room - self._used)
            self._pieces.append((scene, first, slice(self._used, self._used + count)))
            self._used += count
            first += count
            if self._used == self._room:
                self.flush()

    def flush(self) -> None:
        """Cut and score the persons that wait. A score that is no number is its scene's error, not the others'.

        Raises:
            PlanCorrupt: a branch gives something else than probabilities. EngineError: the engine failed.
        """
        pieces, used = self._pieces, self._used
        self._pieces, self._used = [], 0
        if not all(scene.alive() for scene, _, _ in pieces):
            (pieces,) = _cut([piece for piece in pieces if piece[0].alive()], used)
            used = sum(map(_count, pieces))
        if not used:
            return
        try:
            self._run(pieces, used)
        except EngineOutOfMemory:  # once more in smaller buckets, with what idle lanes gave back
            size = smallest_bucket(used, self._engine.buckets)
            size = max((bucket for bucket in self._engine.buckets if bucket < size), default=size)
            for part in _cut(pieces, size):
                self._run(part, sum(map(_count, part)))

    def _run(self, pieces: Sequence[Piece], rows: int) -> None:
        """Crops and scores of all pieces, which are so many rows."""
        with self._pool.tools() as tools, self._engine.lease(rows) as lease:
            out = lease.input("crops").ptr
            for piece in pieces:
                started = time.perf_counter()
                self._cut_out(piece, out, tools, lease.stream)
                out += _count(piece) * tools.crop.nbytes
                piece[0].timings["crop"] += 1e3 * (time.perf_counter() - started)
            started = time.perf_counter()
            values = lease.run(self._values)
            spent = 1e3 * (time.perf_counter() - started)
        hand_out(pieces, {label: values[name] for label, name in self._names.items()}, self._documents, spent)

    def _cut_out(self, piece: Piece, out: int, tools: Tools, stream: Stream) -> None:
        """Enqueue the crops of one piece, which go to the address `out`."""
        scene, first = cast(Scene, piece[0]), piece[1]
        image, persons = cast(DeviceImage, scene.image), slice(first, first + _count(piece))
        height, width, _ = image.shape
        boxes, masks = scene.boxes[persons], None if scene.masks is None else _select(scene.masks, persons)
        if masks is not None and self._spec.box == "mask":
            boxes = masks.boxes if isinstance(masks, FoundMasks) else mask_boxes(masks, scene.size)
        windows = crop_windows(boxes, height, width, self._spec.pad)
        image.order(stream)
        with ExitStack() as stack:
            if masks is None or self._spec.background != "fill":
                given = None
            elif isinstance(masks, FoundMasks):
                given = masks.masks
            else:
                given = stack.enter_context(tools.uploaded(masks, windows, stream))
            reverse = image.color != self._spec.order
            tools.crop.cut(image.frame, windows, out, stream, masks=given, reverse=reverse)


def _select(masks: Any, persons: slice) -> Any:
    return masks.select(persons) if isinstance(masks, FoundMasks) else masks[persons]


def _count(piece: Piece) -> int:
    return int(piece[2].stop - piece[2].start)


def _cut(pieces: Sequence[Piece], size: int) -> list[list[Piece]]:
    """The same persons in parts of at most `size`."""
    parts: list[list[Piece]] = [[]]
    room = size
    for scene, first, at in pieces:
        left = at.stop - at.start
        while left:
            if not room:
                parts.append([])
                room = size
            count = min(room, left)
            parts[-1].append((scene, first, slice(size - room, size - room + count)))
            first, left, room = first + count, left - count, room - count
    return parts
