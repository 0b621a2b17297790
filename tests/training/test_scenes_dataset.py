from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

import graftsdk.training.synthetic as synthetic
from graftsdk.errors import InputError, MissingDependency, ShapeError
from graftsdk.training.synthetic import DrawnPerson, draw_scene, generator_digest, is_crowd, write_scenes

SIZE = (120, 200)
COUNT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "new" / "scenes"
    assert write_scenes(path, COUNT, seed=3, size=SIZE) == path / "annotations/instances_scenes.json"
    return path


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_pycocotools_reads_what_was_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(folder / "annotations/instances_scenes.json")
    capsys.readouterr()
    assert len(coco.imgs) == COUNT
    for index, image in coco.imgs.items():
        scene = draw_scene(3, index, SIZE)
        stored = cv2.imread(str(folder / "scenes" / image["file_name"]))
        assert stored.shape[:2] == (image["height"], image["width"]) == SIZE
        assert np.abs(stored.astype(int) - scene.image).mean() < 12  # what a JPEG of low quality changes
        told = coco.loadAnns(coco.getAnnIds(index))
        assert len(told) == len(scene.persons)
        for annotation, person in zip(told, scene.persons, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), person.mask)
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == person.box
            assert annotation["area"] == person.mask.sum() == rle.area(annotation["segmentation"])
            assert annotation["amodal_area"] == person.amodal.sum()
            assert annotation["occlusion"] == pytest.approx(person.occlusion, abs=1e-4)
            assert annotation["iscrowd"] == is_crowd(person)
            assert annotation["attributes"] == person.attributes
            assert annotation["category_id"] == 1


def test_the_card_says_how_it_was_made(folder: Path) -> None:
    document = json.loads((folder / "annotations/instances_scenes.json").read_bytes())
    assert document["info"]["seed"] == 3
    assert document["info"]["size"] == list(SIZE)
    assert document["info"]["generator"] == generator_digest()
    assert document["categories"] == [{"id": 1, "name": "person", "supercategory": "person"}]
    assert [each["id"] for each in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))


def test_more_workers_draw_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "two", COUNT, seed=3, size=SIZE, workers=2)
    assert files(tmp_path / "two") == files(folder)


def test_the_digest_is_of_names_and_bytes_of_the_sources() -> None:
    expected = hashlib.sha256()
    for path in sorted(Path(synthetic.__file__).parent.iterdir()):
        if path.suffix == ".py":
            source = path.read_bytes()
            expected.update(path.name.encode() + b"\0" + str(len(source)).encode() + b"\0" + source)
    assert generator_digest() == expected.hexdigest()


def seen(visible: int, whole: int, size: tuple[int, int]) -> DrawnPerson:
    amodal = np.zeros(size, bool)
    amodal.flat[:whole] = True
    mask = np.zeros(size, bool)
    mask.flat[:visible] = True
    return DrawnPerson((0, 0, 1, 1), mask, amodal, 1 - visible / whole, {})


@pytest.mark.parametrize(
    ("visible", "whole", "size", "crowd"),
    [
        (60, 60, (360, 640), False),
        (59, 59, (360, 640), True),
        (120, 1000, (360, 640), False),
        (119, 1000, (360, 640), True),
        (239, 239, (720, 1280), True),
        (240, 240, (720, 1280), False),
        (15, 15, (180, 320), False),
    ],
)
def test_who_is_too_hidden_or_too_small_to_ask_for(
    visible: int, whole: int, size: tuple[int, int], crowd: bool
) -> None:
    assert is_crowd(seen(visible, whole, size)) is crowd


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"count": 0}, InputError, "count: expected an integer from 1"),
        ({"count": 1_000_000}, InputError, "count: expected an integer from 1 to 999999"),
        ({"count": 1, "workers": 0}, InputError, "workers: expected an integer from 1"),
        ({"count": 1, "seed": -1}, InputError, "seed: expected an integer from 0"),
        ({"count": 1, "size": (10, 10)}, ShapeError, "size: expected (height, width)"),
    ],
)
def test_wrong_arguments_leave_no_folder(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        write_scenes(tmp_path / "new", **arguments)
    assert text in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="expected a new or empty folder, found files in it"):
        write_scenes(tmp_path, 1, size=SIZE)
    assert files(tmp_path) == {"mine.txt": hashlib.sha256(b"mine").hexdigest()}


@pytest.mark.parametrize("below", ["", "scenes"])
def test_a_file_in_the_folders_place(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="expected a folder, found a file"):
        write_scenes(tmp_path / "file" / below, 1, size=SIZE)


def test_an_unfinished_folder_has_no_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("graftsdk.training.synthetic.dataset.atomic_write", fail)
    with pytest.raises(OSError, match="No space left"):
        write_scenes(tmp_path / "new", 2, size=SIZE)
    assert not files(tmp_path / "new")


def test_without_pycocotools_the_install_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(MissingDependency, match=r"needs pycocotools: pip install 'graftsdk\[train\]'"):
        write_scenes(tmp_path / "new", 1, size=SIZE)
    assert not (tmp_path / "new").exists()
