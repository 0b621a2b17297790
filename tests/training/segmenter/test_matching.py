"""Matching against the original's own loop, written plainly."""

from __future__ import annotations

import numpy as np
import pytest
from training.segmenter.slow_match import slow_match

from graftsdk.training.segmenter.matching import BACKGROUND, NEUTRAL, box_iou, covered_share, match_priors


def some_boxes(rng, count, least=0.05, most=0.5):
    corner = rng.random((count, 2)) * (1 - most)
    return np.concatenate((corner, corner + rng.uniform(least, most, (count, 2))), 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("boxes, crowds", [(0, 0), (1, 0), (4, 2), (25, 1)])
def test_as_the_plain_loop(seed, boxes, crowds):
    rng = np.random.default_rng((seed, boxes))
    priors, wanted, crowd = some_boxes(rng, 60), some_boxes(rng, boxes), some_boxes(rng, crowds, 0.2, 0.9)
    classes = rng.integers(0, 3, boxes)
    found = match_priors(priors, wanted, classes, crowd)
    labels, truths = slow_match(priors, wanted, classes, crowd)
    assert found.labels.tolist() == labels
    positive = found.labels > 0
    assert found.truths[positive].tolist() == np.array(truths)[positive].tolist()


def test_two_boxes_never_share_the_prior_they_force():
    """Both boxes lie on prior 0: the better one has it, the other its second best, which overlaps little."""
    priors = np.array([[0, 0, 0.5, 0.5], [0.4, 0, 0.9, 0.5], [0.8, 0.8, 1, 1]], np.float32)
    boxes = np.array([[0, 0, 0.5, 0.5], [0.05, 0, 0.55, 0.5]], np.float32)
    found = match_priors(priors, boxes, np.array([0, 1]))
    assert found.labels.tolist() == [1, 2, 0]
    assert found.truths[:2].tolist() == [0, 1]


def test_more_boxes_than_priors():
    boxes = some_boxes(np.random.default_rng(0), 5)
    found = match_priors(boxes[:2], boxes, np.arange(5))
    assert (found.labels > 0).all()


def test_a_crowd_leaves_positives_alone():
    box = np.array([[0.2, 0.2, 0.4, 0.4]], np.float32)
    priors = np.concatenate((box, [[0.5, 0.5, 0.6, 0.6], [0.9, 0.9, 1.2, 1.2]])).astype(np.float32)
    crowd = np.array([[0.0, 0.0, 1.0, 1.0]], np.float32)
    assert match_priors(priors, box, np.array([0]), crowd).labels.tolist() == [1, NEUTRAL, BACKGROUND]
    no_boxes = np.zeros((0, 4), np.float32)
    found = match_priors(priors, no_boxes, np.zeros(0, np.int64), crowd)
    assert found.labels.tolist() == [NEUTRAL, NEUTRAL, BACKGROUND]


def test_overlaps():
    one = np.array([[0, 0, 2, 2]], np.float32)
    others = np.array([[1, 1, 3, 3], [0, 0, 1, 2], [5, 5, 6, 6], [0, 0, 0, 0]], np.float32)
    assert box_iou(one, others)[0].tolist() == pytest.approx([1 / 7, 0.5, 0, 0])
    assert covered_share(one, others)[0].tolist() == pytest.approx([0.25, 0.5, 0, 0])
    assert covered_share(others[3:], one)[0].tolist() == [0]
