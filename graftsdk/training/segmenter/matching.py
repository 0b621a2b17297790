"""Which prior is to become which person (YOLACT 902073d, layers/box_utils.py, in NumPy)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BACKGROUND", "NEUTRAL", "Match", "box_iou", "covered_share", "match_priors"]

POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
CROWD_SHARE = 0.7
BACKGROUND, NEUTRAL = 0, -1

Floats = npt.NDArray[np.float32]


class Match(NamedTuple):
    """What each of P priors stands for.

    Attributes:
        labels: int64[P]; 1 + the class of a positive, `BACKGROUND` or `NEUTRAL` (no loss at all).
        truths: int64[P]; which box a prior is nearest to, of meaning for positives only.
    """

    labels: npt.NDArray[np.int64]
    truths: npt.NDArray[np.int64]


def match_priors(priors: Floats, boxes: Floats, classes: npt.NDArray[np.int64], crowds: Floats | None = None) -> Match:
    """IoU of at least 0.5 makes a prior positive, below 0.4 background, between them neutral.

    Every box has its best prior whatever the IoU, boxes of the highest IoU choosing first, each prior once. What is
    not positive and lies by more than 0.7 of its area in one crowd is neutral.

    Args:
        priors: float32[P, 4], xyxy, fractions of the image; P is at least the number of boxes.
        boxes: float32[N, 4], xyxy, fractions of the image.
        classes: int64[N], 0 the first class that is no background.
        crowds: float32[C, 4], xyxy.
    """
    labels = np.full(len(priors), BACKGROUND, np.int64)
    truths = np.zeros(len(priors), np.int64)
    if len(boxes):
        overlaps = box_iou(boxes, priors)  # [N, P]
        truths = overlaps.argmax(axis=0)
        best = overlaps[truths, np.arange(len(priors))]
        for box, prior in _forced(overlaps):
            best[prior], truths[prior] = 2.0, box
        labels = classes[truths] + 1
        labels[best < POSITIVE_IOU] = NEUTRAL
        labels[best < NEGATIVE_IOU] = BACKGROUND
    if crowds is not None and len(crowds):
        covered = covered_share(priors, crowds).max(axis=1) > CROWD_SHARE
        labels[(labels <= 0) & covered] = NEUTRAL
    return Match(labels, truths)


def _forced(overlaps: Floats) -> list[tuple[int, int]]:
    """(box, prior) of each box: the greatest IoU of all chooses first, then box and prior are taken."""
    free = overlaps.copy()
    prior_of = free.argmax(axis=1)
    best = free[np.arange(len(free)), prior_of]
    pairs = []
    for _ in range(min(free.shape)):
        box = int(best.argmax())
        prior = int(prior_of[box])
        pairs.append((box, prior))
        free[:, prior], best[box] = -1.0, -2.0
        # Only boxes whose best prior was just taken look again: N rows are scanned, not N times N.
        for other in np.flatnonzero((prior_of == prior) & (best > -2.0)):
            prior_of[other] = free[other].argmax()
            best[other] = free[other, prior_of[other]]
    return pairs


def box_iou(first: Floats, second: Floats) -> Floats:
    """float32[N, M]: intersection over union of boxes xyxy; 0 where both are without area."""
    shared = _intersection(first, second)
    union = _area(first)[:, None] + _area(second)[None] - shared
    iou: Floats = shared / np.maximum(union, np.finfo(np.float32).tiny)
    return iou


def covered_share(first: Floats, second: Floats) -> Floats:
    """float32[N, M]: which share of each of `first` lies in each of `second`."""
    least = np.finfo(np.float32).tiny
    share: Floats = (_intersection(first, second) / np.maximum(_area(first)[:, None], least)).astype(np.float32)
    return share


def _intersection(first: Floats, second: Floats) -> Floats:
    shared: Floats = _overlap(first, second, 0) * _overlap(first, second, 1)
    return shared


def _overlap(first: Floats, second: Floats, axis: int) -> Floats:
    """[N, M], along x (0) or y (1); NumPy is three times faster on rows of M than on pairs of x and y."""
    end = np.minimum(first[:, None, axis + 2], np.ascontiguousarray(second[:, axis + 2]))
    end -= np.maximum(first[:, None, axis], np.ascontiguousarray(second[:, axis]))
    overlap: Floats = np.maximum(end, 0.0, out=end)
    return overlap


def _area(boxes: Floats) -> Floats:
    area: Floats = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area
