"""A real segmenter on real photographs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from graftsdk.preprocess import CropSpec, decode_image, mask_crop

PEOPLE = {
    "bus.jpg": 4,
    "zidane.jpg": 2,
    "street.jpg": 2,
    "airport.jpg": 0,
    "mp_coco_72.jpg": 0,
    "sergey.png": 1,
    "attribute_human_demo.jpg": 1,
    "mp_coco_446.jpg": 1,
}


# The plain way rounds boxes to pixels of the letterboxed frame: a person a few pixels wide there moves by a twentieth.
LEAST_OVERLAP, LEAST_OVERLAP_SMALL, SMALL = 0.97, 0.94, 20


def plain_decode(outputs, image_size, input_size=640):
    """Masks the plain way: each at full prototype size, upsampled, cut to its box, unletterboxed, thresholded."""
    predictions, prototypes = outputs[0][0].T, outputs[1][0]
    scores = predictions[:, 4:-32]
    rows = np.flatnonzero((scores.argmax(axis=1) == 0) & (scores.max(axis=1) > 0.25))
    boxes = [(x - w / 2, y - h / 2, w, h) for x, y, w, h in predictions[rows, :4].tolist()]
    kept = cv2.dnn.NMSBoxes(boxes, scores[rows, 0].tolist(), 0.25, 0.7)
    height, width = image_size
    ratio = min(input_size / height, input_size / width)
    inner_height, inner_width = round(height * ratio), round(width * ratio)
    top, left = round((input_size - inner_height) / 2 - 0.1), round((input_size - inner_width) / 2 - 0.1)
    masks = []
    for index in kept:
        logits = np.tensordot(predictions[rows[index], -32:], prototypes, 1)
        full = cv2.resize(logits, (input_size, input_size), interpolation=cv2.INTER_LINEAR)
        x, y, w, h = boxes[index]
        columns, lines = np.arange(input_size) + 0.5, np.arange(input_size)[:, None] + 0.5
        inside = (columns >= x) & (columns < x + w) & (lines >= y) & (lines < y + h)
        full[~inside] = -1
        cut = full[top : top + inner_height, left : left + inner_width]
        masks.append(cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR) > 0)
    return masks


@pytest.mark.parametrize("name", PEOPLE)
def test_people_and_their_masks(shared, yolo, name):
    adapter, run = yolo
    image = decode_image(shared / "data" / "photos" / name)
    height, width = image.shape[:2]
    feed, geometry = adapter.prepare(image)
    outputs = run(feed)
    found = adapter.decode(outputs, geometry)
    assert len(found) == PEOPLE[name]
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes[:, :2] >= 0).all() and (found.boxes[:, 2:] <= (width, height)).all()

    plain = plain_decode(outputs, (height, width))
    assert len(plain) == len(found)
    for index, theirs in enumerate(plain):
        ours = found.masks.mask_at(index, height, width)
        overlap = (ours & theirs).sum() / (ours | theirs).sum()
        small = (found.boxes[index, 2] - found.boxes[index, 0]) * geometry.scale_x < SMALL
        assert overlap >= (LEAST_OVERLAP_SMALL if small else LEAST_OVERLAP), f"person {index}: IoU {overlap:.4f}"


def test_crops_of_real_people(shared, yolo):
    adapter, run = yolo
    image = decode_image(shared / "data" / "photos" / "bus.jpg")
    feed, geometry = adapter.prepare(image)
    found = adapter.decode(run(feed), geometry)
    spec = CropSpec((128, 64), mean=(0, 0, 0), std=(1 / 255,) * 3)
    crops = mask_crop(image, found.boxes, found.masks, spec)
    frames = np.stack([found.masks.mask_at(index, *image.shape[:2]) for index in range(len(found))])
    assert crops.tobytes() == mask_crop(image, found.boxes, frames, spec).tobytes()
    background = (crops == 0).all(axis=1).mean(axis=(1, 2))
    assert (background > 0.1).all() and (background < 0.8).all()
