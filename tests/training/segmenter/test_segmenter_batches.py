"""Augmentation keeps masks and pixels together; what is drawn depends on the seed and the step alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from training.small_sets import write_discs

from graftsdk.errors import DecodeError, InputError
from graftsdk.training import open_image_set
from graftsdk.training.segmenter.augment import (
    PhotometricDistort,
    Picture,
    RandomIoUCrop,
    ZoomOut,
    augmentation,
    augmented,
    mask_boxes,
    paste,
    shrunk,
)
from graftsdk.training.segmenter.batches import Draw, EpochOrder, TrainingImages, load_batches

SIZE = (64, 96)


def discs(*places, size=(80, 120)):
    """A picture whose discs are brighter than 200 and whose ground is darker than 60, so that masks can be read off."""
    image = np.full((*size, 3), 30, np.uint8)
    masks = np.zeros((len(places), *size), np.uint8)
    for mask, (x, y, radius) in zip(masks, places, strict=True):
        cv2.circle(mask, (x, y), radius, 1, -1)
        image[mask > 0] = 230
    return Picture(image, masks, np.zeros(len(places), np.int64), np.zeros(len(places), np.bool_))


@pytest.mark.parametrize("seed", range(40))
def test_masks_stay_on_their_pixels(seed):
    torch.manual_seed(seed)
    found = augmented(discs((30, 40, 14), (85, 30, 20)), augmentation(SIZE))
    assert found.image.shape == (*SIZE, 3) and found.masks.shape[1:] == SIZE
    assert len(found.masks) == len(found.labels) == len(found.crowds) <= 2
    union, values = found.masks.max(axis=0, initial=0), found.image.mean(axis=2)
    kernel = np.ones((5, 5), np.uint8)  # borders are mixed by resizing
    fill = (np.abs(found.image.astype(int) - (123, 116, 103)) <= 1).all(axis=2)  # around what was zoomed out
    disc = values[cv2.erode(union, kernel) > 0]
    ground = values[(cv2.dilate(union, kernel) == 0) & (cv2.dilate(fill.astype(np.uint8), kernel) == 0)]
    assert disc.min(initial=255) > ground.max(initial=0)


def test_boxes_of_masks():
    masks = np.zeros((3, 10, 12), np.uint8)
    masks[0, 2:5, 3:9] = 1
    masks[1, 9, 11] = masks[1, 0, 0] = 1
    assert mask_boxes(masks).tolist() == [[3, 2, 9, 5], [0, 0, 12, 10], [0, 0, 0, 0]]


def test_what_little_is_left_of_is_neutral_and_what_is_gone_is_gone():
    picture = discs((20, 40, 10), (60, 40, 10), (100, 40, 10))

    def crop(image, boxes, masks):
        return tuple(
            tv_tensors.wrap(item[..., :57], like=item) if item.ndim == 3 else item for item in (image, boxes, masks)
        )

    found = augmented(picture, crop)
    assert found.crowds.tolist() == [False, False]
    assert augmented(discs((20, 40, 10), (62, 40, 10)), crop).crowds.tolist() == [False, True]


def test_shrinking_takes_areas_or_corners():
    image = np.zeros((80, 80, 3), np.uint8)
    image[::2] = 200
    masks = [np.ones((80, 80), np.uint8)]
    smooth, made = shrunk(image, masks, (20, 20), True)
    assert smooth.std() == 0 and made.shape == (1, 20, 20) and made.all()
    assert shrunk(image, [], (20, 20), False)[1].shape == (0, 20, 20)


def test_photometric_distortion_changes_pixels_only_and_as_asked():
    image = tv_tensors.Image(torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.ones(2, 8, 8, dtype=torch.uint8))
    distort = PhotometricDistort()
    plain = {"factors": [1.0, 1.0, 1.0], "turn": 0.0, "late": False}
    assert torch.equal(distort.transform(image, plain), image)
    assert distort.transform(mask, plain) is mask
    brighter = distort.transform(image, {**plain, "factors": [1.1, 1.0, 1.0]})
    assert (brighter.int() - (image.float() * 1.1).clamp(max=255)).abs().max() <= 0.5
    grey = distort.transform(image, {**plain, "factors": [1.0, 1.0, 0.0]})
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], image.max(0).values)
    flat = distort.transform(image, {**plain, "factors": [1.0, 0.0, 1.0]})
    assert flat.float().std() == 0
    red = tv_tensors.Image(torch.tensor([200, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 4, 4).contiguous())
    assert distort.transform(red, {**plain, "turn": 1 / 3})[:, 0, 0].tolist() == [0, 200, 0]


def test_zooming_out_keeps_the_canvas():
    torch.manual_seed(0)
    picture = discs((60, 40, 30))
    image = tv_tensors.Image(torch.from_numpy(picture.image).permute(2, 0, 1))
    mask = tv_tensors.Mask(torch.from_numpy(picture.masks))
    for _ in range(8):
        small, masks = ZoomOut(3.0)(image, mask)
        assert small.shape == image.shape and 0 < int(masks.sum()) < picture.masks.sum()
        assert ((small.float().mean(0) > 200) == (masks[0] > 0)).float().mean() > 0.98


def test_crops_keep_a_centre_inside():
    torch.manual_seed(0)
    boxes = tv_tensors.BoundingBoxes(torch.tensor([[10.0, 10, 30, 40]]), format="XYXY", canvas_size=(80, 120))
    cut = 0
    for _ in range(60):
        window = RandomIoUCrop().make_params([boxes])
        if window:
            cut += 1
            assert window["left"] < 20 < window["left"] + window["width"]
            assert window["top"] < 25 < window["top"] + window["height"]
            assert 0.5 <= window["width"] / window["height"] <= 2.0
    assert cut > 10
    none = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(80, 120))
    assert RandomIoUCrop().make_params([none]) == {}


def test_pasted_instances_hide_what_stands_behind_them():
    ground, source = discs((60, 40, 25)), discs((60, 40, 24))
    source.image[source.masks[0] > 0] = (0, 0, 255)
    hidden = 0
    for seed in range(20):
        made = paste(ground, source, np.random.default_rng(seed))
        assert made.masks.sum(axis=0).max() == 1  # nobody shares a pixel
        assert (made.image[made.masks[-1] > 0][:, 2] > 100).mean() > 0.9
        hidden += bool(made.crowds[0]) if len(made.masks) == 2 else 1
    assert 0 < hidden < 20
    nobody = discs()
    assert paste(ground, nobody, np.random.default_rng(0)) is ground
    assert len(paste(nobody, source, np.random.default_rng(0)).masks) == 1


def drawn(order, first, last):
    return list(order.batches(first, last))


def test_the_order_goes_on_where_it_stopped():
    order = EpochOrder([(10, None), (7, None)], 4, ((64, 64), (32, 32)), 0.5, 3)
    assert order.steps == 4
    assert drawn(order, 0, 11) == drawn(order, 0, 5) + drawn(order, 5, 11)
    assert drawn(order, 0, 4) != drawn(order, 4, 8)
    assert drawn(EpochOrder([(10, None), (7, None)], 4, ((64, 64),), 0.5, 4), 0, 4) != drawn(order, 0, 4)
    epoch = [draw.image for batch in drawn(order, 0, 4) for draw in batch]
    assert len(set(epoch)) == 16
    assert {draw.size for batch in drawn(order, 0, 40) for draw in batch} == {(64, 64), (32, 32)}
    assert all(len({draw.size for draw in batch}) == 1 for batch in drawn(order, 0, 40))


@pytest.mark.parametrize(
    "sets, wanted",
    [([(100, None), (100, 0.25)], 0.25), ([(900, None), (30, 0.5)], 0.5), ([(10, 0.3), (10, 0.7)], 0.7)],
)
def test_shares(sets, wanted):
    order = EpochOrder(sets, 4, ((64, 64),), 0.0, 0)
    images = [draw.image for batch in drawn(order, 0, order.steps) for draw in batch]
    assert np.mean([image >= sets[0][0] for image in images]) == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("shares", [(0.6, 0.6), (0.6, 0.3)])
def test_shares_that_cannot_be(shares):
    with pytest.raises(InputError, match="shares of the data"):
        EpochOrder([(10, share) for share in shares], 4, ((64, 64),), 0.0, 0)


def test_an_image_is_the_same_whoever_loads_it(tmp_path):
    images = TrainingImages([open_image_set(write_discs(tmp_path, 4))])
    order = EpochOrder([(4, None)], 2, ((64, 64),), 0.5, 0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    here = list(load_batches(images, order, 0, 2, 0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    there = list(load_batches(images, order, 0, 2, 1))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.images, other.images)
        for first, second in zip(one.truths, other.truths, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_images_that_cannot_be_used_are_named(tmp_path):
    folder = write_discs(tmp_path, 2)
    images = TrainingImages([open_image_set(folder)])
    cv2.imwrite(str(folder / "images" / "0.png"), np.zeros((19, 21, 3), np.uint8))
    with pytest.raises(InputError, match=r"0\.png: expected 96x64 \(width x height\) as annotated, found 21x19"):
        images.item(Draw(0, -1, 0, (64, 64)))
    (folder / "images" / "1.png").write_bytes(b"none")
    with pytest.raises(DecodeError, match=r"1\.png: expected a readable image"):
        images.item(Draw(1, -1, 0, (64, 64)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_used_is_an_error_that_reads_well(tmp_path, workers):
    folder = write_discs(tmp_path, 2)
    images = TrainingImages([open_image_set(folder)])
    (folder / "images" / "1.png").write_bytes(b"none")
    (found,) = load_batches(images, EpochOrder([(2, None)], 2, ((64, 64),), 0.0, 0), 0, 1, workers)
    assert isinstance(found, DecodeError)
    assert str(found).startswith(str(folder)) and "Traceback" not in str(found)
