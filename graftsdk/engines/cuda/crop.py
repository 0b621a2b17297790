"""Crops cut on the device: a decoded frame in device memory in, normalised crops in the engine's input out.

What a crop is, `graftsdk.preprocess.reference` defines; here it is plain numbers, since an engine knows no CropSpec.
The host makes one block of parameters for all crops of a call, copies it once and launches two kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.engines.cuda.crop_block import CALL, THREADS, TILE_ROWS, CropBlock, CropLayout
from graftsdk.engines.cuda.crop_inputs import DeviceFrame, DeviceMasks, check_windows, crop_windows
from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.engines.cuda.resources import DeviceBuffer, Stream
from graftsdk.engines.cuda.workspace import Blocks, Workspace
from graftsdk.errors import InputError

__all__ = ["DeviceCrop", "DeviceFrame", "DeviceMasks", "crop_windows"]

Int32 = npt.NDArray[np.int32]

_ALIGNMENT = 256  # bytes
_SIZES = 8  # of frames whose tables are kept; a camera has one


@dataclass(frozen=True)
class _Whole:
    """Parameters and tables of one crop, of all of a frame.

    Attributes:
        memory: that holds them. work: byte at which the tables begin. tiles: blocks that make the crop.
    """

    memory: DeviceBuffer
    work: int
    tiles: int

    def close(self) -> None:
        self.memory.close()


class DeviceCrop:
    """Cuts crops with one specification. For one thread at a time; streams may change from call to call.

    Args:
        kernels: the kernels on the device.
        size: (H, W) of a crop.
        mean, std: in the output's channel order, in units of 1.
        fill: 0..255, the background and the border of a letterboxed crop.
        antialias: whether the filter is widened where a crop shrinks.
        letterbox: whether the aspect is kept.
        half: whether crops are float16, else float32.
    """

    def __init__(
        self,
        kernels: Kernels,
        *,
        size: tuple[int, int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        fill: int = 0,
        antialias: bool = True,
        letterbox: bool = False,
        half: bool = False,
    ) -> None:
        self._itemsize = 2 if half else 4
        self.nbytes = 3 * size[0] * size[1] * self._itemsize  # of one crop
        self._table_blocks = -(-sum(size) // THREADS)
        self._layout = CropLayout(size, mean, std, fill, antialias=antialias, letterbox=letterbox, half=half)
        self._kernels = kernels
        self._blocks = Blocks(kernels.device)
        self._work = Workspace(kernels.device)
        self._boxes = Workspace(kernels.device)
        self._whole: dict[tuple[int, int, int, bool], _Whole] = {}

    def cut(
        self,
        frame: DeviceFrame,
        windows: Int32,
        out: int,
        stream: Stream,
        *,
        masks: DeviceMasks | None = None,
        reverse: bool = False,
    ) -> None:
        """Enqueue N crops: float32 or float16 [N, 3, H, W], contiguous, from address `out` on.

        Frame, masks and output must stay until the work is done. Crops are within 2e-6 * (1 + |mean|) / std of
        `mask_crop_reference`, masks are decided exactly alike, and where nothing is covered a value is
        float32((fill / 255 - mean) / std) to the bit; float16 is the float32 rounded once. A crop's bits depend neither
        on the others nor on strides.

        Args:
            frame: the image.
            windows: int32[N, 4], as `crop_windows` gives them: half-open, inside the frame, each with a pixel.
            out: an address, aligned to its values, with room for N * `nbytes` bytes.
            stream: where the work is enqueued.
            masks: whose outside becomes the fill; None keeps the background.
            reverse: whether the output's channels are the frame's in the other order.

        Raises:
            InputError, ShapeError: windows or masks that do not fit.
            EngineOutOfMemory: no room for the tables.
        """
        check_windows(windows, frame.height, frame.width)
        if masks is not None:
            masks.check(frame.height, frame.width, len(windows))
        if out % self._itemsize:
            raise InputError(f"out: expected an address aligned to {self._itemsize} bytes, found {out:#x}")
        if len(windows) == 0:
            return
        block = self._layout.block(frame, windows, masks, reverse=reverse)
        with self._kernels.device.active():
            work, call, crops = self._prepare(block, self._table_blocks, stream)
            grid = (block.tiles, len(windows))
            self._kernels["crop"].launch(stream, grid, (32, TILE_ROWS), call, crops, work, frame.ptr, out)
            self._blocks.used(stream)

    def cut_whole(self, frame: DeviceFrame, out: int, stream: Stream, *, reverse: bool = False) -> None:
        """As `cut`, one crop of all of the frame. Of frames of one size parameters and tables are made once.

        Raises:
            EngineOutOfMemory: no room for the tables.
        """
        key = (frame.height, frame.width, frame.row_stride, reverse)
        with self._kernels.device.active():
            made = self._whole.get(key)
            if made is None:
                while len(self._whole) >= _SIZES:
                    self._whole.pop(next(iter(self._whole))).close()
                made = self._whole[key] = self._make_whole(frame, stream, reverse=reverse)
            call = made.memory.ptr
            crops, work = call + CALL.itemsize, call + made.work
            self._kernels["crop"].launch(stream, (made.tiles, 1), (32, TILE_ROWS), call, crops, work, frame.ptr, out)

    def mask_boxes(self, height: int, width: int, masks: DeviceMasks, stream: Stream) -> Int32:
        """int32[N, 4], xyxy, half-open: the pixels of an image of this size that masks cover; zeros where none.

        Waits for the stream.

        Raises:
            InputError, ShapeError, EngineOutOfMemory: as `cut`.
        """
        count = len(masks)
        masks.check(height, width, count)
        if count == 0:
            return np.zeros((0, 4), np.int32)
        windows = masks.windows(height, width)
        check_windows(windows, height, width)
        block = self._layout.block(DeviceFrame(0, height, width, 3 * width), windows, masks, reverse=False)
        device, found = self._kernels.device, np.empty((count, 4), np.int32)
        with device.active():
            work, call, crops = self._prepare(block, 0, stream)
            boxes = self._boxes.room(found.nbytes)
            device.memset(boxes, 0, found.nbytes, stream)
            self._kernels["mask_boxes"].launch(stream, (block.parts, count), (THREADS,), call, crops, work, boxes)
            device.d2h(found, boxes, found.nbytes, stream)
            self._blocks.used(stream)
            stream.sync()
        covered = found[:, 2] > 0
        found[covered, :2] = (width, height) - found[covered, :2]
        return found

    def close(self) -> None:
        """Give the memory back, once the device has done its work; twice is harmless."""
        for whole in self._whole.values():
            whole.close()
        for memory in (self._blocks, self._work, self._boxes):
            memory.close()
        self._whole.clear()

    def __enter__(self) -> DeviceCrop:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _make_whole(self, frame: DeviceFrame, stream: Stream, *, reverse: bool) -> _Whole:
        """What `cut_whole` keeps for frames like this one; on the device when this returns."""
        windows = np.array([[0, 0, frame.width, frame.height]], np.int32)
        block = self._layout.block(frame, windows, None, reverse=reverse)
        parameters = np.concatenate([array.view(np.uint8) for array in (block.call, block.crops)])
        start = -(-parameters.nbytes // _ALIGNMENT) * _ALIGNMENT
        device = self._kernels.device
        memory = device.alloc(start + block.nbytes)
        call, work = memory.ptr, memory.ptr + start
        device.h2d(memory, parameters, parameters.nbytes, stream)
        arguments = (call, call + CALL.itemsize, work, np.int32(self._table_blocks))
        self._kernels["prepare"].launch(stream, (self._table_blocks, 1), (THREADS,), *arguments)
        stream.sync()  # whatever stream uses it next finds it
        return _Whole(memory, start, block.tiles)

    def _prepare(self, block: CropBlock, table_blocks: int, stream: Stream) -> tuple[DeviceBuffer, int, int]:
        """The parameters copied, tables and bits made: the workspace, and where call and crops lie."""
        work = self._work.room(block.nbytes)
        call = self._blocks.send((block.call, block.crops), stream)
        crops = call + CALL.itemsize
        grid = (table_blocks + block.mask_blocks, len(block.crops))
        self._kernels["prepare"].launch(stream, grid, (THREADS,), call, crops, work, np.int32(table_blocks))
        return work, call, crops
