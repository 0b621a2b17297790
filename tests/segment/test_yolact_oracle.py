"""The decoder against the original's way, written plainly: all priors, all boxes, masks over the whole frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from graftsdk.plan.manifest import SegmenterInfo
from graftsdk.segment.yolact import YolactAdapter

INFO = SegmenterInfo(
    part="segmenter",
    family="yolact",
    input="images",
    input_size=(550, 550),
    outputs=("loc", "conf", "mask", "priors", "proto"),
    person_class=0,
    score_threshold=0.15,
    iou_threshold=0.5,
)


def overlaps(boxes):
    """[n, n]: intersection over union of each two."""
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / np.maximum(area[:, None] + area[None] - shared, 1e-300)


def keep_fast(boxes, scores, threshold):
    order = np.argsort(-scores, kind="stable")[:200]
    worst = np.triu(overlaps(boxes[order]), 1).max(axis=0, initial=0.0)
    return order[worst <= threshold]


def keep_greedy(boxes, scores, threshold):
    left, kept = np.argsort(-scores, kind="stable"), []
    matrix = overlaps(boxes)
    while len(left):
        kept.append(left[0])
        left = left[1:][matrix[left[0], left[1:]] <= threshold]
    return np.array(kept, np.int64)


def plain_decode(outputs, image_size, info, least):
    """(boxes float64[n, 4], scores float32[n], values float32[n, H, W]): Detect, fast_nms, postprocess, crop."""
    height, width = image_size
    loc, _, mask, priors, proto = (output.astype(np.float64) for output in outputs)
    centre = priors[:, :2] + loc[0, :, :2] * 0.1 * priors[:, 2:]
    side = priors[:, 2:] * np.exp(loc[0, :, 2:] * 0.2)
    boxes = np.concatenate([centre - side / 2, centre - side / 2 + side], axis=1)
    takes = np.flatnonzero(outputs[1][0, :, 1:].max(axis=1) > np.float32(0.05))
    boxes, coefficients, scores = boxes[takes], mask[0, takes], outputs[1][0, takes, info.person_class + 1]
    kept = (keep_fast if info.nms == "fast" else keep_greedy)(boxes, scores, info.iou_threshold)
    kept = kept[scores[kept] >= np.float32(least)]
    pixels = np.clip(boxes[kept] * (width, height, width, height), 0, (width, height, width, height))
    some = (pixels.astype(np.float32)[:, :2] < pixels.astype(np.float32)[:, 2:]).all(axis=1)
    kept, pixels = kept[some][: info.max_persons], pixels[some][: info.max_persons]
    masks = 1 / (1 + np.exp(-(proto[0] @ coefficients[kept].T)))  # [h, w, n]
    rows, columns = np.arange(proto.shape[1])[:, None, None], np.arange(proto.shape[2])[None, :, None]
    x0, y0, x1, y1 = boxes[kept].T * np.array([[proto.shape[2]], [proto.shape[1]]] * 2)
    masks *= (columns >= np.clip(x0 - 1, 0, None)) & (columns < np.clip(x1 + 1, None, proto.shape[2]))
    masks *= (rows >= np.clip(y0 - 1, 0, None)) & (rows < np.clip(y1 + 1, None, proto.shape[1]))
    if not len(kept):
        return pixels, scores[kept], np.empty((0, height, width))
    stack = torch.from_numpy(masks.transpose(2, 0, 1)[None])
    values = interpolate(stack, (height, width), mode="bilinear", align_corners=False)[0].numpy()
    seen = (values > 0.5).any(axis=(1, 2))
    return pixels[seen], scores[kept][seen], values[seen]


def compare(outputs, image_size, info=INFO, min_score=None):
    found = YolactAdapter(info).decode(outputs, image_size, min_score)
    least = info.score_threshold if min_score is None else min_score
    boxes, scores, values = plain_decode(outputs, image_size, info, least)
    assert found.scores.tolist() == scores.tolist()
    np.testing.assert_allclose(found.boxes, boxes, rtol=0, atol=1e-3)
    assert len(found.masks) == len(scores)
    for index, value in enumerate(values):
        sure = abs(value - 0.5) > 1e-4
        np.testing.assert_array_equal(found.masks.mask_at(index, *image_size)[sure], value[sure] > 0.5)
    return found


def outputs(rng, count, classes, grid, kinds, people):
    """Random, with `people` priors of any size whose person's score is higher than the rest's."""
    loc = rng.normal(size=(1, count, 4)).astype(np.float32) * 2
    logits = rng.normal(size=(1, count, 1 + classes))
    logits[..., 0] += 6
    logits[0, rng.choice(count, people, replace=False), 1] += rng.random(people) * 12
    conf = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    mask = np.tanh(rng.normal(size=(1, count, kinds)))
    priors = np.concatenate([rng.random((count, 2)) * 1.2 - 0.1, rng.random((count, 2)) ** 3], axis=1)
    proto = np.clip(rng.normal(size=(1, *grid, kinds)), 0, None) * 2
    return [loc, *(array.astype(np.float32) for array in (conf, mask, priors, proto))]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(1, 1), (7, 5), (12, 18), (20, 20)]),
    st.sampled_from([(1, 1), (9, 40), (60, 45), (131, 77)]),
    st.sampled_from([None, 0.0, 0.02, 0.05, 0.5]),
    st.sampled_from(["fast", "greedy"]),
    st.sampled_from([(1, 0), (4, 0), (4, 2)]),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_it_equals_the_originals_way(seed, grid, image_size, min_score, nms, classes, threshold):
    rng = np.random.default_rng(seed)
    made = outputs(rng, int(rng.integers(1, 60)), classes[0], grid, 3, 0)
    if seed % 2:  # equal scores, in their given order, and boxes that touch the border
        made[1], made[3] = made[1].round(1), made[3].round(1)
    info = dataclasses.replace(
        INFO, nms=nms, person_class=classes[1], iou_threshold=threshold, max_persons=int(rng.integers(1, 30))
    )
    compare(made, image_size, info, min_score)


@pytest.mark.parametrize("classes", [80, 1])
@pytest.mark.parametrize("nms", ["fast", "greedy"])
@pytest.mark.parametrize("image_size", [(90, 160), (427, 640)])
def test_it_equals_the_originals_way_at_its_size(rng, classes, nms, image_size):
    made = outputs(rng, 19248, classes, (138, 138), 32, 250)
    found = compare(made, image_size, dataclasses.replace(INFO, nms=nms, max_persons=40))
    assert len(found) > 30 and found.truncated


@pytest.mark.parametrize("threshold", [0.051, 0.15, 0.5])
def test_the_threshold_first_or_last_gives_the_same_people(rng, threshold):
    """200 good priors, far more than 200 others above 0.05: what is pushed out of the best few is not asked for."""
    made = outputs(rng, 1500, 4, (20, 20), 3, 1400)
    assert (made[1][0, :, 1] > 0.05).sum() > 600
    compare(made, (60, 45), min_score=threshold)
