from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from graftsdk.preprocess.tables import bilinear_taps, letterbox_placement, resample, resize_table

SIDES = st.integers(1, 600)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((1, 1), (8, 8)),
        ((1, 7), (9, 3)),
        ((2, 3), (17, 31)),
        ((31, 17), (31, 17)),
        ((97, 41), (96, 40)),
        ((100, 50), (50, 25)),
        ((333, 127), (96, 48)),
        ((640, 310), (299, 299)),
        ((1001, 16), (13, 299)),
    ],
)
def test_two_passes_are_torch_interpolate(source, target, antialias, rng):
    image = rng.random((*source, 3)) * 255
    tall = resample(image, resize_table(source[0], target[0], antialias))
    ours = resample(tall.transpose(1, 0, 2), resize_table(source[1], target[1], antialias)).transpose(2, 1, 0)
    theirs = interpolate(
        torch.from_numpy(image.transpose(2, 0, 1).copy())[None],
        size=target,
        mode="bilinear",
        align_corners=False,
        antialias=antialias,
    )[0].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@given(SIDES, SIDES, st.booleans())
def test_a_table_reads_inside_the_source_and_averages(source, target, antialias):
    table = resize_table(source, target, antialias)
    assert table.weights.dtype == np.float64
    assert (table.first >= 0).all()
    assert (table.count >= 1).all()
    assert (table.first + table.count <= source).all()
    assert (table.weights >= 0).all()
    np.testing.assert_allclose(table.weights.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    beyond = np.arange(table.weights.shape[1])[None, :] >= table.count[:, None]
    assert not table.weights[beyond].any()


@given(SIDES, SIDES)
def test_enlarging_does_not_depend_on_antialias(source, extra):
    ramp = np.arange(source, dtype=np.float64) ** 2
    wide = source + extra
    plain, smooth = (resample(ramp, resize_table(source, wide, antialias)) for antialias in (False, True))
    np.testing.assert_allclose(plain, smooth, rtol=1e-12, atol=1e-9)


@given(SIDES, SIDES, st.booleans(), st.data())
def test_some_rows_of_a_table_give_the_same_bits(source, target, antialias, data):
    start = data.draw(st.integers(0, target - 1))
    stop = data.draw(st.integers(start + 1, target))
    table, values = resize_table(source, target, antialias), np.sin(np.arange(source))
    rows, low, high = table.rows(start, stop)
    assert resample(values[low:high], rows).tobytes() == resample(values, table)[start:stop].tobytes()


def test_taps_are_clamped_at_the_border():
    lower, upper, weight = bilinear_taps(np.array([-0.5, 0.0, 0.25, 1.9, 2.0, 2.5]), 3)
    assert lower.tolist() == [0, 0, 0, 1, 2, 2]
    assert upper.tolist() == [1, 1, 1, 2, 2, 2]
    np.testing.assert_allclose(weight, [0, 0, 0.25, 0.9, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((100, 100), (50, 50), (0, 0, 50, 50)),
        ((100, 50), (50, 50), (0, 12, 50, 25)),
        ((50, 100), (50, 50), (12, 0, 25, 50)),
        ((10, 20), (100, 100), (25, 0, 50, 100)),
        ((1000, 1), (64, 64), (0, 31, 64, 1)),
        ((1, 16384), (8, 4096), (3, 0, 1, 4096)),
    ],
)
def test_letterbox_placement(source, target, expected):
    assert letterbox_placement(source, target) == expected


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_letterbox_lies_inside_and_touches_two_sides(height, width, target_height, target_width):
    top, left, inner_height, inner_width = letterbox_placement((height, width), (target_height, target_width))
    assert top >= 0 and left >= 0 and inner_height >= 1 and inner_width >= 1
    assert top + inner_height <= target_height and left + inner_width <= target_width
    assert inner_height == target_height or inner_width == target_width
