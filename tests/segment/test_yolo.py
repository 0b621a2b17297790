"""Decoding of outputs that are written by hand."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftsdk.errors import GraftError, NonFiniteOutput, ShapeError
from graftsdk.preprocess import BoxMasks
from graftsdk.segment import MAX_PERSONS, open_adapter
from graftsdk.segment.letterbox import Letterbox

SIDES = st.integers(16, 3000)


def outputs(*people, classes=3, prototypes=None):
    """predictions and prototypes of a 64 x 96 input; one person: (cx, cy, w, h), class scores, coefficients."""
    predictions = np.zeros((1, 4 + classes + 32, max(126, len(people))), np.float32)
    for index, (box, scores, coefficients) in enumerate(people):
        predictions[0, :4, index] = box
        predictions[0, 4 : 4 + classes, index] = scores
        predictions[0, -32 : -32 + len(coefficients), index] = coefficients
    if prototypes is None:
        prototypes = np.zeros((1, 32, 16, 24), np.float32)
        prototypes[0, 0] = 1  # everywhere
        prototypes[0, 1, :, :12] = 1  # the left half
    return [predictions, prototypes]


@pytest.fixture
def adapter(info):
    return open_adapter(info)


SAME = Letterbox.fit((64, 96), (64, 96))


def test_one_person(adapter):
    found = adapter.decode(outputs(((48, 32, 20, 30), (0.1, 0.8, 0.2), (9,))), SAME)
    assert found.boxes.tolist() == [[38, 17, 58, 47]]
    assert found.scores.tolist() == [np.float32(0.8)]
    assert not found.truncated and len(found) == 1
    assert isinstance(found.masks, BoxMasks)
    assert found.masks.extents.tolist() == found.boxes.tolist()
    assert found.masks[0].shape == (30, 20) and found.masks[0].dtype == np.float32  # one for each pixel of the input
    np.testing.assert_allclose(found.masks[0], 0.5 + 9 / 64, rtol=1e-6)


@pytest.mark.parametrize(
    ("scores", "count"),
    [
        ((0, 0.25, 0), 1),
        ((0, 0.2499, 0), 0),
        ((0.9, 0.8, 0), 0),  # the best class is another one
        ((0, 0.8, 0.81), 0),
        ((0.8, 0.8, 0), 0),  # a tie goes to the first class, as argmax says
        ((0, 0.8, 0.8), 1),
    ],
)
def test_the_best_class_must_be_the_person_and_reach_the_score(adapter, scores, count):
    assert len(adapter.decode(outputs(((48, 32, 20, 30), scores, (9,))), SAME)) == count


def test_min_score_replaces_the_segmenters(adapter):
    made = outputs(((48, 32, 20, 30), (0, 0.1, 0), (9,)), ((20, 32, 20, 30), (0, 0.6, 0), (9,)))
    assert adapter.decode(made, SAME).scores.tolist() == [np.float32(0.6)]
    assert len(adapter.decode(made, SAME, min_score=0.05)) == 2
    assert len(adapter.decode(made, SAME, min_score=0.7)) == 0


def test_nothing_found(adapter):
    found = adapter.decode(outputs(), SAME)
    assert found.boxes.shape == (0, 4) and found.boxes.dtype == np.float32
    assert found.scores.shape == (0,) and found.scores.dtype == np.float32
    assert len(found.masks) == 0 and not found.truncated


def test_overlapping_boxes_give_one_person_and_order_is_by_score(adapter):
    people = [
        ((30, 32, 20, 30), (0, 0.5, 0), (9,)),
        ((70, 32, 20, 30), (0, 0.7, 0), (9,)),
        ((31, 32, 20, 30), (0, 0.9, 0), (9,)),
        ((31, 32, 20, 30), (0.95, 0, 0), (9,)),  # another class suppresses nobody
    ]
    found = adapter.decode(outputs(*people), SAME)
    np.testing.assert_allclose(found.scores, [0.9, 0.7])
    assert found.boxes[:, 0].tolist() == [21, 60]


def test_boxes_are_clamped_and_dropped_beyond_the_image(adapter):
    image_size = (64, 48)  # in the middle of the input: 24 columns of border on each side
    box = Letterbox.fit(image_size, (64, 96))
    assert (box.left, box.top, box.inner_width) == (24, 0, 48)
    people = [
        ((24, 32, 20, 100), (0, 0.9, 0), (9,)),
        ((10, 32, 20, 30), (0, 0.8, 0), (9,)),  # in the border
        ((50, 32, 0, 30), (0, 0.7, 0), (9,)),  # no width
        ((50, 32, -5, 30), (0, 0.6, 0), (9,)),
        ((50, 32, 20, -30), (0, 0.6, 0), (9,)),
        ((48, -400, 20, 30), (0, 0.6, 0), (9,)),  # far away
        ((3e38, 32, 20, 30), (0, 0.6, 0), (9,)),
    ]
    found = adapter.decode(outputs(*people), box)
    assert found.boxes.tolist() == [[0, 0, 10, 64]]
    assert found.masks.mask_at(0, *image_size)[:, :10].all()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((48, 32, 20, 30), [38, 17, 58, 47]),
        ((0, 0, 20, 30), [0, 0, 10, 15]),
        ((96, 64, 20, 30), [86, 49, 96, 64]),
        ((48, 32, 1e6, 1e6), [0, 0, 96, 64]),
        ((48, 32, 3e38, 3e38), [0, 0, 96, 64]),
        ((3e38, 32, 3e38, 30), None),
        ((48, 32, 0, 30), None),
        ((48, 32, 20, -30), None),
        ((48.5, 32.5, 1.0, 1.0), [48, 32, 49, 33]),
        ((48.5, 32.5, 0.01, 0.01), [48.495, 32.495, 48.505, 32.505]),  # smaller than a pixel, on its centre
        ((48.1, 32.5, 0.01, 0.01), None),  # beside it
        ((48.5, 32.5, 1e-30, 1e-30), None),  # vanishes in float32
        ((48, 32.5, 96, 0.01), [0, 32.495, 96, 32.505]),
        ((96.5, 32, 1, 30), None),  # touches the image's edge
        ((-10, -10, 5, 5), None),
    ],
)
def test_boxes_of_any_kind(adapter, box, expected):
    with np.errstate(all="raise"):
        found = adapter.decode(outputs((box, (0, 0.9, 0), (9,))), SAME)
    np.testing.assert_allclose(found.boxes, [expected] if expected else np.empty((0, 4)), rtol=1e-6)
    for index in range(len(found)):
        assert found.masks.mask_at(index, 64, 96).any()


def test_a_person_without_a_pixel_is_dropped(adapter):
    people = [
        ((70, 32, 20, 30), (0, 0.9, 0), (0, 9)),  # its mask lies in the left half, its box in the right one
        ((20, 32, 20, 30), (0, 0.8, 0), (0, 9)),
        ((48, 32, 20, 30), (0, 0.7, 0), (-9,)),
    ]
    assert adapter.decode(outputs(*people), SAME).scores.tolist() == [np.float32(0.8)]


def test_a_mask_that_falls_between_the_pixels_is_dropped(info):
    # 1 image pixel for 4 x 4 input pixels: a lone strong cell that no pixel centre comes near enough to.
    adapter = open_adapter(dataclasses.replace(info, input_size=(64, 64)))
    prototypes = np.full((1, 32, 16, 16), 0, np.float32)
    prototypes[0, 0] = -9
    prototypes[0, 0, 8, 8] = 3
    made = outputs(((31, 31, 60, 60), (0, 0.9, 0), (1,)), prototypes=prototypes)
    assert len(adapter.decode(made, Letterbox.fit((16, 16), (64, 64)))) == 1  # here cell and pixel coincide
    assert len(adapter.decode(made, Letterbox.fit((17, 17), (64, 64)))) == 0


def test_huge_logits_do_not_overflow(adapter):
    with np.errstate(all="raise"):
        found = adapter.decode(
            outputs(((48, 32, 20, 30), (0, 0.9, 0), (1e9,)), ((20, 32, 20, 30), (0, 0.9, 0), (-1e9,))), SAME
        )
    assert len(found) == 1 and found.masks[0].max() <= 1


def test_masks_that_overflow(adapter):
    prototypes = np.full((1, 32, 16, 24), 3e38, np.float32)
    prototypes[0, 1] *= -1
    made = outputs(((48, 32, 20, 30), (0, 0.9, 0), (3e38, 3e38)), prototypes=prototypes)
    with np.errstate(all="raise"), pytest.raises(NonFiniteOutput, match="segmenter masks: expected finite sums"):
        adapter.decode(made, SAME)


@pytest.mark.parametrize(
    ("limit", "count", "truncated"),
    [
        (1, 1, False),
        (1, 2, True),
        (300, 300, False),
        (300, 301, True),
        (300, 500, True),
        (MAX_PERSONS, MAX_PERSONS, False),
        (MAX_PERSONS, MAX_PERSONS + 1, True),
        (MAX_PERSONS, MAX_PERSONS + 9, True),
    ],
)
def test_at_most_so_many_people(info, limit, count, truncated):
    adapter = open_adapter(dataclasses.replace(info, iou_threshold=1.0, max_persons=limit))
    scores = np.linspace(0.9, 0.3, count, dtype=np.float32)
    people = [((48, 32, 4, 4), (0, score, 0), (9,)) for score in scores[::-1]]
    found = adapter.decode(outputs(*people), SAME)
    assert len(found) == len(found.masks) == min(limit, count) and found.truncated is truncated
    assert found.scores.tolist() == scores[:limit].tolist()


def test_nobody_takes_the_place_of_a_person_without_a_pixel(info):
    adapter = open_adapter(dataclasses.replace(info, max_persons=2))
    people = [
        ((20, 32, 10, 10), (0, 0.9, 0), (9,)),
        ((40, 32, 10, 10), (0, 0.8, 0), (-9,)),
        ((60, 32, 10, 10), (0, 0.7, 0), (9,)),
        ((60, 500, 10, 10), (0, 0.95, 0), (9,)),  # outside: nobody, and in nobody's way
    ]
    found = adapter.decode(outputs(*people), SAME)
    assert found.scores.tolist() == [np.float32(0.9)] and found.truncated


CROWD = {  # 8400 candidates above the threshold: centres x and y, width, height, first coefficient
    "all the same": lambda rng: (np.full(8400, 48), np.full(8400, 32), 20, 30, 9),
    "all apart": lambda rng: (np.arange(8400) % 100 * 0.96 + 0.5, np.arange(8400) // 100 * 0.76, 0.9, 0.7, 9),
    "all over": lambda rng: (rng.random(8400) * 96, rng.random(8400) * 64, rng.random(8400) * 90 + 4, 30, 9),
    "all over, without a pixel": lambda rng: (
        rng.random(8400) * 96,
        rng.random(8400) * 64,
        rng.random(8400) * 90,
        30,
        -9,
    ),
    "all outside": lambda rng: (np.full(8400, -48), np.full(8400, 32), 20, 30, 9),
    "all inverted": lambda rng: (np.full(8400, 48), np.full(8400, 32), -20, -30, 9),
}


@pytest.mark.parametrize(
    ("crowd", "count", "truncated"),
    [
        ("all the same", 1, False),
        ("all apart", 300, True),
        ("all over", 300, True),
        ("all over, without a pixel", 0, True),
        ("all outside", 0, False),
        ("all inverted", 0, False),
    ],
)
@pytest.mark.parametrize("image_size", [(640, 960), (4000, 6000)])
def test_a_network_that_sees_people_everywhere(adapter, rng, crowd, count, truncated, image_size):
    made = outputs(*[((0, 0, 0, 0), (0, 0, 0), ())] * 8400)
    for row, values in enumerate(CROWD[crowd](rng)[:4]):
        made[0][0, row] = values
    made[0][0, 5] = np.linspace(0.9, 0.3, 8400)
    made[0][0, -32] = CROWD[crowd](rng)[4]
    found = adapter.decode(made, Letterbox.fit(image_size, (64, 96)))
    assert (len(found), found.truncated) == (count, truncated)
    assert (np.diff(found.scores) <= 0).all()


def test_outputs_in_half_precision(adapter):
    made = outputs(((48, 32, 20, 30), (0.1, 0.75, 0.2), (9,)))
    found = adapter.decode([output.astype(np.float16) for output in made], SAME)
    assert found.boxes.tolist() == [[38, 17, 58, 47]] and found.scores.dtype == np.float32
    assert found.masks[0].tobytes() == adapter.decode(made, SAME).masks[0].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_outputs_that_are_not_finite(adapter, which, value):
    made = outputs(((48, 32, 20, 30), (0, 0.9, 0), (9,)))
    made[which][0, 5, 3] = value
    with pytest.raises(NonFiniteOutput, match=f"output 'output{which}'"):
        adapter.decode(made, SAME)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made[:1],
        lambda made: made[::-1],
        lambda made: [made[0][0], made[1]],
        lambda made: [made[0].repeat(2, 0), made[1]],
        lambda made: [made[0][:, :37], made[1]],
        lambda made: [made[0], made[1][:, :, :8]],
        lambda made: [],
        lambda made: [*made, made[0]],
        lambda made: [made[0], made[1][:, :16]],
        lambda made: [made[0].transpose(0, 2, 1)[:, :30], made[1]],
        lambda made: [np.float32(0), made[1]],
    ],
)
def test_outputs_of_other_shapes(adapter, change):
    with pytest.raises(GraftError, match="segmenter outputs: expected") as caught:
        adapter.decode(change(outputs()), SAME)
    assert type(caught.value) is ShapeError


@pytest.mark.parametrize(
    ("image_size", "inner", "top", "left"),
    [
        ((1080, 810), (640, 480), 0, 80),
        ((720, 1280), (360, 640), 140, 0),
        ((640, 427), (640, 427), 0, 106),  # 213 columns of border: the odd one on the right
        ((16, 16), (640, 640), 0, 0),
        ((16, 16384), (1, 640), 319, 0),
    ],
)
def test_letterbox(image_size, inner, top, left):
    box = Letterbox.fit(image_size, (640, 640))
    assert ((box.inner_height, box.inner_width), box.top, box.left) == (inner, top, left)


@given(SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_a_letterbox_is_undone_within_half_a_pixel(height, width, seed):
    box = Letterbox.fit((height, width), (640, 640))
    assert box.top + box.inner_height <= 640 and box.left + box.inner_width <= 640
    corners = np.random.default_rng(seed).random((5, 4)) * (width, height, width, height)
    scale = (box.scale_x, box.scale_y) * 2
    there = corners * scale + (box.left, box.top) * 2
    assert np.abs(box.to_image(there) - corners).max() <= 0.5
    frame = np.array([[box.left, box.top, box.left + box.inner_width, box.top + box.inner_height]])
    np.testing.assert_allclose(box.to_image(frame), [[0, 0, width, height]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("image_size", [(64, 96), (100, 37), (37, 100), (640, 427), (17, 16)])
def test_prepare_is_ultralytics_letterbox(adapter, image_size, rng):
    image = rng.integers(0, 256, (*image_size, 3), dtype=np.uint8)
    feed, _ = adapter.prepare(image)
    ratio = min(64 / image_size[0], 96 / image_size[1])
    size = round(image_size[1] * ratio), round(image_size[0] * ratio)
    across, down = (96 - size[0]) / 2, (64 - size[1]) / 2
    inner = image if size[::-1] == image_size else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    edges = round(down - 0.1), round(down + 0.1), round(across - 0.1), round(across + 0.1)
    framed = cv2.copyMakeBorder(inner, *edges, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    expected = np.ascontiguousarray(framed[:, :, ::-1].transpose(2, 0, 1))[None].astype(np.float32) / 255
    assert feed.dtype == np.float32 and feed.flags.c_contiguous
    assert feed.tobytes() == expected.tobytes()


def test_strides_of_the_image_do_not_matter(adapter, rng):
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    turned = image[::-1, ::-1].copy()[::-1, ::-1]
    turned.flags.writeable = False
    assert adapter.prepare(turned)[0].tobytes() == adapter.prepare(image)[0].tobytes()
