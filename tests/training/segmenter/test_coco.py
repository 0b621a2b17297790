"""COCO instances files: what is read, what is left out and told, what is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from graftsdk.errors import InputError
from graftsdk.training import open_image_set

SIDES = (20, 30)  # height, width


def packed(mask):
    made = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(made["size"]), "counts": made["counts"].decode()}


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def write(folder, annotations, images=None, categories=None, files=("a.jpg", "b.jpg")):
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "x").mkdir(exist_ok=True)
    for name in files:
        cv2.imwrite(str(folder / "x" / name), np.zeros((*SIDES, 3), np.uint8))
    if images is None:
        images = [
            {"id": i, "file_name": name, "height": SIDES[0], "width": SIDES[1]} for i, name in enumerate(files, start=1)
        ]
    data = {
        "images": images,
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=10)],
        "categories": [{"id": 7, "name": "person"}, {"id": 9, "name": "dog"}] if categories is None else categories,
    }
    path = folder / "annotations" / "instances_x.json"
    path.write_text(json.dumps(data))
    return path


def one(segmentation, image=1, category=7, **more):
    return {"image_id": image, "category_id": category, "segmentation": segmentation, **more}


def test_polygons_run_lengths_crowds_and_background(tmp_path):
    mask = np.zeros(SIDES, np.uint8)
    mask[3:9, 4:12] = 1
    listed = rle.frPyObjects([square(4.0, 3.0, 5.0)], *SIDES)[0]
    counts = [int(v) for v in uncompressed(rle.decode(listed))]
    write(
        tmp_path,
        [
            one([square(4.0, 3.0, 6.0), square(14.0, 3.0, 2.0)]),
            one(packed(mask), iscrowd=1),
            one({"size": list(SIDES), "counts": counts}),
            one([square(1.0, 1.0, 5.0)], category=9),
        ],
    )
    found = open_image_set(tmp_path)
    assert found.classes == ("person",) and found.notes == () and len(found.digest) == 64
    assert [len(image.annotations) for image in found.images] == [3, 0]
    assert found.instances == 2
    first, crowd, third = found.images[0].annotations
    assert int(first.mask().sum()) == 36 + 4
    assert crowd.crowd and (crowd.mask() == mask).all()
    assert (third.mask() == rle.decode(listed)).all()


def uncompressed(mask):
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, len(flat)])
    return runs if flat[0] == 0 else [0, *runs]


def test_categories_are_chosen_in_the_order_asked_for(tmp_path):
    write(tmp_path, [one([square(1, 1, 5)], category=9), one([square(9, 1, 5)])])
    found = open_image_set(tmp_path, ("dog", "person"))
    assert [annotation.label for annotation in found.images[0].annotations] == [0, 1]


def test_polygons_are_clipped_to_the_image(tmp_path):
    write(tmp_path, [one([[-10.0, -10.0, 50.0, -10.0, 50.0, 5.0, -10.0, 5.0]])])
    mask = open_image_set(tmp_path).images[0].annotations[0].mask()
    assert mask[:5].all() and not mask[5:].any()


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [[]],
        [[1.0, 1.0, 5.0, 5.0]],
        [[3.0, 3.0, 3.0, 3.0, 3.0, 3.0]],
        [square(100.0, 100.0, 5.0)],
        [square(-30.0, 2.0, 5.0)],
        packed(np.zeros(SIDES)),
    ],
    ids=["nothing", "no point", "two points", "no area", "beyond", "before", "run lengths of nothing"],
)
def test_empty_masks_are_left_out_and_told(tmp_path, segmentation):
    write(tmp_path, [one(segmentation), one([square(2, 2, 4)])])
    found = open_image_set(tmp_path)
    assert found.instances == 1
    assert found.notes[0].endswith("left out 1 annotation with an empty mask, the first has id 10")


def test_annotations_of_unlisted_images_are_left_out_and_told(tmp_path):
    write(tmp_path, [one([square(2, 2, 4)]), one([square(2, 2, 4)], image=77), one([square(2, 2, 4)], image=78)])
    found = open_image_set(tmp_path)
    assert found.instances == 1
    assert found.notes[0].endswith("left out 2 annotations of images that it does not list, the first has id 11")


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ("text", "expected polygons or run lengths, found str"),
        (None, "expected polygons or run lengths, found NoneType"),
        ([[1, 2, 3]], "expected polygons x, y, x, y"),
        ([[1, 2, float("nan"), 3, 4, 5]], "finite numbers"),
        ([[1, 2, 1e300, 3, 4, 5]], "above a million"),
        ([["a", "b"]], "could not convert"),
        ({"size": [30, 20], "counts": [600]}, "expected run lengths of [20, 30]"),
        ({"size": [20, 30], "counts": [601]}, "sum to 600"),
        ({"size": [20, 30], "counts": [700, -100]}, "sum to 600"),
        ({"size": [20, 30], "counts": "hello"}, "sum to 600"),
        ({"size": [20, 30], "counts": "\u00e9"}, "ascii"),
        ({"size": [20, 30]}, "counts"),
    ],
)
def test_a_segmentation_that_cannot_be(tmp_path, segmentation, message):
    write(tmp_path, [one(segmentation)])
    with pytest.raises(InputError, match="annotation 10") as caught:
        open_image_set(tmp_path)
    assert message in str(caught.value)


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 20, "width": 30}


@pytest.mark.parametrize(
    "images, message",
    [
        ([], "expected images, found an empty list"),
        ([IMAGE, {**IMAGE, "file_name": "b.jpg"}], "image id once, found 1 given again, first 1"),
        ([IMAGE, {**IMAGE, "id": 2}], "each image file once, found 'a.jpg' 2 times"),
        ([IMAGE, {**IMAGE, "id": 2, "file_name": "c.jpg"}], "2 images in .*x, found 1 missing, first 'c.jpg'"),
        ([{**IMAGE, "file_name": "../a.jpg"}], "expected a file name inside"),
        ([{**IMAGE, "file_name": None}], "expected a file name inside"),
        ([{**IMAGE, "height": 0}], "expected height and width in pixels"),
        ([{**IMAGE, "width": "30"}], "expected height and width in pixels"),
        ([{"file_name": "a.jpg"}], "an id in every image, found 1 without"),
        ([{**IMAGE, "id": [1]}], "ids of numbers or texts"),
    ],
)
def test_images_that_cannot_be(tmp_path, images, message):
    write(tmp_path, [], images=images)
    with pytest.raises(InputError, match=message):
        open_image_set(tmp_path)


PERSON = {"id": 1, "name": "person"}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"categories": [{"id": [1], "name": "person"}]}, "category ids of numbers or texts"),
        ({"categories": [{"name": "person"}]}, "an id in every category"),
        ({"categories": [{"id": 1, "name": ["person"]}]}, "categories with names, found"),
        (
            {"categories": [PERSON, {"id": 2, "name": "person"}]},
            "each category once, found 'person' with the ids 1 and 2",
        ),
        ({"category_id": [1]}, r"annotation 10: expected a number or text as category_id, found \[1\]"),
        ({"image_id": [1]}, r"annotation 10: expected a number or text as image_id, found \[1\]"),
    ],
)
def test_categories_and_references_that_cannot_be(tmp_path, change, message):
    path = write(tmp_path, [one([square(2, 2, 4)])])
    data = json.loads(path.read_text())
    (data if "categories" in change else data["annotations"][0]).update(change)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message):
        open_image_set(tmp_path)


def test_an_annotation_id_given_twice(tmp_path):
    path = write(tmp_path, [one([square(2, 2, 4)])])
    data = json.loads(path.read_text())
    data["annotations"] *= 3
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="each annotation id once, found 1 given again, first 10"):
        open_image_set(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "broken JSON"),
        ("[" * 100000, "broken JSON"),
        ("[]", "a list 'images'"),
        ('{"images": {}}', "a list 'images'"),
        ('{"images": [1], "annotations": [], "categories": []}', "a list 'images'"),
        ('{"images": []}', "a list 'annotations'"),
    ],
)
def test_broken_files(tmp_path, text, message):
    path = write(tmp_path, [])
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_image_set(tmp_path)


def test_a_class_that_is_no_category(tmp_path):
    write(tmp_path, [])
    with pytest.raises(InputError, match="expected the categories 'cat', found 'person', 'dog'"):
        open_image_set(tmp_path, ("person", "cat"))


def test_which_layout_a_folder_has(tmp_path):
    with pytest.raises(InputError, match="found no folder of that name"):
        open_image_set(tmp_path / "none")
    with pytest.raises(InputError, match="found neither"):
        open_image_set(tmp_path)
    path = write(tmp_path, [one([square(2, 2, 4)])])
    path.with_name("instances_y.json").write_text("{}")
    with pytest.raises(InputError, match="one instances_.*json, found 2"):
        open_image_set(tmp_path)
    assert open_image_set(path).instances == 1  # the file itself says which
