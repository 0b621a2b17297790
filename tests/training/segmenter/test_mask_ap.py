"""COCO's AP on cases that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftsdk.preprocess import BoxMasks
from graftsdk.segment import Instances
from graftsdk.training import AnnotatedImage, Annotation
from graftsdk.training.segmenter.mask_ap import average_precision, detections, encoded_mask, truth_of


def square(x, side=10):
    mask = np.zeros((40, 100), np.uint8)
    mask[5 : 5 + side, x : x + side] = 1
    return mask


def image(*masks, crowd=()):
    annotations = [Annotation(0, False, encoded_mask(mask)) for mask in masks]
    annotations += [Annotation(0, True, encoded_mask(mask)) for mask in crowd]
    return AnnotatedImage(Path("x"), (40, 100), tuple(annotations))


def judged(images, found):
    results = [
        {"image_id": number, "category_id": 1, "segmentation": encoded_mask(mask), "score": score}
        for number, mask, score in found
    ]
    return average_precision(truth_of(images), results, range(1, len(images) + 1), 1)


TWO = [image(square(0), square(50)), image(square(20))]


@pytest.mark.parametrize(
    "found, ap, ap50, ap75",
    [
        ([(1, square(0), 0.9), (1, square(50), 0.8), (2, square(20), 0.7)], 1.0, 1.0, 1.0),
        ([], 0.0, 0.0, 0.0),
        # two of three, no false one: recall reaches 0.667, which 67 of the 101 points lie at or below
        ([(1, square(0), 0.9), (2, square(20), 0.7)], 67 / 101, 67 / 101, 67 / 101),
        # IoU 8/12 = 0.667: right at .5, .55, .6 and .65 only
        ([(1, square(2), 0.9), (1, square(52), 0.8), (2, square(22), 0.7)], 0.4, 1.0, 0.0),
        # the wrong one comes first: precision is 1/2, 2/3, 3/4, and 3/4 at every recall
        ([(2, square(80), 1.0), (1, square(0), 0.9), (1, square(50), 0.8), (2, square(20), 0.7)], 0.75, 0.75, 0.75),
    ],
)
def test_ap(found, ap, ap50, ap75):
    result = judged(TWO, found)
    assert (result.ap, result.ap50, result.ap75) == pytest.approx((ap, ap50, ap75), abs=1e-6)
    assert (result.images, result.found) == (2, len(found))


@pytest.mark.parametrize(
    "found, f1, threshold",
    [
        ([(1, square(0), 0.9), (1, square(50), 0.8), (2, square(20), 0.7)], 1.0, 0.7),
        # the first two are right, then two wrong ones come before the third: precision 1 at recall 2/3, 3/5 at recall 1
        (
            [
                (1, square(0), 0.9),
                (1, square(50), 0.8),
                (2, square(80), 0.6),
                (1, square(25), 0.5),
                (2, square(20), 0.4),
            ],
            2 * 0.66 / 1.66,
            0.8,
        ),
        # right ones alone, all of them needed
        ([(1, square(0), 0.9), (2, square(20), 0.2)], 2 * 0.66 / 1.66, 0.2),
        ([(1, square(80), 0.9)], 0.0, 0.0),
        ([], 0.0, 0.0),
    ],
)
def test_the_score_from_which_a_person_is_one(found, f1, threshold):
    """At COCO's 101 recalls: 0.66 is the last below two thirds."""
    result = judged(TWO, found)
    assert (result.f1, result.threshold) == pytest.approx((f1, threshold), abs=1e-6)


def test_crowds_are_neither_found_nor_missed():
    images = [image(square(0), crowd=[square(50)])]
    found = [(1, square(0), 0.5), (1, square(51, 9), 0.9), (1, square(50, 9), 0.8)]
    assert judged(images, found).ap == pytest.approx(1.0)


def test_images_of_background_only():
    assert judged([image()], [(1, square(0), 0.5)]).ap == 0.0
    assert judged([image(), TWO[1]], [(2, square(20), 0.5)]).ap == pytest.approx(1.0)


def test_what_an_adapter_found():
    masks = BoxMasks([np.ones((2, 2), np.bool_)], np.array([[20, 5, 30, 15]], np.float32))
    found = Instances(masks.extents, np.array([0.5], np.float32), masks)
    results = detections(found, (40, 100), 2, 1)
    assert average_precision(truth_of(TWO), results, [2], 1).ap == pytest.approx(1.0)
    assert detections(Instances(masks.extents, found.scores, None), (40, 100), 1, 1) == []
