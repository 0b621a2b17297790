"""Varied crops: by the given draws alone, background stays background, formulas are torchvision's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from graftsdk.errors import InputError
from graftsdk.plan import CropSpec
from graftsdk.training.crops.augment import NO_AUGMENTATION, Augmentation, _coloured, augmented

SPEC = CropSpec((50, 20), fill=7)
ONE = {name: replace(NO_AUGMENTATION, **{name: value}) for name, value in (("shift", 0.1), ("flip", 1.0))}


def crops(count=6, spec=SPEC, seed=0):
    """Noise on the person, `fill` around it."""
    pixels = np.full((count, *spec.size, 3), spec.fill, np.uint8)
    pixels[:, 10:40, 5:15] = np.random.default_rng(seed).integers(20, 236, (count, 30, 10, 3))
    return pixels


def vary(how, pixels=None, seed=0, spec=SPEC):
    return augmented(crops() if pixels is None else pixels, spec, how, np.random.default_rng(seed)).numpy()


def test_by_the_given_draws_alone():
    before = torch.get_rng_state()
    one, same, other = vary(Augmentation()), vary(Augmentation()), vary(Augmentation(), seed=1)
    assert one.dtype == np.uint8 and one.shape == (6, 50, 20, 3)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert torch.equal(before, torch.get_rng_state())
    source = crops()
    source.setflags(write=False)  # as a mapped file's are
    vary(Augmentation(), source)
    assert np.array_equal(source, crops())


def test_nothing_asked_nothing_done():
    assert np.array_equal(vary(NO_AUGMENTATION), crops())
    assert vary(Augmentation(), np.empty((0, 50, 20, 3), np.uint8)).shape == (0, 50, 20, 3)


def test_mirror_images():
    assert np.array_equal(vary(ONE["flip"]), crops()[:, :, ::-1])
    some = vary(replace(NO_AUGMENTATION, flip=0.5), crops(200))
    assert 70 < sum(not np.array_equal(a, b) for a, b in zip(some, crops(200), strict=True)) < 130


def test_shifts_are_by_whole_pixels_and_filled():
    seen = set()
    pixels = crops(300)
    for before, after in zip(pixels, vary(ONE["shift"], pixels), strict=True):
        wide = np.pad(before, ((5, 5), (5, 5), (0, 0)), constant_values=SPEC.fill)
        places = [(y, x) for y in range(11) for x in range(11) if np.array_equal(wide[y : y + 50, x : x + 20], after)]
        assert len(places) == 1
        seen.update(places)
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(11))


def test_rectangles_have_their_share_of_the_crop():
    how = replace(NO_AUGMENTATION, erase=1.0, erase_area=(0.1, 0.2))
    pixels = np.full((200, 50, 20, 3), 200, np.uint8)
    shares = (vary(how, pixels) == SPEC.fill).all(axis=3).mean(axis=(1, 2))
    assert shares.min() > 0.06 and shares.max() < 0.24 and abs(shares.mean() - 0.15) < 0.02
    assert (vary(replace(how, erase=0.25), pixels) == SPEC.fill).any(axis=(1, 2, 3)).mean() == pytest.approx(
        0.25, abs=0.1
    )


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("draws", [(0.9, 0.5, 0.5), (0.5, 0.1, 0.5), (0.5, 0.5, 0.95), (0.3, 0.8, 0.2)])
def test_colours_are_torchvisions(draws, order):
    """Within rounding: torchvision rounds, and clips, after each of its three functions."""
    spec = CropSpec((50, 20), order=order, background="keep")
    pixels = np.random.default_rng(0).integers(60, 160, (50, 20, 3)).astype(np.uint8)
    brightness, contrast, saturation = (1 + 0.2 * (2 * draw - 1) for draw in draws)
    image = torch.from_numpy(pixels if order == "rgb" else pixels[..., ::-1].copy()).permute(2, 0, 1)
    image = functional.adjust_saturation(image, saturation)
    image = functional.adjust_contrast(functional.adjust_brightness(image, brightness), contrast)
    wanted = image.permute(1, 2, 0).numpy()
    found = _coloured(pixels, spec, 0.2, np.array(draws))
    assert np.abs(found.astype(int) - (wanted if order == "rgb" else wanted[..., ::-1])).max() <= 3


def test_background_keeps_its_value_and_the_person_does_not():
    after = vary(replace(NO_AUGMENTATION, colour=0.5))
    background = (crops() == SPEC.fill).all(axis=3)
    assert (after[background] == SPEC.fill).all()
    assert (after[~background] != crops()[~background]).mean() > 0.9


@pytest.mark.parametrize(
    "change, message",
    [
        ({"flip": 1.5}, "flip: expected a number from 0 to 1, found 1.5"),
        ({"shift": -0.1}, "shift: expected"),
        ({"colour": float("nan")}, "colour: expected"),
        ({"erase_area": (0.3, 0.2)}, "erase_area: expected a number from 0 to 0.2, found 0.3"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**change)
