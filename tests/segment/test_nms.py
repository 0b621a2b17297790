from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftsdk.segment.nms import TOP, suppress, suppress_fast


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = sum(max(c[2] - c[0], 0.0) * max(c[3] - c[1], 0.0) for c in (a, b)) - shared
    return shared / union if union > 0 else 0.0


def slow_suppress(boxes, scores, threshold, limit):
    """One pair at a time."""
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        box = [float(value) for value in boxes[index]]
        if all(iou(box, [float(value) for value in boxes[other]]) <= threshold for other in kept):
            kept.append(index)
    return kept[:limit]


def slow_suppress_fast(boxes, scores, threshold, top):
    """The formula: a matrix of IoUs, its upper triangle, each column's maximum."""
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    exact = np.array(boxes, np.float64)
    matrix = np.array([[iou(exact[i], exact[j]) for j in order] for i in order]).reshape(len(order), len(order))
    best = np.triu(matrix, 1)[:top].max(axis=0, initial=0.0)
    free = [index for index, most in zip(order, best, strict=True) if most <= threshold]
    return [index for index in free if index in order[:top]], [index for index in free if index in order[top:]]


# Whole coordinates and few scores: equal boxes, equal scores, IoUs that hit the threshold exactly, boxes without area.
CORNERS = st.integers(0, 6)
BOX = st.tuples(CORNERS, CORNERS, CORNERS, CORNERS).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
SCORE = st.sampled_from([0.25, 0.5, 0.75])


@given(st.lists(st.tuples(BOX, SCORE), max_size=30), st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]), st.integers(0, 31))
def test_it_equals_brute_force(candidates, threshold, limit):
    boxes = np.array([box for box, _ in candidates], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in candidates], np.float32)
    kept = suppress(boxes, scores, threshold, limit)
    assert kept.dtype == np.int64
    assert kept.tolist() == slow_suppress(boxes, scores, threshold, limit)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_brute_force_on_many(seed):
    rng = np.random.default_rng(seed)
    corner = rng.random((150, 2), np.float32) * 100
    boxes = np.concatenate([corner, corner + rng.random((150, 2), np.float32) * 60], axis=1)
    scores = rng.random(150, np.float32).round(1)
    for limit in (150, 40, 1):
        assert suppress(boxes, scores, 0.5, limit).tolist() == slow_suppress(boxes, scores, 0.5, limit)


@given(
    st.lists(st.tuples(BOX, SCORE), max_size=30),
    st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]),
    st.sampled_from([1, 2, 7, 30]),
)
def test_the_fast_one_equals_its_formula(candidates, threshold, top):
    boxes = np.array([box for box, _ in candidates], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in candidates], np.float32)
    kept, cut = suppress_fast(boxes, scores, threshold, top)
    assert kept.dtype == cut.dtype == np.int64
    assert (kept.tolist(), cut.tolist()) == slow_suppress_fast(boxes, scores, threshold, top)


def test_the_fast_one_equals_its_formula_on_many(rng):
    corner = rng.random((TOP + 50, 2)) * 300
    boxes = np.concatenate([corner, corner + rng.random((TOP + 50, 2)) * 60], axis=1)
    scores = rng.random(TOP + 50, np.float32)
    kept, cut = suppress_fast(boxes, scores, 0.3)
    assert (kept.tolist(), cut.tolist()) == slow_suppress_fast(boxes, scores, 0.3, 200)
    assert 50 < len(kept) < 199 and 0 < len(cut) < 50
    assert set(kept) < set(suppress(boxes, scores, 0.3, 300))  # it lets more go than the greedy one


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1.0, 3e38])
def test_tiny_and_huge_boxes(scale):
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 6, 6], [0, 0, 1, 0.6]]) * scale
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        kept = suppress(boxes, np.float32([0.9, 0.8, 0.7, 0.6]), 0.5, 9).tolist()
        assert suppress_fast(boxes, np.float32([0.9, 0.8, 0.7, 0.6]), 0.5)[0].tolist() == kept
    assert kept == ([0, 1, 2, 3] if scale == 1e-200 else [0, 2])  # 1e-400 is no area
