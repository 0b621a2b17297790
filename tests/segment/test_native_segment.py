"""What the native functions refuse: nothing is converted, and no window or shape is read beyond its array."""

from __future__ import annotations

import numpy as np
import pytest

from graftsdk import _native

VALUES = np.zeros((4, 6, 8), np.float32)
WEIGHTS = np.zeros((1, 8), np.float32)
SHAPES, EXTENTS = np.array([[2, 3]]), np.float32([[0, 0, 1, 1]])


def windows(*rows):
    return np.array(rows, np.int64).reshape(-1, 4)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: _native.all_finite(np.zeros(3)), "values: expected"),
        (lambda: _native.all_finite(np.zeros(3, ">f4")), "values: expected"),
        (lambda: _native.all_finite(np.zeros(6, np.float32)[::2]), "values: expected"),
        (lambda: _native.all_finite(np.zeros(13, np.uint8)[1:].view(np.float32)), "values: expected"),
        (lambda: _native.suppress(np.zeros((3, 4), np.float32), 0.5, 9), "boxes: expected"),
        (lambda: _native.suppress(np.zeros((3, 5)), 0.5, 9), "boxes: expected"),
        (lambda: _native.suppress_fast(np.zeros(4), 0.5, 9), "boxes: expected"),
        (lambda: _native.prototype_masks(VALUES[:, ::2], WEIGHTS, windows([0, 0, 1, 1])), "prototypes: expected"),
        (lambda: _native.prototype_masks(VALUES, WEIGHTS[:, :7], windows([0, 0, 1, 1])), "coefficients: expected"),
        (lambda: _native.prototype_masks(VALUES, WEIGHTS, windows()), "coefficients: expected"),
        (lambda: _native.prototype_masks(VALUES, WEIGHTS, windows([0, 0, 7, 1])), "windows: expected"),
        (lambda: _native.prototype_masks(VALUES, WEIGHTS, windows([0, 0, 6, 5])), "windows: expected"),
        (lambda: _native.prototype_masks(VALUES, WEIGHTS, windows([-1, 0, 6, 4])), "windows: expected"),
        (lambda: _native.prototype_masks(VALUES, WEIGHTS, windows([3, 0, 3, 4])), "windows: expected"),
        (lambda: _native.covering(np.zeros(5, np.float32), SHAPES, EXTENTS, 9, 9), "values: expected"),
        (lambda: _native.covering(np.zeros(6, np.float32), SHAPES * 0, EXTENTS, 9, 9), "shapes: expected"),
        (lambda: _native.covering(np.zeros(6, np.float32), SHAPES << 30, EXTENTS, 9, 9), "shapes: expected"),
        (lambda: _native.covering(np.zeros(6, np.float32), SHAPES, EXTENTS[:0], 9, 9), "shapes, extents: expected"),
        (lambda: _native.covering(np.zeros(6, np.float32), SHAPES, EXTENTS * np.inf, 9, 9), "extents: expected"),
        (lambda: _native.covering(np.zeros(6, np.float32), SHAPES, EXTENTS, -1, 9), "height, width: expected"),
    ],
)
def test_refusals(call, match):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=match):
        call()


def test_nothing_is_fine():
    assert _native.all_finite(np.empty((0, 4), np.float32))
    assert _native.suppress(np.empty((0, 4)), 0.5, 9).shape == (0,)
    values, held = _native.prototype_masks(VALUES, WEIGHTS[:0], windows())
    assert values.shape == (0,) and held.shape == (0, 4)
    assert _native.covering(values, np.empty((0, 2), np.int64), EXTENTS[:0], 9, 9).shape == (0,)
