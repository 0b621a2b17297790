from __future__ import annotations

import hashlib

import numpy as np
import pytest

from graftsdk.preprocess import CropSpec, golden_crops

IMAGENET = CropSpec((299, 299))
TALL = CropSpec((192, 96), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fill=114, order="bgr", background="keep")


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        (IMAGENET, "6b71de962206cd9281aa8b6924ab6b1f053f1e323d8f5ac7493ef63a73bc59f7"),
        (TALL, "8540ebf490bc64dcd4c40c8a127d3d4e3558b3718818351d5e443bdbac707672"),
    ],
)
def test_the_same_bits_everywhere(spec, digest):
    assert hashlib.sha256(golden_crops(spec).tobytes()).hexdigest() == digest


@pytest.mark.parametrize("spec", [IMAGENET, TALL, CropSpec((8, 8)), CropSpec((8, 4096))])
def test_they_are_in_the_range_of_real_crops(spec):
    crops = golden_crops(spec)
    assert crops.shape == (4, 3, *spec.size) and crops.dtype == np.float32
    pixels = (crops * np.array(spec.std)[:, None, None] + np.array(spec.mean)[:, None, None]) * 255
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)
    assert pixels.min() > -0.01 and pixels.max() < 255.01
    assert pixels.std() > 20


def test_a_filled_background_is_filled():
    corner = golden_crops(CropSpec((64, 64), mean=(0, 0, 0), std=(1 / 255,) * 3, fill=200))[:, :, 0, 0]
    np.testing.assert_allclose(corner, 200, atol=1e-4)


def test_a_crop_depends_on_seed_and_place_only():
    first = golden_crops(TALL, count=2)
    assert golden_crops(TALL, count=5)[:2].tobytes() == first.tobytes()
    assert golden_crops(TALL, seed=1, count=2)[0].tobytes() != first[0].tobytes()
    assert first[0].tobytes() != first[1].tobytes()
    assert golden_crops(TALL, count=0).shape == (0, 3, 192, 96)
