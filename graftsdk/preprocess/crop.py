"""People cut out of an image: the checked way in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.errors import DTypeError, ImageTooLarge, InputError, MissingDependency, ShapeError
from graftsdk.plan.cropspec import CropSpec
from graftsdk.preprocess.boxmasks import BoxMasks, mask_box
from graftsdk.preprocess.image import Color, check_pixels

try:
    from graftsdk._native import mask_crop as native_mask_crop
except ImportError as error:
    raise MissingDependency(
        f"expected graftsdk._native with the kernels of this version, found {error}; "
        f"pip install --force-reinstall --no-deps graftsdk"
    ) from error

__all__ = ["check_boxes", "check_masks", "check_persons", "mask_boxes", "mask_crop"]

MAX_THREADS = 1024
MAX_BYTES = 2**31  # of one result: 2,000 crops of 299 x 299; more at once is a mistake, not a batch
_FARTHEST = 2.0**31  # coordinates beyond it are garbage, and padding them would leave float64's exact range


def mask_crop(
    image: npt.NDArray[np.uint8],
    boxes: npt.NDArray[Any],
    masks: npt.NDArray[Any] | BoxMasks | None = None,
    spec: CropSpec | None = None,
    color: Color = "bgr",
    threads: int = 1,
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """float32[N, 3, H, W]: one crop a box, in the boxes' order, each ready for the network that `spec` belongs to.

    The image is only read. What is computed: `graftsdk.preprocess.reference`, by a native kernel in float32: within
    2e-6 * (1 + |mean|) / std of it, masks decided exactly alike, the same bits whatever the strides, the threads and
    the instruction set. Other threads run meanwhile: the GIL is released.

    Args:
        image: uint8[H, W, 3], in the order `color`, any strides.
        boxes: [N, 4], float or int, xyxy in pixels of the image, half-open; may reach beyond the image.
        masks: bool[N, H, W] or uint8[N, H, W] (nonzero = person) over the whole image, or N BoxMasks. None: no
            background is filled, and `spec.box` has no effect.
        spec: what a crop is.
        color: the image's channel order, "bgr" or "rgb".
        threads: how many crops are cut at once; results do not depend on it.
        out: where to write, and what is returned: float32[N, 3, H, W], contiguous, writeable, no part of the image
            or the masks.

    Raises:
        InputError: a box that is not finite, has no area or lies outside, or a mask that covers nothing where
            `spec.box == "mask"` (each names its index); wrong spec, color, threads or out.
        DTypeError, ShapeError, LayoutError, ImageTooSmall, ImageTooLarge: as `check_image`; boxes or masks of
            another dtype or shape.
    """
    image = check_pixels(image, color)
    if not isinstance(spec, CropSpec):
        raise InputError(f"spec: expected a CropSpec, found {type(spec).__name__}; a plan's is plan.manifest.crop")
    threads = whole_number("threads", threads, 1, MAX_THREADS)
    size = (image.shape[0], image.shape[1])
    boxes = check_boxes(boxes, size)
    if masks is not None:
        masks = check_masks(masks, size, len(boxes))
        if spec.box == "mask":
            boxes = mask_boxes(masks, size).astype(np.float64)
    needed = len(boxes) * 3 * spec.size[0] * spec.size[1] * 4
    if needed > MAX_BYTES:
        raise ImageTooLarge(
            f"crops: expected at most {MAX_BYTES} bytes at once, found {len(boxes)} crops of {needed} bytes; "
            f"cut them in smaller batches"
        )
    if out is not None:
        _check_out(out, (len(boxes), 3, *spec.size), image, masks)
    frames, arrays, extents = None, None, None
    if spec.background == "fill":
        if isinstance(masks, BoxMasks):
            arrays, extents = masks.arrays, np.ascontiguousarray(masks.extents)
        else:
            frames = masks
    return native_mask_crop(
        image,
        np.ascontiguousarray(boxes),
        frames,
        arrays,
        extents,
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        fill=spec.fill,
        reverse=color != spec.order,
        antialias=spec.antialias,
        letterbox=spec.fit == "letterbox",
        pad=spec.pad,
        threads=threads,
        out=out,
    )


def mask_boxes(masks: npt.NDArray[Any] | BoxMasks, image_size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """float32[N, 4], xyxy, half-open: the masks' own bounding boxes in an image of `image_size` (H, W).

    Raises:
        InputError: a mask that covers no pixel of the image; names its index.
        DTypeError, ShapeError: masks of another dtype or shape.
    """
    masks = check_masks(masks, image_size)
    boxes = np.empty((len(masks), 4), np.float32)
    for index in range(len(masks)):
        box = mask_box(masks, index, *image_size)
        if box is None:
            raise InputError(f"mask {index}: expected a mask that covers at least one pixel of the image, found none")
        boxes[index] = box
    return boxes


def check_boxes(boxes: Any, image_size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """float64[N, 4]: the boxes, each of which shares area with an image of `image_size` (H, W).

    Raises:
        InputError: not an array, or a box that is not finite, has no area or lies outside; names its index.
        DTypeError, ShapeError: another dtype than float or int, or not [N, 4].
    """
    wide, shown = _box_array(boxes)
    height, width = image_size
    x0, y0, x1, y1 = wide.T
    tests = (
        ("finite coordinates within 2**31 pixels", np.abs(wide).max(axis=1) <= _FARTHEST),  # a NaN fails too
        ("x0 < x1 and y0 < y1 (boxes are x0, y0, x1, y1)", (x0 < x1) & (y0 < y1)),
        (
            f"a part of the image of {width} x {height} (width x height)",
            (x1 > 0) & (y1 > 0) & (x0 < width) & (y0 < height),
        ),
    )
    bad = np.flatnonzero(~np.logical_and.reduce([fits for _, fits in tests]))
    if len(bad):
        index = int(bad[0])
        expected = next(text for text, fits in tests if not fits[index])
        raise InputError(f"box {index}: expected {expected}, found {shown[index].tolist()}")
    return wide


def _box_array(boxes: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """(float64[N, 4], the numbers as they were given): boxes from an array, rows of numbers, or another's array."""
    if isinstance(boxes, (list, tuple)):
        try:
            boxes = np.array(boxes) if boxes else np.empty((0, 4))
        except (ValueError, TypeError, OverflowError) as error:
            raise ShapeError("boxes: expected [N, 4], found rows of different lengths") from error
    elif not isinstance(boxes, np.ndarray) and hasattr(boxes, "__array__"):  # tensors and tables of other libraries
        try:
            boxes = np.asarray(boxes)
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"boxes: expected an array [N, 4], found one that gives none: {error}") from error
    if not isinstance(boxes, np.ndarray) or isinstance(boxes, np.ma.MaskedArray):
        raise InputError(f"boxes: expected an array [N, 4], found {type(boxes).__name__}")
    boxes = boxes.view(np.ndarray)  # a matrix has rows of rank 2
    if boxes.dtype.kind not in "fiu":
        raise DTypeError(f"boxes: expected float or int, found {boxes.dtype.str}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"boxes: expected [N, 4], found {list(boxes.shape)}")
    return boxes.astype(np.float64), boxes


def check_masks(masks: Any, image_size: tuple[int, int], count: int | None = None) -> npt.NDArray[Any] | BoxMasks:
    """The masks, of which there are `count`, and which belong to an image of `image_size` (H, W).

    Raises:
        InputError: not an array or BoxMasks.
        DTypeError, ShapeError: another dtype than bool or uint8, not [N, H, W], or another number of them.
    """
    checked: npt.NDArray[Any] | BoxMasks = masks
    if not isinstance(masks, BoxMasks):
        if not isinstance(masks, np.ndarray) or isinstance(masks, np.ma.MaskedArray):
            advice = "; use np.stack(masks)" if isinstance(masks, (list, tuple)) else ""
            raise InputError(f"masks: expected an array [N, H, W] or BoxMasks, found {type(masks).__name__}{advice}")
        if masks.dtype not in (np.bool_, np.uint8):
            raise DTypeError(
                f"masks: expected bool or uint8, found {masks.dtype.str}; for probabilities use masks > 0.5, "
                f"or BoxMasks, which take float32"
            )
        if masks.ndim != 3 or masks.shape[1:] != image_size:
            advice = "one mask is masks[None]" if masks.ndim == 2 else "masks of another size go into BoxMasks"
            raise ShapeError(
                f"masks: expected [N, {image_size[0]}, {image_size[1]}], the image's height and width, "
                f"found {list(masks.shape)}; {advice}"
            )
    if count is not None and len(masks) != count:
        raise ShapeError(f"masks: expected {count}, one for each box, found {len(masks)}")
    return checked


def check_persons(
    boxes: Any, masks: Any, image_size: tuple[int, int], spec: CropSpec, limit: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | BoxMasks | None, bool]:
    """(boxes, masks, whether there were more): at most `limit` persons, every one checked before any is cut.

    Boxes or masks are given; `image_size` is (H, W).

    Raises:
        InputError and its leaves: as `mask_crop`; an index counts from the caller's first person.
    """
    if boxes is not None:
        boxes = check_boxes(boxes, image_size)
    if masks is not None:
        masks = check_masks(masks, image_size, None if boxes is None else len(boxes))
    truncated = len(masks if boxes is None else boxes) > limit
    if truncated:
        boxes, masks = (None if side is None else side[:limit] for side in (boxes, masks))
    if masks is not None and (boxes is None or spec.box == "mask"):
        own = mask_boxes(masks, image_size)  # refuses a mask that has no box
        boxes = own if boxes is None else boxes
    return boxes, masks, truncated


def _check_out(
    out: Any, shape: tuple[int, ...], image: npt.NDArray[np.uint8], masks: npt.NDArray[Any] | BoxMasks | None
) -> None:
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise InputError(f"out: expected an array float32{list(shape)}, found {type(out).__name__}")
    if out.dtype != np.float32 or not out.dtype.isnative:
        raise DTypeError(f"out: expected float32, found {out.dtype.str}")
    if out.shape != shape:
        raise ShapeError(f"out: expected {list(shape)}, one crop for each box, found {list(out.shape)}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise InputError("out: expected a contiguous, aligned and writeable array, found another; use np.empty")
    read = [image, *(masks if isinstance(masks, BoxMasks) else () if masks is None else (masks,))]
    if any(np.may_share_memory(out, array) for array in read):
        raise InputError("out: expected memory of its own, found the image's or a mask's; use np.empty")
