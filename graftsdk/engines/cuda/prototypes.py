"""Masks made on the device from a segmenter's prototypes, which so never leave it, in the form that the crop reads.

What is computed, `graftsdk.segment.prototypes` says: `cut` is its cut_masks (YOLACT), `sample` its sample_masks
(YOLO-seg).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.engines.cuda.crop_inputs import DeviceMasks
from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.engines.cuda.resources import Block, HostBuffer, Stream
from graftsdk.engines.cuda.workspace import Blocks, Workspace
from graftsdk.errors import InputError, ShapeError

__all__ = ["CUT", "SAMPLED", "Coefficients", "DevicePrototypes", "Prototypes"]

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_THREADS = 256  # as in mask_crop.cu
_MAX_MASKS = 65535  # blocks along a grid's second axis
_RING = np.array([-1, -1, 1, 1])  # a cell more on every side
_MAX_CELLS = 1 << 30  # of a mask and of the prototypes' grid: a place fits 32 bits

# As in mask_crop.cu.
CUT = np.dtype(
    [("values", np.int64), ("row", np.int32), ("kept", np.int32, 4), ("held", np.int32, 4), ("unused", np.int32)]
)
SAMPLED = np.dtype(
    [
        ("values", np.int64), ("corner", np.float64, 2), ("step", np.float64, 2), ("row", np.int32),
        ("shape", np.int32, 2), ("unused", np.int32),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Prototypes:
    """Prototypes in device memory: float32[height, width, kinds] for `cut`, float32[kinds, height, width] for `sample`.

    Attributes:
        ptr: address of the first value, a multiple of 4. height, width: cells. kinds: how many.
    """

    ptr: int
    height: int
    width: int
    kinds: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.kinds) < 1 or self.height * self.width > _MAX_CELLS or self.ptr % 4:
            raise ShapeError(
                f"prototypes: expected aligned float32 of at least one kind and at most {_MAX_CELLS} cells, found "
                f"{self.height} x {self.width} x {self.kinds} at {self.ptr:#x}"
            )


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The coefficients of some of a network's predictions, where the network left them in device memory.

    Attributes:
        ptr: address of prediction 0's first coefficient, float32.
        rows: int[N], which predictions.
        row_stride, kind_stride: floats from prediction to prediction and from coefficient to coefficient: (K, 1) for
            [P, K], (1, A) for [K, A].
    """

    ptr: int
    rows: npt.NDArray[np.integer]
    row_stride: int
    kind_stride: int


class DevicePrototypes:
    """Makes masks of one network's people. For one thread at a time.

    Args:
        kernels: the kernels on the device.
        room: gives device memory of so many bytes, or more, for the masks of a call, which have it to themselves;
            None for memory that the next call writes over.
    """

    def __init__(self, kernels: Kernels, room: Callable[[int], Block] | None = None) -> None:
        self._kernels = kernels
        self._blocks = Blocks(kernels.device)
        self._values = Workspace(kernels.device)
        self._room = room or self._values.room
        self._bad = Workspace(kernels.device)
        self._flags: HostBuffer | None = None
        self._count = 0

    def cut(
        self,
        coefficients: Coefficients,
        prototypes: Prototypes,
        boxes: Float64,
        image_size: tuple[int, int],
        stream: Stream,
    ) -> DeviceMasks:
        """YOLACT's masks of N people, enqueued: the bits of `segment.prototypes.cut_masks`.

        Args:
            coefficients: of the people.
            prototypes: [h, w, K].
            boxes: float64[N, 4], xyxy as fractions of the frame, x0 < 1, x1 > 0, x0 < x1, and likewise y.
            image_size: (H, W), what the frame's extents count in.
            stream: where the work is enqueued.

        Raises:
            InputError, ShapeError: boxes or coefficients that do not fit.
            EngineOutOfMemory: no room for the masks.
        """
        _check_people(coefficients, boxes)
        size = np.array([prototypes.width, prototypes.height] * 2, np.float64)
        with np.errstate(invalid="ignore"):
            kept = np.ceil(np.minimum(np.maximum(boxes * size + _RING, 0.0), size)).astype(np.int64)
        if not ((boxes[:, :2] < boxes[:, 2:]).all() and (kept[:, :2] < kept[:, 2:]).all()):  # a NaN fails too
            raise InputError("boxes: expected x0 < x1 and y0 < y1 inside the frame, found others")
        held = np.minimum(np.maximum(kept + _RING, 0), size.astype(np.int64))  # a ring of zeros around
        shapes = held[:, :1:-1] - held[:, 1::-1]  # rows, columns
        block = np.zeros(len(boxes), CUT)
        block["kept"], block["held"] = kept, held
        cell = (image_size[1] / prototypes.width, image_size[0] / prototypes.height) * 2
        return self._make(
            "prototype_masks",
            block,
            shapes,
            (held * cell).astype(np.float32),
            coefficients,
            (prototypes.ptr, np.int32(prototypes.width), np.int32(prototypes.kinds)),
            (),
            stream,
        )

    def sample(
        self,
        coefficients: Coefficients,
        prototypes: Prototypes,
        boxes: Float64,
        shapes: Int64,
        extents: Float32,
        slope: float,
        stream: Stream,
    ) -> DeviceMasks:
        """YOLO-seg's masks of N people over their boxes, enqueued: `segment.prototypes.sample_masks`, within 1e-5.

        Args:
            coefficients: of the people.
            prototypes: [K, h, w].
            boxes: float64[N, 4], xyxy in cells of the prototypes, each with an area.
            shapes: int64[N, 2], rows and columns of samples.
            extents: float32[N, 4], the boxes in pixels of the image.
            slope: of the line that logits become values by.
            stream: where the work is enqueued.

        Raises:
            InputError, ShapeError: boxes, shapes or coefficients that do not fit.
            EngineOutOfMemory: no room for the masks.
        """
        _check_people(coefficients, boxes)
        if not (np.isfinite(boxes).all() and (boxes[:, :2] < boxes[:, 2:]).all()):
            raise InputError("boxes: expected finite x0 < x1 and y0 < y1, found others")
        if shapes.shape != (len(boxes), 2) or (shapes < 1).any() or extents.shape != boxes.shape:
            raise ShapeError("shapes: expected at least one sample and an extent for each box, found others")
        block = np.zeros(len(boxes), SAMPLED)
        block["corner"], block["step"] = boxes[:, :2], (boxes[:, 2:] - boxes[:, :2]) / shapes[:, ::-1]
        block["shape"] = shapes
        grid = (np.int32(prototypes.height), np.int32(prototypes.width), np.int32(prototypes.kinds))
        return self._make(
            "sampled_masks",
            block,
            shapes,
            extents,
            coefficients,
            (prototypes.ptr, *grid),
            (np.float32(slope),),
            stream,
        )

    def overflowed(self, stream: Stream) -> npt.NDArray[np.bool_]:
        """bool[N]: which of the last call's masks have a NaN, where sums of prototypes overflowed. Waits."""
        if not self._count or self._flags is None:
            return np.zeros(0, np.bool_)
        stream.sync()
        overflowed: npt.NDArray[np.bool_] = self._flags.array[: 4 * self._count].view(np.int32) != 0
        return overflowed

    def close(self) -> None:
        """Give the memory back, once the device has done its work; twice is harmless."""
        for memory in (self._blocks, self._values, self._bad):
            memory.close()
        if self._flags is not None:
            self._flags.close()
        self._flags = None

    def __enter__(self) -> DevicePrototypes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _make(
        self,
        kernel: str,
        block: np.ndarray,
        shapes: Int64,
        extents: Float32,
        coefficients: Coefficients,
        source: tuple[int | np.generic, ...],
        after: tuple[np.generic, ...],
        stream: Stream,
    ) -> DeviceMasks:
        """The masks that `kernel` makes, one behind the other."""
        self._count = count = len(block)
        area = shapes.prod(axis=1)
        if count and int(area.max()) > _MAX_CELLS:
            raise ShapeError(f"masks: expected at most {_MAX_CELLS} values in each, found {int(area.max())}")
        starts = area.cumsum() - area
        block["values"], block["row"] = starts, coefficients.rows
        device = self._kernels.device
        with device.active():
            values, bad = self._room(4 * int(area.sum())), self._bad.room(4 * count)
            if count:
                flags = self._flags_of(4 * count)
                masks = self._blocks.send((block,), stream)
                device.memset(bad, 0, 4 * count, stream)
                strides = (np.int64(coefficients.row_stride), np.int64(coefficients.kind_stride))
                arguments = (masks, *source, coefficients.ptr, *strides, *after, values, bad)
                grid = (-(-int(area.max()) // _THREADS), count)
                self._kernels[kernel].launch(stream, grid, (_THREADS,), *arguments)
                device.d2h(flags, bad, 4 * count, stream)  # with the work: who asks later has nothing to wait for
                self._blocks.used(stream)
        return DeviceMasks(
            "floats",
            (values.ptr + 4 * starts).astype(np.uint64),
            4 * shapes[:, 1],
            shapes.astype(np.int32),
            extents,
            values,
        )

    def _flags_of(self, nbytes: int) -> HostBuffer:
        """Pinned memory for the flags of a call."""
        if self._flags is None or self._flags.nbytes < nbytes:
            if self._flags is not None:
                self._flags.close()
            self._flags = self._kernels.device.alloc_pinned(max(2 * nbytes, 1 << 12))
        return self._flags


def _check_people(coefficients: Coefficients, boxes: Float64) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or coefficients.rows.shape != (len(boxes),):
        raise ShapeError(
            f"boxes: expected [N, 4], one for each row of coefficients, found {list(boxes.shape)} for "
            f"{list(coefficients.rows.shape)}"
        )
    if len(boxes) > _MAX_MASKS or coefficients.ptr % 4 or (coefficients.rows < 0).any():
        raise InputError(f"coefficients: expected at most {_MAX_MASKS} rows from 0 on of aligned float32, found others")
