"""Penn-Fudan's layout, splits by name, shares."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from graftsdk.errors import InputError
from graftsdk.training import AnnotatedImage, Annotation, ImageSet, open_image_set
from graftsdk.training.segmenter.datasets import open_training_sets, parse_share, split_by_name


def penn_fudan(folder, masks):
    for name in ("PNGImages", "PedMasks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        cv2.imwrite(str(folder / "PNGImages" / f"{name}.png"), np.zeros((*mask.shape, 3), np.uint8))
        cv2.imwrite(str(folder / "PedMasks" / f"{name}_mask.png"), mask)
    return folder


def a_mask(*values):
    mask = np.zeros((12, 16), np.uint8)
    for index, value in enumerate(values):
        mask[2:9, 4 * index : 4 * index + 3] = value
    return mask


def test_every_number_is_a_person(tmp_path):
    found = open_image_set(penn_fudan(tmp_path, {"a": a_mask(1, 2, 7), "b": a_mask()}))
    assert [len(image.annotations) for image in found.images] == [3, 0]
    assert found.images[0].size == (12, 16)
    third = found.images[0].annotations[2]
    assert (third.mask() == (a_mask(1, 2, 7) == 7)).all() and not third.crowd


def test_what_is_refused(tmp_path):
    folder = penn_fudan(tmp_path, {"a": a_mask(1), "b": a_mask(1)})
    with pytest.raises(InputError, match="the class 'person' only"):
        open_image_set(folder, ("dog",))
    (folder / "PedMasks" / "a_mask.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a_mask\.png: expected a PNG of one channel"):
        open_image_set(folder)
    (folder / "PedMasks" / "a_mask.png").unlink()
    with pytest.raises(InputError, match="1 images without a mask .*, first 'a'"):
        open_image_set(folder)
    (folder / "PNGImages" / "a.png").unlink()
    (folder / "PNGImages" / "b.png").rename(folder / "PNGImages" / "c.png")
    cv2.imwrite(str(folder / "PedMasks" / "c_mask.png"), a_mask())
    with pytest.raises(InputError, match="1 masks without an image .*, first 'b'"):
        open_image_set(folder)
    (folder / "PedMasks" / "b_mask.png").unlink()
    with pytest.raises(InputError, match="expected persons in the masks of 1 image, found none"):
        open_image_set(folder)


def test_the_real_ones(shared):
    found = open_image_set(shared / "data" / "PennFudanPed")
    assert len(found) > 100 and found.instances > 2 * len(found)
    coco = open_image_set(shared / "data" / "COCO-persons")
    assert any(annotation.crowd for image in coco.images for annotation in image.annotations)


def some_images(count):
    return tuple(AnnotatedImage(Path(f"{number:05d}.jpg"), (10, 10), ()) for number in range(count))


def test_a_split_depends_on_the_name_alone():
    whole = ImageSet("x", some_images(400), ("person",), "0" * 64)
    rest, held = split_by_name(whole, 0.25)
    assert len(rest) + len(held) == 400 and 70 < len(held) < 130
    fewer = ImageSet("x", whole.images[::3], whole.classes, whole.digest)
    assert set(split_by_name(fewer, 0.25)[1].images) == set(held.images) & set(fewer.images)
    assert set(held.images) < set(split_by_name(whole, 0.5)[1].images)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_shares_of_a_split(share):
    with pytest.raises(InputError, match="above 0 and below 1"):
        split_by_name(ImageSet("x", some_images(9), ("person",), ""), share)


def test_a_split_with_an_empty_side():
    with pytest.raises(InputError, match="name the validation data itself"):
        split_by_name(ImageSet("x", some_images(1), ("person",), ""), 0.5)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("folder", ("folder", None)),
        ("a/b:0.25", ("a/b", 0.25)),
        ("a:b", ("a:b", None)),
        ("C:x:0.5", ("C:x", 0.5)),
    ],
)
def test_parse_share(text, wanted):
    assert parse_share(text) == wanted


@pytest.mark.parametrize("text", ["a:0", "a:1", "a:7", "a:nan"])
def test_parse_share_refuses(text):
    with pytest.raises(InputError, match="a share above 0 and below 1"):
        parse_share(text)


def test_sets_without_anything_to_learn_or_to_judge(tmp_path):
    filled = penn_fudan(tmp_path / "filled", {f"image{i}": a_mask(1) for i in range(12)})
    for arguments, message in (
        (([], [], None), "expected a folder of annotated images, found none"),
        (([filled], [filled], 0.5), "expected val or val_split, found both"),
    ):
        with pytest.raises(InputError, match=message):
            open_training_sets(*arguments, ("person",))
    sets, shares, held = open_training_sets([f"{filled}:0.5", filled], [], 0.25, ("person",))
    assert shares == [0.5, None] and len(sets[0]) + len(held) / 2 == 12


def test_an_annotation_decodes_to_its_mask(tmp_path):
    image = open_image_set(penn_fudan(tmp_path, {"a": a_mask(3)})).images[0]
    assert isinstance(image.annotations[0], Annotation)
    assert image.annotations[0].mask().sum() == 21
