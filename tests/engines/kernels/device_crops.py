"""Crops through DeviceCrop from arrays of the host: what is copied to the device and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from graftsdk.engines.cuda.crop import DeviceCrop, DeviceFrame, DeviceMasks, crop_windows
from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.engines.cuda.resources import DeviceBuffer, Stream
from graftsdk.preprocess import BoxMasks, CropSpec
from graftsdk.preprocess.boxmasks import mask_box

TOLERANCE = 2e-6  # of values 0..1 before they are normalised, as for the native kernel


def allowed(spec: CropSpec) -> np.ndarray:
    return TOLERANCE * (1 + np.abs(spec.mean)) / np.array(spec.std)


def upload(kernels: Kernels, array: np.ndarray, stream: Stream) -> DeviceBuffer:
    buffer = kernels.device.alloc(array.nbytes)
    kernels.device.h2d(buffer, np.ascontiguousarray(array), array.nbytes, stream)
    return buffer


def upload_frame(kernels: Kernels, image: np.ndarray, stream: Stream, gap: int = 0, flip: bool = False):
    """The image with `gap` bytes behind each row, which begin at an odd address; from the last row up where flipped."""
    height, width = image.shape[:2]
    rows = np.full((height, 3 * width + gap), 77, np.uint8)
    rows[:, : 3 * width] = (image[::-1] if flip else image).reshape(height, -1)
    shift = 1 if gap else 0
    buffer = upload(kernels, np.concatenate([np.zeros(shift, np.uint8), rows.ravel()]), stream)
    stride = rows.shape[1]
    first = buffer.ptr + shift + (stride * (height - 1) if flip else 0)
    return DeviceFrame(first, height, width, -stride if flip else stride), buffer


def upload_masks(kernels: Kernels, masks: np.ndarray | BoxMasks | None, stream: Stream) -> DeviceMasks | None:
    if masks is None:
        return None
    arrays = list(masks)
    kind: Any = "frame" if isinstance(masks, np.ndarray) else "bytes"
    if kind == "bytes" and arrays and arrays[0].dtype == np.float32:
        kind = "floats"
    buffers = [upload(kernels, array, stream) for array in arrays]
    return DeviceMasks(
        kind,
        np.array([buffer.ptr for buffer in buffers], np.uint64),
        np.array([array.strides[0] if array.shape[0] > 1 else array.nbytes for array in arrays], np.int64),
        np.array([array.shape for array in arrays], np.int32).reshape(-1, 2),
        masks.extents if isinstance(masks, BoxMasks) else None,
        buffers,
    )


def device_crop(kernels: Kernels, spec: CropSpec, half: bool = False) -> DeviceCrop:
    return DeviceCrop(
        kernels, size=spec.size, mean=spec.mean, std=spec.std, fill=spec.fill, antialias=spec.antialias,
        letterbox=spec.fit == "letterbox", half=half,
    )  # fmt: skip


def cut(kernels, image, boxes, masks, spec, color="bgr", *, half=False, gap=0, flip=False) -> np.ndarray:
    """What mask_crop_reference returns, by the kernels; guards around the output are looked at."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    height, width = image.shape[:2]
    device, stream = kernels.device, kernels.device.stream()
    if masks is not None and spec.box == "mask":
        boxes = np.array([mask_box(masks, index, height, width) for index in range(len(boxes))], np.float64)
    frame, keep = upload_frame(kernels, image, stream, gap, flip)
    on_device = upload_masks(kernels, masks if spec.background == "fill" else None, stream)
    dtype = np.dtype(np.float16 if half else np.float32)
    crops = np.full((len(boxes) * 3 * spec.size[0] * spec.size[1] + 32), 99, dtype)
    with device_crop(kernels, spec, half) as crop, device.alloc(crops.nbytes) as out:
        device.h2d(out, crops, crops.nbytes, stream)
        crop.cut(
            frame, crop_windows(boxes, height, width, spec.pad), out.ptr + 16 * dtype.itemsize, stream,
            masks=on_device, reverse=color != spec.order,
        )  # fmt: skip
        device.d2h(crops, out, crops.nbytes, stream)
        stream.sync()
    assert (crops[:16] == 99).all() and (crops[-16:] == 99).all(), "written beside the output"
    del keep
    return crops[16:-16].reshape(-1, 3, *spec.size)
