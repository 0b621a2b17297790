"""`mask_crop(out=...)`: written where the caller says, or refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from bad_images.judge import check_message

from graftsdk.errors import DTypeError, GraftError, InputError, ShapeError
from graftsdk.preprocess import BoxMasks, CropSpec, mask_crop

SPEC = CropSpec((24, 16))
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
BOXES = np.array([[3, 4, 33, 39], [0, 0, 60, 40], [50.5, 2, 90, 9]], np.float32)
MASKS = np.random.default_rng(1).random((3, 40, 60)) > 0.4
SHAPE = (3, 3, 24, 16)


def blank() -> np.ndarray:
    """No result has these values, so that what was not written is seen."""
    return np.full(SHAPE, np.nan, np.float32)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("masks", [None, MASKS, BoxMasks(MASKS, [[0, 0, 60, 40]] * 3)], ids=["none", "frames", "boxed"])
def test_it_is_filled_and_returned(masks: np.ndarray | BoxMasks | None, threads: int) -> None:
    out = blank()
    found = mask_crop(IMAGE, BOXES, masks, SPEC, threads=threads, out=out)
    assert found is out
    assert out.tobytes() == mask_crop(IMAGE, BOXES, masks, SPEC).tobytes()


def test_a_part_of_a_larger_array_is_filled_and_nothing_beside_it() -> None:
    whole = np.full((7, *SHAPE[1:]), np.nan, np.float32)
    mask_crop(IMAGE, BOXES, None, SPEC, out=whole[2:5])
    assert whole[2:5].tobytes() == mask_crop(IMAGE, BOXES, None, SPEC).tobytes()
    assert np.isnan(whole[:2]).all() and np.isnan(whole[5:]).all()


def test_nobody_and_no_out() -> None:
    out = np.empty((0, *SHAPE[1:]), np.float32)
    assert mask_crop(IMAGE, BOXES[:0], None, SPEC, out=out) is out
    assert mask_crop(IMAGE, BOXES, None, SPEC, out=None).shape == SHAPE


def test_a_subclass_is_the_callers_own() -> None:
    class Batch(np.ndarray):
        pass

    out = blank().view(Batch)
    assert mask_crop(IMAGE, BOXES, None, SPEC, out=out) is out
    assert out.tobytes() == mask_crop(IMAGE, BOXES, None, SPEC).tobytes()


def read_only() -> np.ndarray:
    out = blank()
    out.flags.writeable = False
    return out


def unaligned() -> np.ndarray:
    found: np.ndarray = np.frombuffer(bytearray(blank().nbytes + 1), np.float32, offset=1, count=blank().size)
    return found.reshape(SHAPE)


REFUSED: dict[str, tuple[Callable[[], object], type[Exception]]] = {
    "float64": (lambda: np.empty(SHAPE, np.float64), DTypeError),
    "float16": (lambda: np.empty(SHAPE, np.float16), DTypeError),
    "uint8": (lambda: np.empty(SHAPE, np.uint8), DTypeError),
    ">f4": (lambda: np.empty(SHAPE, ">f4"), DTypeError),
    "objects": (lambda: np.empty(SHAPE, object), DTypeError),
    "one less": (lambda: np.empty((2, *SHAPE[1:]), np.float32), ShapeError),
    "one more": (lambda: np.empty((4, *SHAPE[1:]), np.float32), ShapeError),
    "none": (lambda: np.empty((0, *SHAPE[1:]), np.float32), ShapeError),
    "turned": (lambda: np.empty((3, 3, 16, 24), np.float32), ShapeError),
    "channels last": (lambda: np.empty((3, 24, 16, 3), np.float32), ShapeError),
    "flat": (lambda: np.empty(np.prod(SHAPE), np.float32), ShapeError),
    "F order": (lambda: np.asfortranarray(blank()), InputError),
    "every second": (lambda: np.empty((6, *SHAPE[1:]), np.float32)[::2], InputError),
    "backwards": (lambda: blank()[:, :, ::-1], InputError),
    "stride 0": (lambda: np.broadcast_to(np.float32(0), SHAPE), InputError),
    "read-only": (read_only, InputError),
    "unaligned": (unaligned, InputError),
    "masked": (lambda: np.ma.array(blank()), InputError),
    "list": (lambda: blank().tolist(), InputError),
    "memory": (lambda: memoryview(blank()), InputError),
    "number": (lambda: 0, InputError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, error = REFUSED[name]
    with pytest.raises(GraftError, match=r"^out: expected") as caught:
        mask_crop(IMAGE, BOXES, None, SPEC, out=make())  # type: ignore[arg-type]
    assert type(caught.value) is error
    check_message(str(caught.value))


def overlapping(what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | BoxMasks | None]:
    """(image, out, masks) where out lies in the memory of `what`, or around it."""
    memory = np.zeros(2 * blank().nbytes, np.uint8)
    out = memory[: blank().nbytes].view(np.float32).reshape(SHAPE)
    part = memory[blank().nbytes - 100 :]
    if what == "image":
        image = part[: IMAGE.size].reshape(IMAGE.shape)
        image[:] = IMAGE
        return image, out, None
    if what == "frames":
        return IMAGE, out, part[: MASKS.size].reshape(MASKS.shape).view(bool)
    cells = part[:64].reshape(8, 8)
    return IMAGE, out, BoxMasks([MASKS[0], cells, MASKS[1]], [[0, 0, 60, 40]] * 3)


@pytest.mark.parametrize("what", ["image", "frames", "cells of BoxMasks"])
def test_memory_that_is_read_is_not_written(what: str) -> None:
    image, out, masks = overlapping(what)
    with pytest.raises(InputError, match=r"^out: expected memory of its own, found") as caught:
        mask_crop(image, BOXES, masks, SPEC, out=out)
    check_message(str(caught.value))


def test_boxes_in_its_memory_are_read_before_it_is_written() -> None:
    out = np.zeros(SHAPE, np.float32)
    boxes = out.reshape(-1)[:12].reshape(3, 4)
    boxes[:] = BOXES
    assert mask_crop(IMAGE, boxes, None, SPEC, out=out).tobytes() == mask_crop(IMAGE, BOXES, None, SPEC).tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"boxes": BOXES * np.nan},
        {"image": IMAGE.astype(np.float32)},
        {"masks": MASKS[:2]},
        {"masks": MASKS.astype(np.float32)},
        {"threads": 0},
        {"color": "grey"},
    ],
    ids=["boxes", "image", "number of masks", "dtype of masks", "threads", "color"],
)
def test_what_is_refused_writes_nothing(wrong: dict[str, object]) -> None:
    out = blank()
    given = {"image": IMAGE, "boxes": BOXES, "masks": MASKS, "spec": SPEC, "out": out, **wrong}
    with pytest.raises(InputError):
        mask_crop(**given)  # type: ignore[arg-type]
    assert np.isnan(out).all()
