"""Decoding of outputs that are written by hand."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from graftsdk.errors import GraftError, InputError, NonFiniteOutput, ShapeError
from graftsdk.plan.manifest import MAX_PERSONS, SegmenterInfo
from graftsdk.preprocess import CropSpec, mask_crop, mask_crop_reference
from graftsdk.segment import open_adapter, recognise
from graftsdk.segment.yolact import MEAN, STD, YolactAdapter, decode_boxes

HEIGHT, WIDTH = 64, 96
SAME = (HEIGHT, WIDTH)  # an image of the input's size


@pytest.fixture
def info():
    """What the manifest would say of a network with 64 x 96 inputs and three classes, the person in the middle."""
    return SegmenterInfo(
        part="segmenter",
        family="yolact",
        input="images",
        input_size=(HEIGHT, WIDTH),
        outputs=("loc", "conf", "mask", "priors", "proto"),
        person_class=1,
        score_threshold=0.15,
        iou_threshold=0.5,
    )


@pytest.fixture
def adapter(info):
    return YolactAdapter(info)


def outputs(*people, prototypes=None, count=9):
    """The five outputs; one person: (cx, cy, w, h) in pixels, scores without background, first coefficients.

    Their priors are their boxes. The first of four prototypes is 1 everywhere, the second in the left half; 16 x 24.
    """
    count = max(count, len(people))
    loc, conf = np.zeros((1, count, 4), np.float32), np.zeros((1, count, 4), np.float32)
    mask, priors = np.zeros((1, count, 4), np.float32), np.full((count, 4), 0.01, np.float32)
    for index, (box, scores, coefficients) in enumerate(people):
        priors[index] = np.array(box) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
        conf[0, index, 1:] = scores
        mask[0, index, : len(coefficients)] = coefficients
    conf[0, :, 0] = 1 - conf[0, :, 1:].sum(axis=1)
    if prototypes is None:
        prototypes = np.zeros((1, 16, 24, 4), np.float32)
        prototypes[..., 0] = 1
        prototypes[:, :, :12, 1] = 1
    return [loc, conf, mask, priors, prototypes]


def test_one_person(adapter):
    found = adapter.decode(outputs(((48, 32, 20, 30), (0.1, 0.8, 0.05), (2,))), SAME)
    np.testing.assert_allclose(found.boxes, [[38, 17, 58, 47]], rtol=1e-6)
    assert found.scores.tolist() == [np.float32(0.8)] and found.boxes.dtype == found.scores.dtype == np.float32
    assert not found.truncated
    # In cells of 4 pixels the box is 9.5..14.5 x 4.25..11.75: cells 9..15 x 4..12 are the person's, and the ring's:
    assert found.masks.extents.tolist() == [[8 * 4, 3 * 4, 17 * 4, 14 * 4]]
    expected = np.zeros((11, 9), np.float32)
    expected[1:-1, 1:-1] = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(found.masks[0], expected, rtol=1e-6)
    # From 0 at the ring's centres (34 and 14) to 0.88 four pixels on: 0.5 is reached after 2.27 pixels.
    assert np.argwhere(found.masks.mask_at(0, *SAME)).min(axis=0).tolist() == [16, 36]


def test_a_mask_at_the_images_border_has_no_ring_there(adapter):
    found = adapter.decode(outputs(((48, 32, 200, 200), (0, 0.8, 0), (2,)), ((0, 64, 20, 30), (0, 0.7, 0), (2,))), SAME)
    assert found.masks.extents.tolist() == [[0, 0, 96, 64], [0, 44, 20, 64]]
    assert found.masks[0].min() > 0.5 and (found.masks[1][1:, :-1] > 0.5).all()
    assert found.masks[1][0].max() == found.masks[1][:, -1].max() == 0
    assert found.masks.mask_at(0, *SAME).all()


def test_the_formula_of_boxes():
    """By hand: centre .5 + .1 * 2 * .2, .4 - .1 * 3 * .3; sides .2 * e**.2, .3 * e**-.4."""
    boxes = decode_boxes(np.float32([[2, -3, 1, -2]]), np.float32([[0.5, 0.4, 0.2, 0.3]]))
    (x, y), (wide, high) = (0.54, 0.31), (0.2442805516, 0.2010960138)
    np.testing.assert_allclose(boxes, [[x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]], rtol=1e-7)


@pytest.mark.parametrize(
    ("scores", "least", "count"),
    [
        ((0, 0.15, 0), None, 1),
        ((0, 0.1499, 0), None, 0),
        ((0.6, 0.3, 0), None, 1),  # the best class is another one: the person's own score counts
        ((0, 0.3, 0), 0.31, 0),
        ((0, 0.06, 0), 0.01, 1),
        ((0, 0.04, 0), 0.01, 0),  # no class is good enough to take part
        ((0.06, 0.04, 0), 0.01, 1),  # another one is
        ((0, 0.04, 0.06), 0.01, 1),
        ((0.06, 0.04, 0), 0.041, 0),
        ((0.06, 0, 0), 0.0, 1),
        ((0, 0, 0), 0.0, 0),
        ((0, 0.05, 0), 0.05, 0),  # > 0.05 takes part, >= least is given
        ((0.06, 0.05, 0), 0.05, 1),
        ((0, 0.0501, 0), 0.05, 1),
        ((0, 0.0501, 0), 0.0501, 1),
        ((0, 1.0, 0), 1.0, 1),
    ],
)
def test_scores(adapter, scores, least, count):
    assert len(adapter.decode(outputs(((48, 32, 20, 30), scores, (9,))), SAME, least)) == count


def test_nothing_found(adapter):
    found = adapter.decode(outputs(), SAME)
    assert found.boxes.shape == (0, 4) and found.boxes.dtype == np.float32
    assert found.scores.shape == (0,) and found.scores.dtype == np.float32
    assert len(found.masks) == 0 and not found.truncated


CHAIN = [  # each overlaps its neighbours by 60%, the ends by a third
    ((40, 32, 20, 30), (0, 0.9, 0), (9,)),
    ((45, 32, 20, 30), (0.95, 0.8, 0), (9,)),
    ((50, 32, 20, 30), (0, 0.7, 0), (9,)),
]


@pytest.mark.parametrize(("nms", "left"), [("fast", [30]), ("greedy", [30, 40])])
def test_a_box_that_goes_suppresses_others_in_fast_nms_alone(info, nms, left):
    found = YolactAdapter(dataclasses.replace(info, nms=nms)).decode(outputs(*CHAIN[::-1]), SAME)
    np.testing.assert_allclose(found.boxes[:, 0], left, rtol=1e-6)


@pytest.mark.parametrize("nms", ["fast", "greedy"])
def test_order_is_by_score_and_other_classes_suppress_nobody(info, nms):
    people = [
        ((30, 32, 20, 30), (0, 0.5, 0), (9,)),
        ((70, 32, 20, 30), (0, 0.7, 0), (9,)),
        ((31, 32, 20, 30), (0, 0.9, 0), (9,)),
        ((31, 32, 20, 30), (0.95, 0, 0), (9,)),
    ]
    found = YolactAdapter(dataclasses.replace(info, nms=nms)).decode(outputs(*people), SAME)
    np.testing.assert_allclose(found.scores, [0.9, 0.7])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 20, 30), [0, 0, 10, 15]),
        ((96, 64, 20, 30), [86, 49, 96, 64]),
        ((48, 32, 1e6, 1e6), [0, 0, 96, 64]),
        ((48, 32, 0, 30), None),
        ((48, 32, 1e-30, 1e-30), None),  # vanishes in float32
        ((106.5, 32, 20, 30), None),  # outside, nearer than a cell
        ((-10.5, 32, 20, 30), None),
        ((48, -400, 20, 30), None),
        ((48.5, 32.5, 0.01, 0.01), [48.495, 32.495, 48.505, 32.505]),  # its mask is two cells wide
    ],
)
@pytest.mark.parametrize("nms", ["fast", "greedy"])
def test_boxes_are_clamped_and_dropped_beyond_the_image(info, nms, box, expected):
    with np.errstate(all="raise"):
        found = YolactAdapter(dataclasses.replace(info, nms=nms)).decode(outputs((box, (0, 0.9, 0), (9,))), SAME)
    np.testing.assert_allclose(found.boxes, [expected] if expected else np.empty((0, 4)), rtol=1e-5)


@pytest.mark.parametrize("nms", ["fast", "greedy"])
def test_a_box_outside_the_image_suppresses_before_it_is_dropped(info, nms):
    """As in the original; it takes nobody's place either."""
    people = [
        ((-10.5, 32, 20, 30), (0, 0.9, 0), (9,)),
        ((-8, 32, 20, 30), (0, 0.8, 0), (9,)),
        ((40, 32, 20, 30), (0, 0.7, 0), (9,)),
    ]
    adapter = YolactAdapter(dataclasses.replace(info, nms=nms, max_persons=1))
    found = adapter.decode(outputs(*people), SAME)
    assert found.scores.tolist() == [np.float32(0.7)] and not found.truncated


@pytest.mark.parametrize("value", [3e38, -3e38])
@pytest.mark.parametrize("column", range(4))
def test_regressions_without_end(adapter, value, column):
    made = outputs(((48, 32, 20, 30), (0, 0.9, 0), (9,)))
    made[0][0, 0, column] = value
    with np.errstate(all="raise"):
        found = adapter.decode(made, SAME)
    assert len(found) == (column >= 2 and value > 0)  # a box that fills the image; others are far away or vanish


def test_a_person_without_a_pixel_is_dropped(adapter):
    people = [
        ((70, 32, 20, 30), (0, 0.9, 0), (-1, 9)),  # its mask lies in the left half, its box in the right one
        ((20, 32, 20, 30), (0, 0.8, 0), (-1, 9)),
        ((48, 32, 20, 30), (0, 0.7, 0), (-9,)),
        ((48, 10, 20, 10), (0, 0.6, 0), (0,)),  # 0.5 is not above 0.5
    ]
    assert adapter.decode(outputs(*people), SAME).scores.tolist() == [np.float32(0.8)]


def test_a_mask_that_falls_between_the_pixels_is_dropped(adapter):
    prototypes = np.full((1, 16, 24, 4), 0, np.float32)
    prototypes[..., 0] = 1
    prototypes[0, 8, 8, 0] = -0.1
    made = outputs(((34, 34, 30, 30), (0, 0.9, 0), (-9,)), prototypes=prototypes)  # one cell of 0.71
    assert len(adapter.decode(made, (16, 24))) == 1  # here cells and pixels coincide
    assert len(adapter.decode(made, (17, 25))) == 0


def test_huge_logits_do_not_overflow(adapter):
    people = [((48, 32, 20, 30), (0, 0.9, 0), (1e9,)), ((20, 32, 20, 30), (0, 0.9, 0), (-1e9,))]
    with np.errstate(all="raise"):
        found = adapter.decode(outputs(*people), SAME)
    assert len(found) == 1 and found.masks[0].max() == 1


def test_masks_that_overflow(adapter):
    made = outputs(((48, 32, 20, 30), (0, 0.9, 0), (3e38, -3e38)))
    made[4][...] = 3e38
    with np.errstate(all="raise"), pytest.raises(NonFiniteOutput, match="segmenter masks: expected finite sums"):
        adapter.decode(made, SAME)


@pytest.mark.parametrize(
    ("nms", "limit", "count", "given", "truncated"),
    [
        ("fast", 1, 1, 1, False),
        ("fast", 1, 2, 1, True),
        ("fast", 150, 160, 150, True),
        ("fast", 300, 200, 200, False),
        ("fast", 300, 201, 200, True),  # the 200 best take part
        ("greedy", 300, 300, 300, False),
        ("greedy", 300, 301, 300, True),
        ("greedy", MAX_PERSONS, MAX_PERSONS + 9, MAX_PERSONS, True),
    ],
)
def test_at_most_so_many_people(info, nms, limit, count, given, truncated):
    adapter = YolactAdapter(dataclasses.replace(info, nms=nms, max_persons=limit))
    scores = np.linspace(0.9, 0.3, count, dtype=np.float32)
    places = [(2 + 2 * (i % 45), 2 + 2 * (i // 45)) for i in range(count)]
    people = [((*place, 1.5, 1.5), (0, score, 0), (9,)) for place, score in zip(places, scores, strict=True)]
    found = adapter.decode(outputs(*people[::-1]), SAME)
    assert (len(found), len(found.masks), found.truncated) == (given, given, truncated)
    assert found.scores.tolist() == scores[:given].tolist()


def test_many_on_one_person_are_not_too_many(adapter):
    """500 that the 200 best suppress; and 500 that they do not, but that lie outside the image."""
    same = [((48, 32, 20, 30), (0, 0.9, 0), (9,))] * 500
    outside = [((-500, 32, 20, 30), (0, 0.5, 0), (9,))] * 500
    found = adapter.decode(outputs(*same, *outside), SAME)
    assert len(found) == 1 and not found.truncated


def test_nobody_takes_the_place_of_a_person_without_a_pixel(info):
    people = [
        ((20, 32, 10, 10), (0, 0.9, 0), (9,)),
        ((40, 32, 10, 10), (0, 0.8, 0), (-9,)),
        ((60, 32, 10, 10), (0, 0.7, 0), (9,)),
    ]
    found = YolactAdapter(dataclasses.replace(info, max_persons=2)).decode(outputs(*people), SAME)
    assert found.scores.tolist() == [np.float32(0.9)] and found.truncated


@pytest.mark.parametrize("nms", ["fast", "greedy"])
@pytest.mark.parametrize("places", ["same", "apart", "anywhere", "outside"])
def test_a_network_that_sees_people_everywhere(info, rng, nms, places):
    made = outputs(count=19248)
    made[1][0, :, 2] = np.linspace(0.9, 0.3, 19248)
    made[2][0, :, 0] = 9
    made[3][:, :2] = {
        "same": 0.5,
        "apart": np.stack([np.arange(19248) % 139, np.arange(19248) // 139], axis=1) / 139,
        "anywhere": rng.random((19248, 2)),
        "outside": -1,
    }[places]
    made[3][:, 2:] = 0.007 if places == "apart" else 0.1
    found = YolactAdapter(dataclasses.replace(info, nms=nms)).decode(made, (1080, 1920))
    assert (np.diff(found.scores) <= 0).all()
    if places in ("same", "outside"):
        assert (len(found), found.truncated) == (places == "same", False)
    else:
        assert found.truncated and len(found) > (190 if places == "apart" else 40)


def test_outputs_in_half_precision(adapter):
    made = outputs(((48, 32, 24, 32), (0.125, 0.75, 0.0625), (2,)))
    found = adapter.decode([output.astype(np.float16) for output in made], SAME)
    np.testing.assert_allclose(found.boxes, [[36, 16, 60, 48]], rtol=1e-3)
    assert found.scores.tolist() == [0.75] and found.scores.dtype == found.masks[0].dtype == np.float32


def test_outputs_that_are_views(adapter, rng):
    """Reversed, strided and read-only arrays decode like their copies."""
    made = outputs(((48, 32, 24, 32), (0.1, 0.75, 0), (2, 1)), ((20, 32, 24, 32), (0.1, 0.7, 0), (2, 1)))
    made[4] += rng.random(made[4].shape, np.float32)
    views = [np.repeat(output[..., ::-1], 2, axis=-1)[..., ::-2] for output in made]
    for view in views:
        view.flags.writeable = False
    assert not any(view.flags.c_contiguous for view in views)
    found, expected = adapter.decode(views, SAME), adapter.decode(made, SAME)
    assert found.boxes.tobytes() == expected.boxes.tobytes() and len(found) == 2
    np.testing.assert_allclose(found.masks[1], expected.masks[1], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_outputs_that_are_not_finite(adapter, which, value, dtype):
    made = [output.astype(dtype) for output in outputs(((48, 32, 20, 30), (0, 0.9, 0), (9,)))]
    for place in (0, -1):
        spoilt = [output.copy() for output in made]
        spoilt[which].reshape(-1)[place] = value
        name = ("loc", "conf", "mask", "priors", "proto")[which]
        with np.errstate(all="raise"), pytest.raises(NonFiniteOutput, match=f"output '{name}'"):
            adapter.decode(spoilt, SAME)


@pytest.mark.parametrize(
    "change",
    [
        lambda loc, conf, mask, priors, proto: [],
        lambda loc, conf, mask, priors, proto: [loc, conf, mask, priors],
        lambda loc, conf, mask, priors, proto: [loc, conf, mask, priors, proto, proto],
        lambda loc, conf, mask, priors, proto: [conf, loc, mask, priors, proto[..., :3]],
        lambda loc, conf, mask, priors, proto: [loc[0], conf, mask, priors, proto],
        lambda loc, conf, mask, priors, proto: [loc, conf, mask, priors[None], proto],
        lambda loc, conf, mask, priors, proto: [loc[..., :3], conf, mask, priors, proto],
        lambda loc, conf, mask, priors, proto: [loc[:, 1:], conf, mask, priors, proto],
        lambda loc, conf, mask, priors, proto: [loc, conf[:, 1:], mask, priors, proto],
        lambda loc, conf, mask, priors, proto: [loc, conf, mask[:, 1:], priors, proto],
        lambda loc, conf, mask, priors, proto: [loc, conf, mask, priors[1:], proto],
        lambda loc, conf, mask, priors, proto: [loc, conf[..., :2], mask, priors, proto],  # no person
        lambda loc, conf, mask, priors, proto: [loc, conf, mask[..., :3], priors, proto],
        lambda loc, conf, mask, priors, proto: [loc, conf, mask, priors, proto.transpose(0, 3, 1, 2)],
        lambda loc, conf, mask, priors, proto: [loc, conf, mask, priors, proto[:, :0]],
        lambda loc, conf, mask, priors, proto: [loc, conf, mask, priors, proto.repeat(2, 0)],
        lambda loc, conf, mask, priors, proto: [x.repeat(2, 0) for x in (loc, conf, mask, priors, proto)],
        lambda loc, conf, mask, priors, proto: [np.float32(0), conf, mask, priors, proto],
    ],
)
def test_outputs_of_other_shapes(adapter, change):
    with pytest.raises(GraftError, match="segmenter outputs: expected loc") as caught:
        adapter.decode(change(*outputs()), SAME)
    assert type(caught.value) is ShapeError


@pytest.mark.parametrize("size", [(64, 96), (1, 1), (200, 31), (480, 640)])
@pytest.mark.parametrize("form", ["plain", "flipped"])
def test_prepare(adapter, rng, size, form):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    image = image if form == "plain" else image[::-1, ::-1]
    feed, geometry = adapter.prepare(image)
    assert geometry == size and feed.dtype == np.float32 and feed.flags.c_contiguous
    small = cv2.resize(np.ascontiguousarray(image), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    expected = (small[:, :, ::-1].astype(np.float64) - MEAN) / STD
    np.testing.assert_allclose(feed, expected.transpose(2, 0, 1)[None], rtol=0, atol=1e-6)


OUTPUTS = {
    "loc": ["n", 99, 4],
    "conf": ["n", 99, 81],
    "mask": ["n", 99, 32],
    "priors": [99, 4],
    "proto": ["n", 16, 24, 32],
}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, "loc conf mask priors proto"),
        ({"conf": [1, 99, 2]}, "loc conf mask priors proto"),
        ({"conf": [1, 99, 32]}, "loc conf mask priors proto"),  # as many: in the given order
        ({"conf": [1, 99, 4]}, "loc conf mask priors proto"),
        ({"mask": [1, 99, 81], "conf": [1, 99, 32]}, "loc mask conf priors proto"),
        ({"proto": [1, None, "w", 32], "loc": [1, "P", 4]}, "loc conf mask priors proto"),
    ],
)
def test_it_is_told_by_its_shapes(change, names):
    fields = recognise({"images": ["n", 3, 64, 96]}, OUTPUTS | change)
    assert (fields["family"], fields["input_size"]) == ("yolact", (64, 96))
    assert (fields["score_threshold"], fields["iou_threshold"], fields["person_class"]) == (0.15, 0.5, 0)
    assert fields["outputs"] == tuple(names.split())
    shuffled = dict(sorted((OUTPUTS | change).items(), reverse=True))  # proto priors mask loc conf
    if change.get("conf", OUTPUTS["conf"])[-1] not in (32, 4):
        assert recognise({"images": ["n", 3, 64, 96]}, shuffled)["outputs"] == tuple(names.split())
    info = SegmenterInfo(part="segmenter", **fields)
    assert type(open_adapter(info)) is YolactAdapter and info.nms == "greedy"


@pytest.mark.parametrize(
    "change",
    [
        {"priors": [98, 4]},
        {"priors": [99, 5]},
        {"loc": [1, 98, 4]},
        {"conf": [1, 99, 1]},
        {"mask": [1, 99, 31]},
        {"proto": [1, 32, 16, 24]},
        {"proto": [2, 16, 24, 32]},
        {"semantic": [1, 80, 8, 12]},
        {"proto": []},  # too little is said
    ],
)
def test_others_are_not_taken_for_it(change):
    with pytest.raises(InputError, match="segmenter: expected"):
        recognise({"images": ["n", 3, 64, 96]}, OUTPUTS | change)


@pytest.mark.parametrize("image", [[1, 3, 64], [2, 3, 64, 96], [1, 1, 64, 96], []])
def test_its_input_is_an_image(image):
    with pytest.raises(InputError, match="segmenter: expected"):
        recognise({"images": image}, OUTPUTS)


def test_the_normalisation_is_the_originals():
    """config.py of the original, BGR: MEANS = (103.94, 116.78, 123.68), STD = (57.38, 57.12, 58.40)."""
    assert (MEAN[::-1], STD[::-1]) == ((103.94, 116.78, 123.68), (57.38, 57.12, 58.40))


def test_crops_of_masks_that_reach_beyond_their_boxes(adapter, rng):
    """The native crop of such people equals the reference's."""
    image = rng.integers(0, 256, (130, 190, 3), dtype=np.uint8)
    people = [((20 + 25 * i, 32, 17, 33), (0, 0.9 - i / 10, 0), (3, -5)) for i in range(3)]
    found = adapter.decode(outputs(*people), image.shape[:2])
    assert (found.masks.extents[:, 2] > found.boxes[:, 2] + 1).any()
    spec = CropSpec((40, 30))
    crops = mask_crop(image, found.boxes, found.masks, spec)
    np.testing.assert_allclose(crops, mask_crop_reference(image, found.boxes, found.masks, spec), atol=1e-4)
