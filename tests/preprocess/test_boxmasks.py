from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftsdk.errors import DTypeError, GraftError, InputError, ShapeError
from graftsdk.preprocess import BoxMasks, mask_boxes

SQUARE = np.ones((2, 2), np.float32)
EXTENT = np.array([[0, 0, 4, 4]], np.float32)


def slow_mask(array, extent, height, width):
    """The definition, one pixel at a time."""
    x0, y0, x1, y1 = (float(value) for value in extent)
    mask = np.zeros((height, width), bool)
    rows, columns = array.shape

    def cell(position, size):
        position = min(max(position, 0.0), size - 1.0)
        lower = math.floor(position)
        return lower, min(lower + 1, size - 1), position - lower

    for y in range(height):
        for x in range(width):
            if not (x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1):
                continue
            top, bottom, fall = cell((y + 0.5 - y0) / (y1 - y0) * rows - 0.5, rows)
            left, right, slide = cell((x + 0.5 - x0) / (x1 - x0) * columns - 0.5, columns)
            near = float(array[top, left]) + (float(array[bottom, left]) - float(array[top, left])) * fall
            far = float(array[top, right]) + (float(array[bottom, right]) - float(array[top, right])) * fall
            mask[y, x] = near + (far - near) * slide > 0.5
    return mask


@given(st.integers(0, 2**32 - 1))
def test_a_mask_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 24, 2)
    array = rng.random(rng.integers(1, 9, 2), np.float32)
    corner = rng.uniform(-10, 20, 2)
    extent = np.array([*corner, *(corner + rng.uniform(0.2, 30, 2))], np.float32)
    masks = BoxMasks([array], extent[None])
    assert (masks.mask_at(0, height, width) == slow_mask(array, extent, height, width)).all()


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_nonzero_counts_as_one(dtype):
    array = np.array([[0, 3], [0, 255]]).astype(dtype)
    mask = BoxMasks([array], np.array([[2, 2, 6, 6]], np.float32)).mask_at(0, 8, 8)
    expected = np.zeros((8, 8), bool)
    expected[2:6, 4:6] = True
    assert (mask == expected).all()


def test_half_is_background():
    half = np.full((2, 2), 0.5, np.float32)
    assert not BoxMasks([half], EXTENT).mask_at(0, 4, 4).any()
    assert BoxMasks([np.nextafter(half, np.float32(1))], EXTENT).mask_at(0, 4, 4).all()


def test_pixel_centres_decide_at_the_extents_edge():
    mask = BoxMasks([SQUARE], np.array([[0.5, 0.6, 3.5, 3.51]], np.float32)).mask_at(0, 4, 4)
    assert np.flatnonzero(mask.any(axis=0)).tolist() == [0, 1, 2]  # .5 is inside, 3.5 is not
    assert np.flatnonzero(mask.any(axis=1)).tolist() == [1, 2, 3]


def test_it_is_a_sequence():
    arrays = [SQUARE, np.zeros((3, 1), bool), np.ones((1, 5), np.uint8)]
    masks = BoxMasks(arrays, np.arange(12).reshape(3, 4))
    assert len(masks) == 3 and [array.shape for array in masks] == [(2, 2), (3, 1), (1, 5)]
    assert masks[1] is arrays[1] and masks[-1] is arrays[2]
    assert isinstance(masks[1:], BoxMasks) and masks[1:].extents.tolist() == masks.extents[1:].tolist()
    assert masks.select([2, 0])[0] is arrays[2] and masks.select([2, 0]).extents[1].tolist() == [0, 1, 2, 3]
    assert len(masks.select([])) == 0 and masks.select([]).extents.shape == (0, 4)
    assert not masks.extents.flags.writeable and masks.extents.dtype == np.float32
    with pytest.raises(IndexError):
        masks[3]


def test_none_at_all():
    empty = BoxMasks([], np.empty((0, 4), np.float32))
    assert len(empty) == 0 and mask_boxes(empty, (20, 30)).shape == (0, 4)


@pytest.mark.parametrize(
    ("arrays", "extents", "error", "message"),
    [
        ([SQUARE], EXTENT[0], ShapeError, r"extents: expected \[1, 4\]"),
        ([SQUARE, SQUARE], EXTENT, ShapeError, r"extents: expected \[2, 4\]"),
        ([SQUARE], EXTENT.astype(complex), DTypeError, "extents"),
        ([SQUARE], [["a", "b", "c", "d"]], DTypeError, "extents"),
        ([SQUARE], EXTENT * np.nan, InputError, "extent 0: expected finite"),
        ([SQUARE], EXTENT.astype(np.float64) * 1e60, InputError, "extent 0: expected finite"),
        ([SQUARE, SQUARE], np.array([[0, 0, 1, 1], [5, 0, 5, 1]]), InputError, "extent 1: expected finite x0 < x1"),
        ([SQUARE], np.array([[0, 9, 5, 1]]), InputError, "extent 0"),
        ([SQUARE.astype(np.float64)], EXTENT, DTypeError, "mask 0: expected bool, uint8 or float32"),
        ([SQUARE.astype(">f4")], EXTENT, DTypeError, "mask 0"),
        ([SQUARE.astype(object)], EXTENT, DTypeError, "mask 0"),
        ([SQUARE * 2], EXTENT, InputError, "mask 0: expected values from 0 to 1"),
        ([SQUARE * -1], EXTENT, InputError, "mask 0: expected values from 0 to 1"),
        ([SQUARE * np.float32("nan")], EXTENT, InputError, "mask 0: expected values from 0 to 1"),
        ([SQUARE[0]], EXTENT, ShapeError, "mask 0"),
        ([SQUARE[:0]], EXTENT, ShapeError, "mask 0"),
        ([SQUARE.tolist()], EXTENT, InputError, "mask 0: expected an array"),
        ([np.ma.array(SQUARE)], EXTENT, InputError, "mask 0: expected an array"),
    ],
)
def test_refused(arrays, extents, error, message):
    with pytest.raises(GraftError, match=message) as caught:
        BoxMasks(arrays, extents)
    assert type(caught.value) is error


@pytest.mark.parametrize("boxed", [False, True])
def test_mask_boxes(boxed):
    masks = np.zeros((2, 200, 30), np.uint8)
    masks[0, 3:150, 5:6] = 1
    masks[1, 199, 29] = 255
    given_masks = BoxMasks(masks, np.array([[0, 0, 30, 200]] * 2)) if boxed else masks
    assert mask_boxes(given_masks, (200, 30)).tolist() == [[5, 3, 6, 150], [29, 199, 30, 200]]


@given(st.integers(0, 2**32 - 1))
def test_mask_boxes_of_boxmasks_are_those_of_their_frames(seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-10, 20, 2)
    extent = np.array([[*corner, *(corner + rng.uniform(0.2, 90, 2))]])
    masks = BoxMasks([rng.random(rng.integers(1, 9, 2), np.float32)], extent)
    frame = masks.mask_at(0, 90, 24)[None]
    if frame.any():
        assert mask_boxes(masks, (90, 24)).tolist() == mask_boxes(frame, (90, 24)).tolist()
    else:
        with pytest.raises(InputError, match="mask 0"):
            mask_boxes(masks, (90, 24))


@pytest.mark.parametrize(
    "masks", [np.zeros((2, 20, 30), bool), BoxMasks([SQUARE, SQUARE], np.array([[-5, -5, 0, 0]] * 2))]
)
def test_an_empty_mask_has_no_box(masks):
    with pytest.raises(InputError, match="mask 0: expected a mask that covers at least one pixel"):
        mask_boxes(masks, (20, 30))
