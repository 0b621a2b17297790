"""Decoding of detections that are written by hand, against one pixel at a time."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from graftsdk.errors import InputError, NonFiniteOutput, ShapeError
from graftsdk.plan.manifest import SegmenterInfo
from graftsdk.segment import open_adapter
from graftsdk.segment.letterbox import Letterbox

HEIGHT, WIDTH = 64, 96
SAME = Letterbox.fit((HEIGHT, WIDTH), (HEIGHT, WIDTH), centred=False)


@pytest.fixture
def info():
    """What the manifest would say of torchvision's network with an input of 64 x 96."""
    outputs = ("boxes", "labels", "scores", "masks")
    return SegmenterInfo("part", "maskrcnn", "images", (HEIGHT, WIDTH), outputs, 1, 0.5, 0.5)


@pytest.fixture
def adapter(info):
    return open_adapter(info)


def outputs(*people):
    """One person: box, label, score, mask [H, W] or a value that it has inside its box."""
    boxes = np.array([box for box, _, _, _ in people], np.float32).reshape(-1, 4)
    masks = np.zeros((len(people), 1, HEIGHT, WIDTH), np.float32)
    for index, (box, _, _, mask) in enumerate(people):
        x0, y0, x1, y1 = np.clip(box, 0, (WIDTH, HEIGHT) * 2).astype(int)
        if np.ndim(mask):
            masks[index, 0] = mask
        else:
            masks[index, 0, y0 : y1 + 1, x0 : x1 + 1] = mask
    labels = np.array([label for _, label, _, _ in people], np.int64)
    return [boxes, labels, np.array([score for _, _, score, _ in people], np.float32), masks]


def slow_decode(made, letterbox, least=0.5, person=1):
    """[(box, score, bool[H, W])], one detection and one pixel at a time."""
    found = []
    for box, label, score, (mask,) in sorted(zip(*made, strict=True), key=lambda one: -one[2]):
        if label != person or score < least:
            continue
        x0, x1 = (min(max(float(x) / letterbox.scale_x, 0), letterbox.width) for x in box[::2])
        y0, y1 = (min(max(float(y) / letterbox.scale_y, 0), letterbox.height) for y in box[1::2])
        if x0 >= x1 or y0 >= y1:
            continue
        left, right = int(np.floor(x0 * letterbox.scale_x + 1e-5)), int(np.ceil(x1 * letterbox.scale_x - 1e-5))
        top, bottom = int(np.floor(y0 * letterbox.scale_y + 1e-5)), int(np.ceil(y1 * letterbox.scale_y - 1e-5))
        covered = np.zeros((letterbox.height, letterbox.width), bool)
        for y in range(letterbox.height):
            for x in range(letterbox.width):
                u, v = (x + 0.5) * letterbox.scale_x, (y + 0.5) * letterbox.scale_y
                if not (left <= u < right and top <= v < bottom):
                    continue
                u, v = min(max(u - 0.5, left), right - 1), min(max(v - 0.5, top), bottom - 1)
                i, j = int(u), int(v)
                k, m = min(i + 1, right - 1), min(j + 1, bottom - 1)
                above = float(mask[j, i]) * (1 - u + i) + float(mask[j, k]) * (u - i)
                below = float(mask[m, i]) * (1 - u + i) + float(mask[m, k]) * (u - i)
                covered[y, x] = above * (1 - v + j) + below * (v - j) > 0.5
        if covered.any():
            found.append(((x0, y0, x1, y1), score, covered))
    return found


@pytest.mark.parametrize("image_size", [(64, 96), (90, 60), (40, 100), (37, 41)])
def test_it_equals_one_pixel_at_a_time(adapter, rng, image_size):
    letterbox = Letterbox.fit(image_size, (HEIGHT, WIDTH), centred=False)
    people = []
    for _ in range(12):
        corner = rng.random(2) * (letterbox.inner_width, letterbox.inner_height) - 4
        box = np.float32([*corner, *(corner + 1 + rng.random(2) * 40)])
        mask = cv2.resize(rng.random((8, 12)), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        people.append((box, int(rng.integers(1, 3)), rng.random(), mask))
    made = outputs(*people)
    found, expected = adapter.decode(made, letterbox, 0.2), slow_decode(made, letterbox, 0.2)
    assert len(found) == len(found.masks) == len(expected) > 1
    np.testing.assert_allclose(found.boxes, [box for box, _, _ in expected], rtol=1e-6, atol=1e-5)
    assert found.scores.tolist() == [score for _, score, _ in expected]
    for index, (_, _, covered) in enumerate(expected):
        different = found.masks.mask_at(index, *image_size) != covered
        assert different.sum() <= 1  # a value of one half


def test_an_image_of_the_inputs_size_has_the_networks_own_pixels(adapter, rng):
    mask = rng.random((HEIGHT, WIDTH), np.float32)
    found = adapter.decode(outputs(((10, 5, 50, 60), 1, 0.9, mask)), SAME)
    expected = np.zeros_like(mask, bool)
    expected[5:60, 10:50] = mask[5:60, 10:50] > 0.5
    np.testing.assert_array_equal(found.masks.mask_at(0, HEIGHT, WIDTH), expected)
    np.testing.assert_array_equal(found.masks[0], mask[5:60, 10:50])
    assert found.masks.extents.tolist() == found.boxes.tolist() == [[10, 5, 50, 60]]


def test_a_mask_does_not_hold_the_frame_that_it_was_cut_from(adapter):
    made = outputs(((10, 5, 50, 60), 1, 0.9, 1.0))
    mask = adapter.decode(made, SAME).masks[0]
    assert mask.base is None and not np.shares_memory(mask, made[3])


@pytest.mark.parametrize(
    ("label", "score", "min_score", "count"),
    [
        (1, 0.5, None, 1),
        (1, 0.49, None, 0),
        (1, 0.49, 0.3, 1),
        (1, 0.9, 0.95, 0),
        (2, 0.9, None, 0),
        (0, 0.9, None, 0),
    ],
)
def test_the_person_must_reach_the_score(adapter, label, score, min_score, count):
    assert len(adapter.decode(outputs(((10, 5, 50, 60), label, score, 1.0)), SAME, min_score)) == count


def test_another_class_may_be_the_person(info):
    adapter = open_adapter(dataclasses.replace(info, person_class=3))
    found = adapter.decode(outputs(((1, 1, 9, 9), 1, 0.9, 1.0), ((1, 1, 8, 9), 3, 0.8, 1.0)), SAME)
    assert found.boxes.tolist() == [[1, 1, 8, 9]]


@pytest.mark.parametrize(("batched", "dtype"), [(True, np.int64), (False, np.int32)])
def test_nothing_found(info, batched, dtype):
    adapter = open_adapter(dataclasses.replace(info, batched=batched))
    made = outputs()
    made[1] = made[1].astype(dtype)
    found = adapter.decode(made, SAME)
    assert found.boxes.shape == (0, 4) and found.boxes.dtype == np.float32
    assert found.scores.shape == (0,) and found.scores.dtype == np.float32
    assert len(found.masks) == 0 and not found.truncated


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-20, -5, 30.5, 30), [0, 0, 30.5, 30]),
        ((90, 60, 200, 200), [90, 60, 96, 64]),
        ((10, 10, 10, 30), None),
        ((30, 30, 10, 10), None),
        ((96, 10, 120, 30), None),
        ((-50, 10, 0, 30), None),
        ((95.9999, 63.9999, 96, 64), [95.9999, 63.9999, 96, 64]),
        ((0, 0, 3e38, 3e38), [0, 0, 96, 64]),
    ],
)
def test_boxes_of_any_kind(adapter, box, expected):
    with np.errstate(all="raise"):
        found = adapter.decode(outputs((box, 1, 0.9, np.ones((HEIGHT, WIDTH)))), SAME)
    np.testing.assert_allclose(found.boxes, [expected] if expected else np.empty((0, 4)), rtol=1e-6)
    assert all(found.masks.mask_at(index, HEIGHT, WIDTH).any() for index in range(len(found)))


def test_a_mask_that_is_empty_inside_its_box_is_dropped_and_nobody_takes_its_place(info):
    beside = np.zeros((HEIGHT, WIDTH))
    beside[:, 60:] = 1
    people = [
        ((10, 10, 40, 40), 1, 0.9, beside),
        ((10, 10, 40, 40), 1, 0.8, 0.5),  # not above one half
        ((50, 10, 70, 40), 1, 0.7, beside),
        ((50, 10, 80, 40), 1, 0.6, beside),
    ]
    adapter = open_adapter(dataclasses.replace(info, max_persons=3))
    found = adapter.decode(outputs(*people), SAME)
    assert found.scores.tolist() == [np.float32(0.7)] and found.truncated


def test_a_mask_that_falls_between_the_pixels_is_dropped(adapter):
    lone = np.zeros((HEIGHT, WIDTH))
    lone[33, 33] = 0.6
    made = outputs(((0, 0, 64, 64), 1, 0.9, lone))
    assert len(adapter.decode(made, SAME)) == 1
    assert len(adapter.decode(made, Letterbox.fit((16, 16), (HEIGHT, WIDTH), centred=False))) == 0


@pytest.mark.parametrize(("limit", "count", "truncated"), [(300, 300, False), (300, 301, True), (1, 2, True)])
def test_hundreds_of_detections_in_any_order(info, rng, limit, count, truncated):
    scores = rng.permutation(np.linspace(0.5, 0.99, count, dtype=np.float32))
    made = outputs(*[((9, 9, 20, 20), 1, score, 1.0) for score in scores])
    found = open_adapter(dataclasses.replace(info, max_persons=limit)).decode(made, SAME)
    assert (len(found), found.truncated) == (limit, truncated)
    assert found.scores.tolist() == sorted(scores.tolist(), reverse=True)[:limit]


def test_labels_and_scores_may_come_the_other_way(adapter):
    boxes, labels, scores, masks = outputs(((10, 5, 50, 60), 1, 0.9, 1.0))
    assert adapter.decode([boxes, scores, labels, masks], SAME).scores.tolist() == [np.float32(0.9)]


def test_outputs_in_half_precision(adapter):
    boxes, labels, scores, masks = outputs(((10, 5, 50, 60), 1, 0.75, 1.0))
    found = adapter.decode([boxes.astype("f2"), labels, scores.astype("f2"), masks.astype("f2")], SAME)
    assert found.boxes.tolist() == [[10, 5, 50, 60]] and found.masks[0].dtype == np.float32


def test_what_rounding_adds_to_a_probability_is_taken_away(adapter):
    found = adapter.decode(outputs(((10, 5, 50, 60), 1, 0.9, 1.0000001)), SAME)
    assert found.masks[0].max() == 1


@pytest.mark.parametrize("mask", [20.0, -3.0])
def test_masks_without_a_sigmoid(adapter, mask):
    with pytest.raises(InputError, match="output 'masks': expected probabilities from 0 to 1, found .*its sigmoid"):
        adapter.decode(outputs(((10, 5, 50, 60), 1, 0.9, mask)), SAME)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("which", "name"), [(0, "boxes"), (2, "scores"), (3, "masks")])
def test_outputs_that_are_not_finite(adapter, which, name, value):
    made = outputs(((10, 5, 50, 60), 1, 0.9, 1.0), ((10, 5, 50, 60), 1, 0.8, 1.0))
    made[which][(1, *[(0, 20, 20)[axis] for axis in range(made[which].ndim - 1)])] = value
    with pytest.raises(NonFiniteOutput, match=f"output '{name}'"):
        adapter.decode(made, SAME)


@pytest.mark.parametrize(
    "change",
    [
        lambda b, n, s, m: [b, n, s],
        lambda b, n, s, m: [],
        lambda b, n, s, m: [m, n, s, b],
        lambda b, n, s, m: [b[:1], n, s, m],
        lambda b, n, s, m: [b, n, s, m[:1]],
        lambda b, n, s, m: [b[:, :3], n, s, m],
        lambda b, n, s, m: [b, n[:, None], s, m],
        lambda b, n, s, m: [b, n, s, m[:, 0]],
        lambda b, n, s, m: [b, n, s, m[..., :28, :28]],
        lambda b, n, s, m: [b, n, s, m.transpose(0, 1, 3, 2)],
        lambda b, n, s, m: [b, n, s, m.repeat(2, 1)],
    ],
)
def test_outputs_of_other_shapes(adapter, change):
    made = outputs(((10, 5, 50, 60), 1, 0.9, 1.0), ((10, 5, 50, 60), 1, 0.8, 1.0))
    with pytest.raises(ShapeError, match=r"segmenter outputs: expected boxes \[n, 4\].*\[n, 1, 64, 96\], found"):
        adapter.decode(change(*made), SAME)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("image_size", "inner"), [((64, 96), (64, 96)), ((128, 96), (64, 48)), ((10, 40), (24, 96))])
def test_prepare_puts_the_image_top_left_on_the_mean_colour(info, rng, batched, image_size, inner):
    image = rng.integers(0, 256, (*image_size, 3), dtype=np.uint8)
    adapter = open_adapter(dataclasses.replace(info, batched=batched))
    feed, geometry = adapter.prepare(image)
    assert feed.shape == ((1, 3, 64, 96) if batched else (3, 64, 96)) and feed.dtype == np.float32
    assert feed.flags.c_contiguous
    planes = feed.reshape(3, 64, 96)
    resized = cv2.resize(image, inner[::-1], interpolation=cv2.INTER_LINEAR)[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(planes[:, : inner[0], : inner[1]], resized.astype(np.float32) / 255)
    for plane, mean, std in zip(planes, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True):
        normalised = (plane - np.float32(mean)) / np.float32(std)  # as the network does: its own padding is 0
        assert (normalised[inner[0] :] == 0).all() and (normalised[:, inner[1] :] == 0).all()
    assert (geometry.top, geometry.left) == (0, 0)
