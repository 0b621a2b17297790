from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from graftsdk.errors import InputError
from graftsdk.preprocess import BoxMasks, CropSpec, mask_crop_reference, reference

BOXES = np.array([[10.2, 5.7, 90.1, 119.5], [-30, -5, 40, 60.5], [0, 0, 160, 120], [99.5, 100.5, 99.75, 100.75]])


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)


def plain_crop(image, box, mask, spec):
    """The definition once more, step by step with torch: float64[3, H, W] for a BGR image."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    if mask is not None and spec.box == "mask":
        rows, columns = np.nonzero(mask)
        x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    pad_x, pad_y = spec.pad * (x1 - x0), spec.pad * (y1 - y0)
    x0, y0 = max(0, math.floor(x0 - pad_x)), max(0, math.floor(y0 - pad_y))
    x1, y1 = min(width, math.ceil(x1 + pad_x)), min(height, math.ceil(y1 + pad_y))
    pixels = image.astype(np.float64)
    if mask is not None and spec.background == "fill":
        pixels[~mask] = spec.fill
    if spec.order == "rgb":
        pixels = pixels[:, :, ::-1]
    region = torch.from_numpy(pixels[y0:y1, x0:x1].transpose(2, 0, 1).copy())[None]
    size, canvas = spec.size, np.full((3, *spec.size), float(spec.fill))
    if spec.fit == "letterbox":
        ratio = min(size[0] / (y1 - y0), size[1] / (x1 - x0))
        size = (max(1, math.floor((y1 - y0) * ratio + 0.5)), max(1, math.floor((x1 - x0) * ratio + 0.5)))
    top, left = (spec.size[0] - size[0]) // 2, (spec.size[1] - size[1]) // 2
    resized = interpolate(region, size=size, mode="bilinear", align_corners=False, antialias=spec.antialias)
    canvas[:, top : top + size[0], left : left + size[1]] = resized[0].numpy()
    return (canvas / 255 - np.array(spec.mean)[:, None, None]) / np.array(spec.std)[:, None, None]


SPECS = [
    CropSpec((40, 32)),
    CropSpec((299, 299), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    CropSpec((40, 32), antialias=False),
    CropSpec((40, 32), order="bgr", fill=200),
    CropSpec((40, 32), background="keep"),
    CropSpec((40, 32), pad=0.25),
    CropSpec((64, 64), fit="letterbox", fill=114),
    CropSpec((64, 64), box="mask", pad=0.1),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_the_reference_is_its_definition(image, spec, masked, rng):
    masks = None
    if masked:
        masks = np.zeros((len(BOXES), 120, 160), bool)
        masks[:, 20:110, 15:120] = rng.random((len(BOXES), 90, 105)) > 0.3
    crops = mask_crop_reference(image, BOXES, masks, spec)
    assert crops.dtype == np.float32 and crops.shape == (len(BOXES), 3, *spec.size)
    for index, box in enumerate(BOXES):
        expected = plain_crop(image, box, None if masks is None else masks[index], spec)
        np.testing.assert_allclose(crops[index], expected, rtol=0, atol=5e-7)  # one cast to float32, values up to 4


def test_a_smooth_image_agrees_with_opencv_and_pillow():
    y, x = np.mgrid[0:240, 0:180]
    image = np.stack([y, x, (x + y) // 2], axis=2).astype(np.uint8)
    for antialias in (False, True):
        spec = CropSpec((96, 64), mean=(0, 0, 0), std=(1 / 255,) * 3, order="bgr", antialias=antialias)
        crop = mask_crop_reference(image, np.array([[0, 0, 180, 240]]), None, spec)[0].transpose(1, 2, 0)
        if antialias:
            theirs = np.asarray(Image.fromarray(image).resize((64, 96), Image.Resampling.BILINEAR))
        else:
            theirs = cv2.resize(image, (64, 96), interpolation=cv2.INTER_LINEAR)
        assert np.abs(crop - theirs).max() <= 1.01  # both round to uint8, Pillow twice


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_do_not_change_a_bit(image, threads):
    masks = image[None, :, :, 0].repeat(len(BOXES), 0) > 99
    one = mask_crop_reference(image, BOXES, masks, CropSpec((40, 32)))
    assert mask_crop_reference(image, BOXES, masks, CropSpec((40, 32)), threads=threads).tobytes() == one.tobytes()


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_the_size_of_the_working_blocks_does_not_change_a_bit(image, rows, monkeypatch):
    masks = image[None, :, :, 0].repeat(len(BOXES), 0) > 99
    one = mask_crop_reference(image, BOXES, masks, CropSpec((70, 32)))
    monkeypatch.setattr(reference, "_ROWS", rows)
    assert mask_crop_reference(image, BOXES, masks, CropSpec((70, 32))).tobytes() == one.tobytes()


def test_a_crop_does_not_depend_on_its_neighbours(image):
    spec = CropSpec((40, 32))
    together = mask_crop_reference(image, BOXES, None, spec)
    for index in range(len(BOXES)):
        alone = mask_crop_reference(image, BOXES[index : index + 1], None, spec)
        assert alone[0].tobytes() == together[index].tobytes()


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_colour_is_the_images_and_order_the_networks(image, order):
    spec = CropSpec((40, 32), mean=(0.1, 0.2, 0.3), order=order)
    bgr = mask_crop_reference(image, BOXES, None, spec, color="bgr")
    rgb = mask_crop_reference(image[:, :, ::-1], BOXES, None, spec, color="rgb")
    assert bgr.tobytes() == rgb.tobytes()


def test_background_is_filled_before_resizing():
    image = np.full((16, 16, 3), 200, np.uint8)
    mask = np.zeros((1, 16, 16), bool)
    mask[0, :, :8] = True
    spec = CropSpec((8, 9), mean=(0, 0, 0), std=(1, 1, 1), fill=100, antialias=False)
    crop = mask_crop_reference(image, np.array([[0, 0, 16, 16]]), mask, spec)[0, 0] * 255
    np.testing.assert_allclose(crop[:, 0], 200, atol=1e-4)
    np.testing.assert_allclose(crop[:, 8], 100, atol=1e-4)
    np.testing.assert_allclose(crop[:, 4], 150, atol=1e-4)  # half of each: the edge is interpolated, not the mask


def test_a_boxmask_at_full_resolution_is_the_full_mask(image, rng):
    masks = rng.random((len(BOXES), 120, 160)) > 0.5
    frame = np.tile(np.array([0, 0, 160, 120], np.float32), (len(BOXES), 1))
    for arrays in (masks, masks.astype(np.uint8) * 7, masks.astype(np.float32)):
        boxed = mask_crop_reference(image, BOXES, BoxMasks(arrays, frame), CropSpec((40, 32)))
        assert boxed.tobytes() == mask_crop_reference(image, BOXES, masks, CropSpec((40, 32))).tobytes()


@given(st.integers(0, 2**32 - 1))
def test_a_boxmask_is_its_frame(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    corner, span = rng.uniform(-15, 40, 2), rng.uniform(0.3, 60, 2)
    masks = BoxMasks([rng.random(rng.integers(1, 12, 2), np.float32)], np.array([[*corner, *(corner + span)]]))
    box = np.array([[3, 4, 47.5, 38]])
    spec = CropSpec((24, 16))
    frame = masks.mask_at(0, 40, 50)[None]
    boxed = mask_crop_reference(image, box, masks, spec)
    assert boxed.tobytes() == mask_crop_reference(image, box, frame, spec).tobytes()


def test_no_spec(image):
    with pytest.raises(InputError, match="expected a CropSpec"):
        mask_crop_reference(image, BOXES)
