"""Drawn scenes as an annotated set: who is cut out, what is known of them, what is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training.labels import annotated_folders as made

from graftsdk.errors import InputError
from graftsdk.preprocess.cutout import cut_out
from graftsdk.training.labels import check_leaks, find_labels, open_label, scenes
from graftsdk.training.labels.annotated import NO, UNKNOWN, YES
from graftsdk.training.labels.cutting import CutOptions
from graftsdk.training.labels.import_labels import import_labels
from graftsdk.training.labels.questions import Question
from graftsdk.training.labels.scenes import cut_scenes
from graftsdk.training.labels.told import attribute_table
from graftsdk.training.synthetic import write_scenes
from graftsdk.training.synthetic.attributes import ATTRIBUTES

HAT = Question("hat", ("no", "yes"), (None, "hat"))


def load(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((root / scenes.ANNOTATIONS).read_text())
    return document


def save(root: Path, document: object) -> None:
    (root / scenes.ANNOTATIONS).write_text(json.dumps(document))


def test_everybody_is_cut_out_by_the_mask(tmp_path: Path) -> None:
    folder = made.scenes(tmp_path / "set", 3)
    with cut_scenes(folder, tmp_path / "out") as images:
        assert images.names == tuple(f"{scene:06d}_{side}.png" for scene in range(3) for side in range(2))
        assert len(set(images.identities)) == 6 and len(set(images.units)) == 3 and set(images.cameras) == {"drawn"}
        hats = ("hat", "lookalike_hat", "lookalike_hat_bun")
        assert images.attributes == ("age_child", "age_old", *hats, "yaw_bin_0", "yaw_bin_1")
        assert images.values[:4].tolist() == [
            [YES, NO, YES, NO, NO, YES, NO],
            [NO, YES, NO, YES, YES, NO, YES],
            [YES, NO, NO, NO, NO, YES, NO],
            [NO, YES, NO, YES, YES, NO, YES],
        ]
        for row, path in enumerate(images.paths):
            whole = cv2.imread(str(folder / f"scenes/{row // 2:06d}.jpg"))
            ys, xs = np.nonzero(made.MASKS[row % 2])
            around = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            crop = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(crop[:, :, :3], whole[around])  # colours stay outside the mask too
            np.testing.assert_array_equal(crop[:, :, 3], 255 * made.MASKS[row % 2][around].astype(np.uint8))
            box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            np.testing.assert_array_equal(
                crop, cut_out(whole, box, made.MASKS[row % 2][None]).pixels
            )  # graftsdk crop's
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_crowds_slivers_and_empty_masks_are_left_out_and_told(tmp_path: Path) -> None:
    folder = made.scenes(tmp_path / "set", 3)
    document = load(folder)
    sliver, nothing = np.zeros(made.SIDES, bool), np.zeros(made.SIDES, bool)
    sliver[4:30, 7:22] = True  # 15 across
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][1]["segmentation"] = made.packed(sliver)
    document["annotations"][2]["segmentation"] = made.packed(nothing)
    document["annotations"][3]["image_id"] = 99
    save(folder, document)
    with cut_scenes(folder, tmp_path / "out") as images:
        assert images.names == ("000002_0.png", "000002_1.png")
    notes = "\n".join(images.notes)
    assert "1 person too hidden" in notes and "1 person of less than 16 pixels" in notes
    assert "1 annotation with an empty mask" in notes and "1 annotation of images that it does not list" in notes


def test_labels_of_scenes_leak_nothing(tmp_path: Path) -> None:
    age = Question("age", ("child", "old"), ("age_child", "age_old and not hat"))
    with cut_scenes(made.scenes(tmp_path / "set", 40), tmp_path / "out", (HAT, age)) as images:
        card = import_labels(images, (HAT, age), tmp_path / "out", CutOptions(negatives=1.0))
    sets = [open_label(tmp_path / "out", label) for label in find_labels(tmp_path / "out")]
    check_leaks(*sets)
    train, val, test = (
        {image.identity[:6] for each in sets for image in getattr(each, split)} for split in ("train", "val", "test")
    )
    assert not test & (train | val) and not train & val  # no scene on two sides
    trained = [image.identity for each in sets for image in (*each.train, *each.val)]
    assert len(trained) == len(set(trained))  # one label a person
    assert (card["source"], card["images_in_source"]) == ("drawn scenes", 80)


def test_tables_of_what_is_told() -> None:
    people: list[dict[str, Any]] = [{"a": True, "b": "x"}, {"a": False, "b": ""}]
    people += [{"b": "x y", "n": 3, "big": 10**400}, {"n": 4.0, "share": float("nan")}]
    names, values = attribute_table(people, "here")
    assert dict(zip(names, values.T.tolist(), strict=True)) == {
        "a": [YES, NO, UNKNOWN, UNKNOWN],
        "b": [YES, NO, YES, UNKNOWN],
        "b_x": [YES, NO, NO, UNKNOWN],
        "b_x y": [NO, NO, YES, UNKNOWN],
        "n_3": [UNKNOWN, UNKNOWN, YES, NO],
        "n_4": [UNKNOWN, UNKNOWN, NO, YES],
    }


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ([{"a": True}, {"a": "x"}], "'a' as yes or no, a text or a number, found bool, str"),
        ([{"a": 1}, {"a": True}], "found bool, float"),
        ([{"a": ["x"]}], "found list"),
        ([{"a_x": True, "a": "x"}], "different names, found 'a_x' twice"),
        ([{"a": None, "b": 0.5}], "attributes of people, found none"),
        ([{f"a{index}": True for index in range(1001)}], "at most 1000 attributes, found more"),
        ([{"a": str(index)} for index in range(1001)], "at most 1000 attributes and values, found more"),
    ],
)
def test_no_table(people: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=f"^here: expected .*{message}"):
        attribute_table(people, "here")


def change(path: str, value: object) -> Callable[[Path], None]:
    """Sets one value of the document, "annotations/3/attributes"."""

    def do(folder: Path) -> None:
        document: Any = load(folder)
        entry = document
        *way, last = [int(word) if word.isdigit() else word for word in path.split("/")]
        for word in way:
            entry = entry[word]
        entry[last] = value
        save(folder, document)

    return do


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / scenes.ANNOTATIONS).unlink(), "a folder that graftsdk scenes made"),
        (lambda folder: (folder / scenes.ANNOTATIONS).write_bytes(b'{"images": ['), "broken JSON"),
        (lambda folder: (folder / scenes.ANNOTATIONS).write_text("[" * 100_000), "broken JSON"),
        (lambda folder: (folder / "scenes/000001.jpg").unlink(), "1 missing, first '000001.jpg'"),
        (lambda folder: (folder / "scenes/000001.jpg").write_bytes(b"\xff\xd8\xff"), "000001.jpg: "),
        (
            lambda folder: cv2.imwrite(str(folder / "scenes/000001.jpg"), np.zeros((60, 40, 3), np.uint8)),
            "000001.jpg: expected 60x40 pixels, as annotated, found 40x60",
        ),
        (change("annotations/3/attributes", None), "annotation 3: expected a table of attributes, found None"),
        (change("annotations/3/attributes/hat", []), "'hat' as yes or no"),
        (change("annotations/3/segmentation", [[1, 1, 9, 1, 9, 9]]), "annotation 3: expected packed run lengths"),
        (change("annotations/3/segmentation/counts", "000000009999"), "annotation 3: expected run lengths that sum"),
        (change("annotations/3/segmentation/counts", [2400]), "annotation 3: expected packed run lengths"),
        (change("annotations/3/segmentation/size", [40, 2**40]), "annotation 3: expected run lengths of"),
        (change("images/1/file_name", "../../../etc/passwd"), "expected a file name inside"),
        (change("annotations", []), "expected people with masks that are no crowd, found none"),
        (change("categories", [{"id": 1, "name": "dog"}]), "expected the categories 'person'"),
    ],
)
def test_scenes_that_cannot_be_cut(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = made.scenes(tmp_path / "set", 3)
    damage(folder)
    with pytest.raises(InputError) as caught, cut_scenes(folder, tmp_path / "out", (HAT,)) as images:
        import_labels(images, (HAT,), tmp_path / "out")
    assert message in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


@given(st.binary(max_size=40), st.integers(0, 400))
def test_damaged_run_lengths_are_refused_or_read(tmp_path_factory: Any, junk: bytes, at: int) -> None:
    folder = made.scenes(tmp_path_factory.mktemp("junk") / "set", 1)
    document = load(folder)
    runs = document["annotations"][0]["segmentation"]
    runs["counts"] = runs["counts"][: at % len(runs["counts"])] + junk.decode("latin-1")
    save(folder, document)
    try:
        with cut_scenes(folder, folder.parent / "out") as images:
            assert len(images) >= 1
    except InputError:
        pass
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("question", "target", "message"),
    [
        (Question("x", ("no", "yes"), (None, "hats")), "out", "expected an attribute of the set, found 'hats'"),
        (HAT, "set", "expected a new or empty folder"),
    ],
)
def test_nothing_is_cut_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: Question, target: str, message: str
) -> None:
    folder = made.scenes(tmp_path / "set", 2)
    monkeypatch.setattr(scenes, "decode_image", None)
    with pytest.raises(InputError, match=message), cut_scenes(folder, tmp_path / target, (question,)):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), None])
def test_nothing_stays_of_a_cutting_that_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError | None
) -> None:
    folder, cut = made.scenes(tmp_path / "set", 3), scenes.cut_out
    asked: list[bool] = []

    def fail(*arguments: Any) -> Any:
        if failure:
            raise failure
        if not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return cut(*arguments)

    monkeypatch.setattr(scenes, "cut_out", fail)
    with pytest.raises((OSError, KeyboardInterrupt)), cut_scenes(folder, tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_what_is_drawn_can_be_read(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "set", 4, seed=8, size=(288, 384))
    people = [entry for entry in json.loads(path.read_bytes())["annotations"] if not entry["iscrowd"]]
    people = [entry for entry in people if min(entry["bbox"][2:]) >= 16]
    with cut_scenes(tmp_path / "set", tmp_path / "out") as images:
        assert len(images) == len(people) >= 4 and set(ATTRIBUTES) <= set(images.attributes)
        column = images.attributes.index("backpack")
        told = [YES if entry["attributes"]["backpack"] else NO for entry in people]
        assert images.values[:, column].tolist() == told
