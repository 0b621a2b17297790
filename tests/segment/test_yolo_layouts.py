"""YOLOv5's layout and that of exports with NMS, against decodings one prediction at a time."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from graftsdk.errors import NonFiniteOutput, ShapeError
from graftsdk.segment import open_adapter
from graftsdk.segment.letterbox import Letterbox

ROWS = 378  # 3 x (8 x 12 + 4 x 6 + 2 x 3) of a 64 x 96 input
SAME = Letterbox.fit((64, 96), (64, 96))
FRAME = Letterbox.fit((90, 80), (64, 96))  # with a border left and right


def prototypes(rng=None):
    made = np.zeros((1, 32, 16, 24), np.float32)
    made[0, 0] = 1  # everywhere
    if rng is not None:  # as smooth as those of a network
        for plane in made[0]:
            plane[:] = cv2.resize(rng.normal(size=(4, 6)), (24, 16), interpolation=cv2.INTER_CUBIC)
    return made


def v5(*people, classes=3):
    """One person: (cx, cy, w, h), objectness, class scores, first coefficient."""
    rows = np.zeros((1, ROWS, 5 + classes + 32), np.float32)
    for index, (box, objectness, scores, coefficient) in enumerate(people):
        rows[0, index, : 6 + classes] = *box, objectness, *scores, coefficient
    return [rows, prototypes()]


def after_nms(*people, count=300):
    """One person: (x0, y0, x1, y1), score, class, first coefficient; the rest of the rows is zero, as exported."""
    rows = np.zeros((1, count, 38), np.float32)
    for index, (box, score, kind, coefficient) in enumerate(people):
        rows[0, index, :7] = *box, score, kind, coefficient
    return [rows, prototypes()]


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_v5(rows, person, least, threshold):
    """[(box in the input, score, coefficients)] by falling score, one row and one pair at a time, as YOLOv5 does."""
    people = []
    for row in rows:
        classes = [float(value) for value in row[5:-32]]
        best = max(range(len(classes)), key=lambda kind: (classes[kind], -kind))
        score = np.float32(row[4] * row[5 + best])
        if best == person and score >= least:
            x, y, w, h = (float(value) for value in row[:4])
            people.append(((x - w / 2, y - h / 2, x + w / 2, y + h / 2), score, row[-32:]))
    kept = []
    for one in sorted(people, key=lambda one: -one[1]):
        if all(iou(one[0], other[0]) <= threshold for other in kept):
            kept.append(one)
    return kept


def slow_mask(coefficients, planes, box, letterbox):
    """bool[H, W]: the logits at each pixel's centre, interpolated between the cells of the prototypes, within a box."""
    logits = np.tensordot(coefficients.astype(float), planes.astype(float), 1)
    mask = np.zeros((letterbox.height, letterbox.width), bool)
    for y in range(letterbox.height):
        for x in range(letterbox.width):
            if not (box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3]):
                continue
            u = min(max((letterbox.left + (x + 0.5) * letterbox.scale_x) / 4 - 0.5, 0), logits.shape[1] - 1)
            v = min(max((letterbox.top + (y + 0.5) * letterbox.scale_y) / 4 - 0.5, 0), logits.shape[0] - 1)
            i, j = int(u), int(v)
            k, m = min(i + 1, logits.shape[1] - 1), min(j + 1, logits.shape[0] - 1)
            above = logits[j, i] * (1 - u + i) + logits[j, k] * (u - i)
            below = logits[m, i] * (1 - u + i) + logits[m, k] * (u - i)
            mask[y, x] = above * (1 - v + j) + below * (v - j) > 0
    return mask


def agree(found, expected, planes, letterbox):
    """Boxes, scores and masks of `expected` [(box in the input, score, coefficients)] are those found."""
    left, height, width = list(range(len(found))), letterbox.height, letterbox.width
    for box, score, coefficients in expected:
        moved = np.subtract(box, (letterbox.left, letterbox.top) * 2) / ((letterbox.scale_x, letterbox.scale_y) * 2)
        x0, y0, x1, y1 = np.clip(moved, 0, (width, height) * 2)
        if not (x0 < x1 and y0 < y1):
            continue
        mask = slow_mask(coefficients, planes, (x0, y0, x1, y1), letterbox)
        if not left or found.scores[left[0]] != score:
            # A line of pixels at the box's edge may lie outside its outermost samples.
            thin = min(mask.any(axis=0).sum(), mask.any(axis=1).sum()) <= 1
            assert thin or mask.sum() < 4, f"a person of score {score} is missing"
            continue
        index = left.pop(0)
        np.testing.assert_allclose(found.boxes[index], (x0, y0, x1, y1), rtol=1e-5, atol=1e-4)
        ours = found.masks.mask_at(index, height, width)
        # Sampled over the box at four samples a cell and interpolated again: the outline moves by a part of a pixel.
        assert (ours != mask).sum() <= max(2, 0.02 * mask.size**0.5 * mask.sum() ** 0.5), f"person {index}"
    assert not left and len(found) > 1


@pytest.mark.parametrize("letterbox", [SAME, FRAME])
@pytest.mark.parametrize("classes", [1, 3, 80])
def test_v5_equals_one_row_at_a_time(info, rng, classes, letterbox):
    rows = rng.random((1, ROWS, 5 + classes + 32), np.float32)
    rows[0, :, :4] *= np.float32([96, 64, 40, 40])
    rows[0, :, 2:4] += 4
    rows[0, :, 5 : 5 + classes] **= 1 if classes < 80 else 40  # so that some are surely people
    rows[0, :, -32:] -= 0.5
    planes = prototypes(rng)
    person = min(1, classes - 1)
    info = dataclasses.replace(info, person_class=person, iou_threshold=0.45)
    found = open_adapter(info).decode([rows, planes], letterbox)
    agree(found, slow_v5(rows[0], person, np.float32(0.25), 0.45), planes[0], letterbox)


@pytest.mark.parametrize("letterbox", [SAME, FRAME])
@pytest.mark.parametrize("count", [20, 300, 301])
def test_after_nms_equals_one_row_at_a_time(info, rng, count, letterbox):
    rows = np.zeros((1, count, 38), np.float32)
    corner = rng.random((count, 2), np.float32) * np.float32([80, 50])
    rows[0, :, :4] = np.concatenate([corner, corner + 4 + rng.random((count, 2), np.float32) * 30], axis=1)
    rows[0, :, 4] = rng.random(count, np.float32)
    rows[0, :, 5] = rng.integers(0, 3, count)
    rows[0, :, 6:] = rng.normal(size=(count, 32))
    planes = prototypes(rng)
    chosen = [row for row in rows[0] if row[5] == 1 and row[4] >= np.float32(0.25)]
    expected = [(tuple(map(float, row[:4])), row[4], row[6:]) for row in sorted(chosen, key=lambda row: -row[4])]
    agree(open_adapter(info).decode([rows, planes], letterbox), expected, planes[0], letterbox)


@pytest.mark.parametrize(
    ("objectness", "scores", "score"),
    [
        (0.8, (0.1, 0.9, 0.2), 0.72),
        (0.5, (0, 0.5, 0), 0.25),
        (0.5, (0, 0.4999, 0), None),
        (0.2, (0, 1, 0), None),
        (0.9, (0.95, 0.9, 0), None),  # the best class is another one
        (0.9, (0.9, 0.9, 0), None),  # a tie goes to the first
        (0, (0, 1, 0), None),
    ],
)
def test_a_score_of_v5_is_objectness_times_class(info, objectness, scores, score):
    found = open_adapter(info).decode(v5(((48, 32, 20, 30), objectness, scores, 9)), SAME)
    np.testing.assert_allclose(found.scores, [] if score is None else [score], rtol=1e-6)
    assert found.boxes.tolist() == ([] if score is None else [[38, 17, 58, 47]])


def test_with_one_class_the_rows_tell_v5_from_an_export_with_nms(info):
    adapter = open_adapter(dataclasses.replace(info, person_class=0))
    anchored = v5(((48, 32, 20, 30), 0.9, (0.5,), 9), classes=1)
    assert adapter.decode(anchored, SAME).boxes.tolist() == [[38, 17, 58, 47]]
    done = after_nms(((48, 32, 68, 62), 0.9, 0, 9))
    assert anchored[0].shape[2] == done[0].shape[2] == 38
    assert adapter.decode(done, SAME).boxes.tolist() == [[48, 32, 68, 62]]


def test_after_nms_nobody_is_suppressed_again_and_order_is_by_score(info):
    same = (10, 10, 30, 40)
    people = [(same, 0.6, 1, 9), (same, 0.9, 1, 9), (same, 0.7, 2, 9), (same, 0.2, 1, 9), (same, 0.8, 1, -9)]
    found = open_adapter(info).decode(after_nms(*people), SAME)
    assert found.scores.tolist() == [np.float32(0.9), np.float32(0.6)] and not found.truncated
    limited = open_adapter(dataclasses.replace(info, max_persons=1)).decode(after_nms(*people), SAME)
    assert limited.scores.tolist() == [np.float32(0.9)] and limited.truncated


@pytest.mark.parametrize("min_score", [None, 0.0])
@pytest.mark.parametrize("made", [v5(), after_nms(), after_nms(count=0)])
def test_nothing_found(info, made, min_score):
    found = open_adapter(info).decode(made, SAME, min_score)
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,) and len(found.masks) == 0
    assert not found.truncated


def test_outputs_in_half_precision(info):
    for made in (v5(((48, 32, 20, 30), 0.5, (0, 0.75, 0), 9)), after_nms(((38, 17, 58, 47), 0.375, 1, 9))):
        found = open_adapter(info).decode([output.astype(np.float16) for output in made], SAME)
        assert found.boxes.tolist() == [[38, 17, 58, 47]] and found.scores.tolist() == [0.375]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("made", [v5, after_nms])
def test_outputs_that_are_not_finite(info, made, value):
    for which in (0, 1):
        outputs = made()
        outputs[which][0, 7, 3] = value
        with pytest.raises(NonFiniteOutput, match=f"output 'output{which}'"):
            open_adapter(info).decode(outputs, SAME)


@pytest.mark.parametrize(
    ("predictions", "person"),
    [
        ((1, ROWS, 37), 0),  # no class
        ((1, ROWS, 40), 3),  # classes 0..2
        ((2, ROWS, 40), 1),
        ((1, 300, 37), 1),
        ((300, 38), 1),
    ],
)
def test_outputs_of_other_shapes(info, predictions, person):
    adapter = open_adapter(dataclasses.replace(info, person_class=person))
    # What is neither is taken for v8's layout, whose rows are too few here.
    made = np.zeros(predictions, np.float32)
    if predictions == (1, 300, 37):
        made = made.transpose(0, 2, 1)
    with pytest.raises(ShapeError, match="segmenter outputs: expected"):
        adapter.decode([made, prototypes()], SAME)
