from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from graftsdk.errors import DecodeError, ImageTooLarge, InputError
from graftsdk.plan import CropSpec
from graftsdk.preprocess import mask_crop
from graftsdk.training.labels import LabelSet, check_leaks, find_labels, open_label, read_crop
from graftsdk.training.labels.draws import draw, held_identities
from graftsdk.training.labels.identities import read_identities, write_identities

SPEC = CropSpec(size=(16, 8), fill=99)


def put(root: Path, *files: str) -> None:
    """Files whose bytes are their own names: no decoder is asked."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def label(root: Path, name: str = "hat", classes: tuple[str, ...] = ("no", "yes"), each: int = 4) -> Path:
    for split in ("train", "val", "test"):
        put(root / name, *(f"{split}/{c}/{i}.jpg" for c in classes for i in range(each)))
    return root / name


def names(images: tuple[object, ...], folder: Path) -> list[str]:
    return [image.path.relative_to(folder).as_posix() for image in images]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["hat", "lady's bag", "größe", "安全帽", "a.b"])
def test_folders_are_the_label(tmp_path: Path, name: str) -> None:
    folder = label(tmp_path, name, each=2)
    put(tmp_path, "notes/readme.jpg", "graft.txt", f"{name}/train/.thumbs/x.jpg", f"{name}/train/yes/list.txt")
    assert find_labels(tmp_path) == (name,)
    found = open_label(tmp_path, name)
    assert (found.label, found.classes) == (name, ("no", "yes"))
    assert names(found.train, folder) == ["train/no/0.jpg", "train/no/1.jpg", "train/yes/0.jpg", "train/yes/1.jpg"]
    assert [image.target for image in found.train] == [0, 0, 1, 1]
    assert found.counts("val") == found.counts("test") == {"no": 2, "yes": 2}
    assert len({image.identity for split in (found.train, found.val, found.test) for image in split}) == 12
    assert found.train[0].camera == ""


@pytest.mark.parametrize(
    ("folders", "toml", "given", "expected"),
    [
        (("no", "yes"), None, None, ("no", "yes")),
        (("yes", "no"), "[labels.other]\nclasses=['a']", None, ("no", "yes")),
        (("female", "male"), "[labels.hat]\nclasses=['male', 'female']", None, ("male", "female")),
        (("a", "b", "c"), "[labels.hat]\nclasses=['c', 'a', 'b']\ntap=3", None, ("c", "a", "b")),
        (("female", "male"), "[labels.hat]\nclasses=['male', 'female']", ("female", "male"), ("female", "male")),
    ],
)
def test_order_of_classes(
    tmp_path: Path, folders: tuple[str, ...], toml: str | None, given: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    label(tmp_path, classes=folders)
    if toml is not None:
        (tmp_path / "graft.toml").write_text(toml, encoding="utf-8")
    found = open_label(tmp_path, "hat", classes=given)
    assert found.classes == expected
    assert {image.path.parent.name for image in found.train if image.target == 0} == {expected[0]}


@pytest.mark.parametrize(
    ("folders", "toml", "given", "message"),
    [
        (("female", "male"), None, None, "expected the order of its classes 'female', 'male'"),
        (("no", "yes", "maybe"), None, None, r"write \[labels.hat\] classes"),
        (("yes",), None, None, "expected two classes or more, a folder each, found 'yes'"),
        (("a", "b"), "[labels.hat]\nclasses=['a', 'c']", None, "graft.toml's classes of 'hat': expected the folders"),
        (("a", "b"), "[labels.hat]\nclasses='ab'", None, "expected labels.hat.classes as a list of names"),
        (("a", "b"), "[labels]\nhat=3", None, r"expected a table \[labels.hat\], found 3"),
        (("a", "b"), "[labels", None, "graft.toml: expected a TOML file"),
        (("a", "b"), None, ("a", "a", "b"), "classes: expected the folders"),
        (("no", "yes"), None, ("yes", "no"), "expected 'no', 'yes' in this order"),
        (("a", "A"), None, ("a", "A"), "different names"),
    ],
)
def test_order_that_nobody_can_tell(
    tmp_path: Path, folders: tuple[str, ...], toml: str | None, given: tuple[str, ...] | None, message: str
) -> None:
    label(tmp_path, classes=folders)
    if toml is not None:
        (tmp_path / "graft.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        open_label(tmp_path, "hat", classes=given)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "found no folder of that name"),
        (("hat/val/no/0.jpg",), "hat: expected a folder train, found none"),
        (("hat/train/a.jpg",), "expected two classes or more"),
        (("hat/train/no/0.jpg", "hat/train/yes/0.txt"), "hat/train/yes: expected images"),
        (("hat/train/no/0.jpg", "hat/train/yes/0.jpg", "hat/test/no/0.jpg"), "hat/test/yes: expected images"),
        (("hat/train/no/0.jpg", "hat/train/yes/0.jpg", "hat/test/x/0.jpg"), "hat/test: expected the classes of train"),
        (("hat/train/no/0.jpg", "hat/train/yes/0.jpg"), "hat/train/no: expected two identities or more"),
    ],
)
def test_folders_that_are_no_label(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    put(tmp_path, *files)
    with pytest.raises(InputError, match=message):
        open_label(tmp_path, "hat")


@pytest.mark.parametrize("name", ["", ".", "..", "../hat", "hat/train"])
def test_a_label_is_one_folder(tmp_path: Path, name: str) -> None:
    label(tmp_path)
    with pytest.raises(InputError):
        open_label(tmp_path, name)


def test_no_label(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected folders LABEL/train/CLASS/"):
        find_labels(tmp_path)
    with pytest.raises(InputError, match="expected a readable folder"):
        find_labels(tmp_path / "missing")


def cut(root: Path, people: int, seed: int = 0) -> LabelSet:
    """Three images a person, of which the first five are of both classes."""
    rows = []
    for person in range(people):
        for index in range(3):
            name = "yes" if person % 3 == 0 or (person < 5 and index == 0) else "no"
            rows.append((f"train/{name}/{person}_{index}.jpg", f"p{person}", "north"))
    put(root / "hat", *(row[0] for row in rows))
    write_identities(root / "hat", rows)
    return open_label(root, "hat", val_share=0.25, seed=seed)


def test_thinned_are_the_classes_that_are_named(tmp_path: Path) -> None:
    folder = label(tmp_path, "age", ("old", "young", "child"), each=3)
    whole = open_label(tmp_path, "age", classes=("old", "young", "child"))
    found = whole.thinned(["train/old/1.jpg", "train/young/0.jpg", "train/young/2.jpg"])
    wanted = ["child/0.jpg", "child/1.jpg", "child/2.jpg", "old/1.jpg", "young/0.jpg", "young/2.jpg"]
    assert names(found.train, folder) == [f"train/{name}" for name in wanted]
    assert (found.val, found.test) == (whole.val, whole.test) and found.digest != whole.digest


@pytest.mark.parametrize(
    "listed, message",
    [
        ([], "not of all, found none in it"),
        (["train/no/9.jpg"], "found 'train/no/9.jpg', which is none; mine this label again"),
        (["val/no/1.jpg", "train/no/1.jpg"], "found 'val/no/1.jpg', which is none"),
        (["train/no/1.jpg", "train/yes/1.jpg"], "not of all, found 'no', 'yes' in it"),
    ],
)
def test_lists_of_another_label(tmp_path: Path, listed: list[str], message: str) -> None:
    label(tmp_path)
    with pytest.raises(InputError, match=message):
        open_label(tmp_path, "hat").thinned(listed)


def test_val_is_cut_by_identity(tmp_path: Path) -> None:
    found = cut(tmp_path, 120)
    check_leaks(found)
    people = [{image.identity for image in side} for side in (found.train, found.val)]
    assert len(people[0] | people[1]) == 120 and 18 <= len(people[1]) <= 42  # 30, 3 deviations either way
    assert found.test == () and found.val[0].camera == "north"
    assert open_label(tmp_path, "hat", val_share=0.25) == found
    assert {image.identity for image in cut(tmp_path, 120, seed=1).val} != people[1]


def test_images_that_are_added_move_no_other(tmp_path: Path) -> None:
    before = cut(tmp_path, 60)
    after = cut(tmp_path, 120)
    for split in ("train", "val"):
        assert {image.path for image in getattr(before, split)} <= {image.path for image in getattr(after, split)}
    assert before.digest != after.digest


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_no_side_stays_without_a_class(share: float) -> None:
    held = held_identities({0: {"a", "b", "c"}, 1: {"d", "e"}}, share, 0)
    assert len(held & {"a", "b", "c"}) in (1, 2) and len(held & {"d", "e"}) == 1


def test_draws_are_even() -> None:
    values = [draw(0, str(index)) for index in range(4000)]
    counts, _ = np.histogram(values, bins=8, range=(0, 1))
    assert np.abs(counts - 500).max() < 80 and draw(1, "0") != values[0] and draw(0, "a", "b") != draw(0, "ab")


@pytest.mark.parametrize(
    ("change", "other"),
    [
        (lambda folder: (folder / "train/no/0.jpg").write_bytes(b"longer than before"), True),
        (lambda folder: (folder / "train/no/0.jpg").rename(folder / "train/yes/9.jpg"), True),
        (lambda folder: (folder / "val/no/0.jpg").rename(folder / "train/no/9.jpg"), True),
        (lambda folder: put(folder, "train/no/note.txt"), False),
        (lambda folder: os.utime(folder / "train/no/0.jpg", (0, 0)), False),
    ],
)
def test_digest_follows_what_is_learnt(tmp_path: Path, change: object, other: bool) -> None:
    folder = label(tmp_path)
    before = open_label(tmp_path, "hat").digest
    change(folder)  # type: ignore[operator]
    assert (open_label(tmp_path, "hat").digest != before) is other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,who\n", "expected the columns file,identity"),
        ("", "expected the columns"),
        ("file,identity\na.jpg\n", "line 2: expected 2 cells, found 1"),
        ("file,identity,camera\na.jpg,1,c,d\n", "line 2: expected 3 cells, found 4"),
        ("file,identity\na.jpg,1\na.jpg,2\n", "line 3: expected every file once"),
        ("file,identity\na.jpg, \n", "line 2: expected an identity"),
        ('file,identity\n"a.jpg,1\n', "expected CSV"),
        ("file,identity\ntrain/no/0.jpg,1\n", "expected a row for every image, found none for 'train/no/1.jpg'"),
        (b"file,identity\n\xff,1\n", "in UTF-8"),
    ],
)
def test_broken_identities(tmp_path: Path, text: str | bytes, message: str) -> None:
    folder = label(tmp_path)
    (folder / "identities.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"identities.csv.*{message}"):
        open_label(tmp_path, "hat")


def test_identities_of_a_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "identities.csv").write_bytes("\ufefffile,identity\r\na b.jpg, Zoë \r\n\r\ngone.jpg,2\r\n".encode())
    assert read_identities(tmp_path) == {"a b.jpg": ("Zoë", ""), "gone.jpg": ("2", "")}


@pytest.mark.parametrize(
    ("rows", "copied", "message"),
    [
        ({}, None, None),
        ({"train/no/0.jpg": "p", "train/yes/1.jpg": "p"}, None, None),
        ({"train/no/0.jpg": "p", "test/yes/1.jpg": "p"}, None, "both in train and in test, found 1 identity.*'p'"),
        ({"train/no/0.jpg": "p", "val/no/1.jpg": "p"}, None, "both in train and in val"),
        ({"val/no/0.jpg": "p", "test/no/1.jpg": "p"}, None, "both in val and in test"),
        ({}, ("train/no/0.jpg", "train/no/8.jpg"), None),
        ({}, ("train/no/0.jpg", "test/yes/8.jpg"), "in test, found 1 image with the same bytes.*train/no/0.*yes/8"),
        ({}, ("train/no/0.jpg", "val/no/8.jpg"), "both in train and in val, found 1 image with the same bytes"),
    ],
)
def test_leaks(tmp_path: Path, rows: dict[str, str], copied: tuple[str, str] | None, message: str | None) -> None:
    folder = label(tmp_path)
    if copied is not None:
        (folder / copied[1]).write_bytes((folder / copied[0]).read_bytes())
    if rows:
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
        write_identities(folder, [(file, rows.get(file, file), "") for file in files])
    found = open_label(tmp_path, "hat")
    if message is None:
        check_leaks(found)
        return
    with pytest.raises(InputError, match=message):
        check_leaks(found)


def test_leaks_between_labels(tmp_path: Path) -> None:
    for name, bytes_of in (("bag", "a"), ("hat", "b")):
        for path in label(tmp_path, name).rglob("*.jpg"):
            path.write_bytes(f"{bytes_of} {path.relative_to(tmp_path)}".encode())
    bag, hat = (open_label(tmp_path, name) for name in ("bag", "hat"))
    check_leaks(bag, hat)
    hat.test[0].path.write_bytes(bag.train[0].path.read_bytes())
    check_leaks(bag)
    check_leaks(hat)
    with pytest.raises(InputError, match="both in train and in test"):
        check_leaks(bag, hat)


def test_read_crop_is_what_serving_cuts(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (40, 24, 4), np.uint8)
    pixels[:, :, 3] = np.where(rng.random((40, 24)) < 0.5, 255, 100)
    cv2.imwrite(str(tmp_path / "masked.png"), pixels)
    cv2.imwrite(str(tmp_path / "plain.png"), pixels[:, :, :3])
    box = np.array([[0, 0, 24, 40]])
    bgr = pixels[:, :, :3]
    np.testing.assert_array_equal(read_crop(tmp_path / "plain.png", SPEC), mask_crop(bgr, box, None, SPEC)[0])
    mask = pixels[None, :, :, 3] >= 128
    np.testing.assert_array_equal(read_crop(tmp_path / "masked.png", SPEC), mask_crop(bgr, box, mask, SPEC)[0])
    assert read_crop(tmp_path / "plain.png", SPEC).shape == (3, 16, 8)
    kept = CropSpec(size=(16, 8), background="keep")  # what is under the alpha is the background
    np.testing.assert_array_equal(read_crop(tmp_path / "masked.png", kept), read_crop(tmp_path / "plain.png", kept))


def test_images_that_cannot_be_read_are_named_when_they_are(tmp_path: Path) -> None:
    folder = label(tmp_path)
    path = open_label(tmp_path, "hat").train[0].path  # opening asks no decoder
    with pytest.raises(DecodeError, match=rf"^{path}: image: expected JPEG"):
        read_crop(path, SPEC)
    with pytest.raises(InputError, match="gone.jpg: image: expected a file, found nothing"):
        read_crop(folder / "gone.jpg", SPEC)


def test_forty_megapixels(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.full((5000, 8000), 77, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    value = (77 / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    np.testing.assert_allclose(read_crop(path, SPEC), np.broadcast_to(value[:, None, None], (3, 16, 8)), rtol=1e-4)
    data = bytearray(path.read_bytes())
    data[16:20] = (10001).to_bytes(4, "big")  # the width in its header
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(ImageTooLarge, match="large.png: image: expected at most 50000000 pixels"):
        read_crop(path, SPEC)


def test_counts_of_an_unknown_split(tmp_path: Path) -> None:
    label(tmp_path)
    found = open_label(tmp_path, "hat")
    assert json.dumps(found.counts("train")) == '{"no": 4, "yes": 4}'
    with pytest.raises(InputError, match="split: expected train, val, test"):
        found.counts("training")
