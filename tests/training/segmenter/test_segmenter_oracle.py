"""Matching, encoding, decoding and AP together: a network that says what training asks of it finds everybody."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from graftsdk.models import Yolact
from graftsdk.segment.yolact import YolactAdapter
from graftsdk.training import AnnotatedImage, Annotation, NetworkOptions, SegmenterOptions
from graftsdk.training.segmenter.augment import mask_boxes
from graftsdk.training.segmenter.evaluation import decoding_of
from graftsdk.training.segmenter.losses import _encode
from graftsdk.training.segmenter.mask_ap import average_precision, detections, encoded_mask, truth_of
from graftsdk.training.segmenter.matching import box_iou, match_priors
from graftsdk.training.synthetic import draw_scene, is_crowd

SCENES = 24
NETWORK = NetworkOptions(width=0.1, channels=8, prototypes=16)


@pytest.fixture(scope="module")
def scenes():
    """Masks uint8[N, 360, 640] of those who are to be found."""
    drawn = [draw_scene(3, index) for index in range(SCENES)]
    found = [[person.mask for person in scene.persons if not is_crowd(person)] for scene in drawn]
    return [np.stack(masks).astype(np.uint8) for masks in found if masks]


@pytest.fixture(scope="module")
def network():
    values = {name: getattr(NETWORK, name) for name in NetworkOptions.__dataclass_fields__}
    return Yolact.create(**values)


def fractions(masks):
    return mask_boxes(masks) / np.array([640, 360, 640, 360], np.float32)


def corners(priors):
    return np.concatenate((priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2), 1)


def test_what_training_asks_for_is_decoded_as_everybody(scenes, network):
    priors = network.priors()
    rows, columns = 48, 80
    adapter, images, found = YolactAdapter(decoding_of(network.document(), 0)), [], []
    for number, masks in enumerate(scenes, start=1):
        boxes = fractions(masks)
        match = match_priors(corners(priors.numpy()), boxes, np.zeros(len(boxes), np.int64))
        positive = np.flatnonzero(match.labels > 0)
        loc = np.zeros((1, len(priors), 4), np.float32)
        loc[0, positive] = _encode(torch.from_numpy(boxes[match.truths[positive]]), priors[positive]).numpy()
        conf = np.zeros((1, len(priors), 2), np.float32)
        conf[..., 0], conf[0, positive] = 1.0, (0.1, 0.9)
        proto = np.zeros((1, rows, columns, 16), np.float32)
        coefficients = np.zeros((1, len(priors), 16), np.float32)
        proto[..., 0], coefficients[..., 0] = 8.0, -0.9
        for index, mask in enumerate(masks):
            cells = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
            proto[0, ..., index + 1] = 16 * cells
        coefficients[0, positive, 1 + match.truths[positive]] = 0.9
        instances = adapter.decode([loc, conf, coefficients, priors.numpy(), proto], masks.shape[1:], 0.05)
        found += detections(instances, masks.shape[1:], number, 1)
        own = tuple(Annotation(0, False, encoded_mask(mask)) for mask in masks)
        images.append(AnnotatedImage(Path("drawn"), masks.shape[1:], own))
    assert average_precision(truth_of(images), found, range(1, len(images) + 1), 1).ap50 > 0.95


@pytest.mark.parametrize("size", SegmenterOptions(steps=1).sizes())
def test_priors_lie_where_people_are(scenes, network, size):
    priors = corners(network.priors(size).numpy())
    counts = [int((row >= 0.5).sum()) for masks in scenes for row in box_iou(fractions(masks), priors)]
    assert np.median(counts) >= 3
    assert np.mean(np.array(counts) == 0) < 0.15
