"""The checked way in: each refusal against its exact error, and the results that bad neighbours must not change."""

from __future__ import annotations

import numpy as np
import pytest

from graftsdk.errors import DTypeError, GraftError, ImageTooLarge, InputError, ShapeError
from graftsdk.preprocess import BoxMasks, CropSpec, crop, mask_crop, mask_crop_reference

SPEC = CropSpec((24, 16))
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
BOX = np.array([[3, 4, 33, 39]], np.float32)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5, 5, 5, 20], r"box 1: expected x0 < x1"),
        ([5, 5, 20, 5], r"box 1: expected x0 < x1"),
        ([20, 5, 5, 20], r"box 1: expected x0 < x1"),
        ([5, 20, 20, 5], r"box 1: expected x0 < x1"),
        ([-9, 5, 0, 20], r"box 1: expected a part of the image of 60 x 40"),
        ([60, 5, 70, 20], r"box 1: expected a part of the image"),
        ([5, -9, 20, 0], r"box 1: expected a part of the image"),
        ([5, 40, 20, 50], r"box 1: expected a part of the image"),
        ([NAN, 5, 20, 20], r"box 1: expected finite coordinates within 2\*\*31 pixels, found \[nan, 5"),
        ([5, 5, INF, 20], r"box 1: expected finite"),
        ([-INF, 5, 20, 20], r"box 1: expected finite"),
        ([5, 5, 1e30, 20], r"box 1: expected finite"),
    ],
)
def test_a_bad_box_is_named(box, message):
    with pytest.raises(InputError, match=message):
        mask_crop(IMAGE, np.array([BOX[0], box]), spec=SPEC)


@pytest.mark.parametrize(
    "box",
    [[10.2, 10.2, 10.3, 10.3], [0, 0, 60, 40], [-50, -50, 100, 100], [59.9, 39.9, 80, 80], [-5, -5, 1e-9, 1e-9]],
)
@pytest.mark.parametrize("pad", [0.0, 4.0])
def test_any_box_that_touches_the_image_is_cut(box, pad):
    crops = mask_crop(IMAGE, np.array([box]), spec=CropSpec((24, 16), pad=pad))
    assert np.isfinite(crops).all() and crops.min() >= -2.2 and crops.max() <= 2.7


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8", "f2", "f4", "f8", ">f4", ">i8"])
def test_boxes_of_any_number_type(dtype):
    crops = mask_crop(IMAGE, BOX.astype(dtype), spec=SPEC)
    assert crops.tobytes() == mask_crop(IMAGE, BOX, spec=SPEC).tobytes()
    assert crops.tobytes() == mask_crop(IMAGE, BOX.tolist(), spec=SPEC).tobytes()


class Table:
    """As tensors and data frames hand out their numbers."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __array__(self, dtype=None, copy=None):
        if self.numbers is None:
            raise RuntimeError("on another device")
        return np.array(self.numbers)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # what NumPy says of its own matrix
@pytest.mark.parametrize("kind", [np.matrix, Table])
def test_boxes_of_other_libraries(kind):
    assert mask_crop(IMAGE, kind(BOX.tolist()), spec=SPEC).tobytes() == mask_crop(IMAGE, BOX, spec=SPEC).tobytes()


@pytest.mark.parametrize(
    ("boxes", "error"),
    [
        (None, InputError),
        ("boxes", InputError),
        (BOX[0], ShapeError),
        (BOX[:, :3], ShapeError),
        (BOX[None], ShapeError),
        ([[1, 2, 3, 4], [1, 2]], ShapeError),
        (BOX.astype(complex), DTypeError),
        (BOX.astype(object), DTypeError),
        (BOX > 0, DTypeError),
        ([["1", "2", "3", "4"]], DTypeError),
        (np.ma.array(BOX), InputError),
        (Table(None), InputError),
        ([[1, 2, 3, 2**70]], DTypeError),
    ],
)
def test_boxes_of_another_kind(boxes, error):
    with pytest.raises(GraftError, match=r"^boxes: expected") as caught:
        mask_crop(IMAGE, boxes, spec=SPEC)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("masks", "error"),
    [
        (np.ones((2, 40, 60), bool), ShapeError),
        (np.ones((0, 40, 60), bool), ShapeError),
        (np.ones((1, 60, 40), bool), ShapeError),
        (np.ones((40, 60), bool), ShapeError),
        (np.ones((1, 20, 30), bool), ShapeError),
        (np.ones((1, 40, 60), np.float32), DTypeError),
        (np.ones((1, 40, 60), np.int64), DTypeError),
        ([np.ones((40, 60), bool)], InputError),
        (np.ma.array(np.ones((1, 40, 60), bool)), InputError),
        (BoxMasks([np.ones((4, 4), bool)] * 2, np.array([[0, 0, 5, 5]] * 2)), ShapeError),
    ],
)
def test_masks_of_another_kind(masks, error):
    with pytest.raises(GraftError, match=r"^masks: expected") as caught:
        mask_crop(IMAGE, BOX, masks, SPEC)
    assert type(caught.value) is error


def test_a_mask_without_a_pixel_has_no_box_to_cut_along():
    masks = np.zeros((1, 40, 60), bool)
    assert np.isfinite(mask_crop(IMAGE, BOX, masks, SPEC)).all()  # cut along the given box: all background
    with pytest.raises(InputError, match="mask 0: expected a mask that covers"):
        mask_crop(IMAGE, BOX, masks, CropSpec((24, 16), box="mask"))


@pytest.mark.parametrize("threads", [0, -1, 1.0, "2", None, True, 10**6])
def test_threads(threads):
    with pytest.raises(InputError, match=r"^threads: expected an integer"):
        mask_crop(IMAGE, BOX, spec=SPEC, threads=threads)


@pytest.mark.parametrize("spec", [None, (24, 16), {"size": [24, 16]}])
def test_spec(spec):
    with pytest.raises(InputError, match=r"^spec: expected a CropSpec"):
        mask_crop(IMAGE, BOX, spec=spec)


def test_a_result_beyond_the_limit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(crop, "MAX_BYTES", 24 * 16 * 12)
    assert len(mask_crop(IMAGE, BOX, spec=SPEC)) == 1
    with pytest.raises(ImageTooLarge, match="smaller batches"):
        mask_crop(IMAGE, BOX.repeat(2, 0), spec=SPEC)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 1000])
def test_any_number_of_people(count):
    spec = CropSpec((8, 8))
    boxes = BOX.repeat(count, 0)
    crops = mask_crop(IMAGE, boxes, np.ones((count, 40, 60), bool), spec)
    assert crops.shape == (count, 3, 8, 8) and crops.dtype == np.float32
    alone = mask_crop(IMAGE, BOX, None, spec)[0].tobytes()
    assert all(one.tobytes() == alone for one in crops)


def test_no_people_in_a_list():
    assert mask_crop(IMAGE, [], spec=SPEC).shape == (0, 3, 24, 16)


CONTENT = {
    "black": np.zeros((40, 60, 3), np.uint8),
    "white": np.full((40, 60, 3), 255, np.uint8),
    "noise": IMAGE,
    "checker": np.indices((40, 60, 3)).sum(axis=0).astype(np.uint8) % 2 * np.uint8(255),
    "gradient": np.indices((40, 60, 3))[1].astype(np.uint8) * 4,
    "one hot pixel": np.pad(np.full((1, 1, 3), 255, np.uint8), ((20, 19), (30, 29), (0, 0))),
}


@pytest.mark.parametrize("content", CONTENT)
def test_any_content_stays_in_range(content):
    spec = CropSpec((24, 16), mean=(0, 0, 0), std=(1, 1, 1))
    crops = mask_crop(CONTENT[content], BOX, spec=spec)
    assert crops.min() >= 0 and crops.max() <= 1 + 1e-6


def test_the_result_is_the_references_and_the_callers(rng):
    masks = rng.random((1, 40, 60)) > 0.5
    crops = mask_crop(IMAGE.copy(), BOX, masks, SPEC, "rgb", 2)
    np.testing.assert_allclose(crops, mask_crop_reference(IMAGE, BOX, masks, SPEC, "rgb", 1), rtol=0, atol=1e-5)
    assert crops.flags.owndata and crops.flags.writeable and crops.flags.c_contiguous


def test_a_refused_call_changes_nothing():
    before = mask_crop(IMAGE, BOX, spec=SPEC).tobytes()
    with pytest.raises(InputError):
        mask_crop(IMAGE, BOX * np.nan, spec=SPEC)
    assert mask_crop(IMAGE, BOX, spec=SPEC).tobytes() == before
