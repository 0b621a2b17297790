"""Masks made of prototypes, sampled over boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftsdk.preprocess.boxmasks import BoxMasks, mask_box
from graftsdk.segment.prototypes import FINE, MOST, SLOPE, SampledMasks, sample_masks

HEIGHT, WIDTH = 12, 18


def slow_samples(coefficients, prototypes, box):
    """One sample at a time, out of the logits of the whole frame."""
    _, height, width = prototypes.shape
    logits = [
        [sum(float(c) * float(p[y, x]) for c, p in zip(coefficients, prototypes, strict=True)) for x in range(width)]
        for y in range(height)
    ]
    x0, y0, x1, y1 = box
    rows, columns = (min(max(math.ceil(FINE * side), 1), MOST) for side in (y1 - y0, x1 - x0))
    values = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            y = min(max(y0 + (row + 0.5) * (y1 - y0) / rows - 0.5, 0), height - 1)
            x = min(max(x0 + (column + 0.5) * (x1 - x0) / columns - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = logits[top][left] * (1 - (x - left)) + logits[top][right] * (x - left)
            lower = logits[bottom][left] * (1 - (x - left)) + logits[bottom][right] * (x - left)
            values[row, column] = min(max(0.5 + SLOPE * (upper * (1 - (y - top)) + lower * (y - top)), 0), 1)
    return values


EDGE = st.floats(0, 1, allow_subnormal=False)
BOX = st.tuples(EDGE, EDGE, EDGE, EDGE).map(
    lambda e: (min(e[0], e[2]) * WIDTH, min(e[1], e[3]) * HEIGHT, max(e[0], e[2]) * WIDTH, max(e[1], e[3]) * HEIGHT)
)


@given(st.lists(BOX.filter(lambda b: b[0] < b[2] and b[1] < b[3]), max_size=3), st.integers(0, 2**32 - 1))
def test_it_equals_one_sample_at_a_time(boxes, seed):
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(5, HEIGHT, WIDTH)).astype(np.float32) * 4
    coefficients = rng.normal(size=(len(boxes), 5)).astype(np.float32) * 2
    masks = sample_masks(coefficients, prototypes, np.array(boxes).reshape(-1, 4))
    for index, box in enumerate(boxes):
        expected = slow_samples(coefficients[index], prototypes, box)
        assert masks[index].dtype == np.float32 and masks[index].flags.c_contiguous
        np.testing.assert_allclose(masks[index], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ((0, 0, 1, 1), (4, 4)),
        ((2.5, 3, 4.75, 8), (20, 9)),
        ((3, 3, 3.001, 3.3), (2, 1)),
        ((0, 0, 18, 12), (48, 72)),
        ((0, 0, 200, 33), (128, 128)),
        ((0, 0, 32, 31.9), (128, 128)),
    ],
)
def test_how_fine_a_mask_is(box, shape):
    masks = sample_masks(np.ones((1, 2), np.float32), np.ones((2, 300, 200), np.float32), np.array([box], float))
    assert masks[0].shape == shape


def test_everybody_is_sampled_alone_or_together_alike(rng):
    """The same bits, whoever else is in the picture."""
    prototypes = rng.normal(size=(32, 40, 40)).astype(np.float32)
    coefficients = rng.normal(size=(9, 32)).astype(np.float32)
    corner = rng.random((9, 2)) * 20
    boxes = np.concatenate([corner, corner + rng.random((9, 2)) * 20 + 0.01], axis=1)
    together = sample_masks(coefficients, prototypes, boxes)
    for index in range(9):
        alone = sample_masks(coefficients[index : index + 1], prototypes, boxes[index : index + 1])
        assert alone[0].tobytes() == together[index].tobytes()


def packed(arrays):
    shapes = np.array([array.shape for array in arrays], np.int64).reshape(-1, 2)
    area = shapes.prod(axis=1)
    values = np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0)
    return SampledMasks(values.astype(np.float32), shapes, area.cumsum() - area)


@given(st.lists(st.tuples(BOX, st.floats(0, 0.6)), max_size=6), st.integers(0, 2**32 - 1))
def test_masks_that_cover_a_pixel_stay(people, seed):
    """Noise just around one half: now and then only pixels far from the strongest sample are covered, or none."""
    rng = np.random.default_rng(seed)
    people = [(box, least) for box, least in people if np.float32(box[0]) < np.float32(box[2])]
    people = [(box, least) for box, least in people if np.float32(box[1]) < np.float32(box[3])]
    arrays = [(least + rng.random(rng.integers(1, 30, 2)) * 0.5).clip(0, 1).astype(np.float32) for _, least in people]
    extents = np.array([box for box, _ in people], np.float32).reshape(-1, 4)
    masks, kept = packed(arrays).covering(extents, (HEIGHT, WIDTH))
    slow = BoxMasks(arrays, extents)
    expected = [index for index in range(len(people)) if mask_box(slow, index, HEIGHT, WIDTH) is not None]
    assert kept.tolist() == expected and len(masks) == len(kept)
    assert masks.extents.tolist() == extents[kept].tolist()
    assert all(mask is not None and (mask == arrays[index]).all() for mask, index in zip(masks, kept, strict=True))


@pytest.mark.parametrize(("second", "stays"), [(0.50, False), (0.51, True)])
def test_a_large_mask_whose_strongest_sample_lies_between_pixels(second, stays):
    """192 x 192 pixels, 1.5 for each sample."""
    array = np.zeros((128, 128), np.float32)
    array[40, 40] = 0.55  # centre at pixel coordinate 60.75 + edge 0.5: a quarter from the nearest, where 0.38 is left
    array[90:94, 90:94] = second
    masks, kept = packed([array]).covering(np.array([[0.5, 0.5, 192.5, 192.5]], np.float32), (200, 200))
    assert (len(masks), kept.tolist()) == ((1, [0]) if stays else (0, []))
