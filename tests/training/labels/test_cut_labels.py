from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from training.labels import annotated_folders as made

from graftsdk.errors import InputError
from graftsdk.training.labels import check_leaks, find_labels, open_label
from graftsdk.training.labels import import_labels as importing
from graftsdk.training.labels.allot import allot, rarest_class
from graftsdk.training.labels.cutting import CutOptions, cut_labels
from graftsdk.training.labels.import_labels import import_labels
from graftsdk.training.labels.pa100k import read_pa100k
from graftsdk.training.labels.peta import read_peta
from graftsdk.training.labels.questions import Question
from graftsdk.training.labels.rap import read_rap
from graftsdk.training.labels.splits import same_picture_units, sample

HAT = Question("hat", ("no", "yes"), (None, "hat"))
GENDER = Question("gender", ("female", "male"), ("personalFemale", "personalMale"))
AGE = Question("âge", ("young", "middle age", "old"), ("young", "middle", "old"))
ALL = (GENDER, HAT, AGE)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_labels_that_are_written_can_be_opened(tmp_path: Path) -> None:
    images = read_peta(made.crowd(tmp_path / "set"))
    card = import_labels(images, ALL, tmp_path / "new/labels", licence="mine")
    root = tmp_path / "new/labels"
    assert sorted(path.name for path in root.iterdir()) == ["card.json", "gender", "graft.toml", "hat", "âge"]
    assert [path.name for path in root.parent.iterdir()] == ["labels"]
    sets = {label: open_label(root, label) for label in find_labels(root)}
    check_leaks(*sets.values())
    assert {label: each.classes for label, each in sets.items()} == {each.label: each.classes for each in ALL}
    for label, each in sets.items():
        for split in ("train", "val", "test"):
            assert card["labels"][label]["images"][split] == list(each.counts(split).values())
            assert all(image.path.read_bytes().startswith(image.camera.encode()) for image in getattr(each, split))
    owners: dict[str, str] = {}
    for label, each in sets.items():
        for image in (*each.train, *each.val):
            assert owners.setdefault(image.identity, label) == label  # one label a person
    tested = [{image.path.name for image in each.test} for each in sets.values()]
    assert tested[0] == tested[1] == tested[2] and len(tested[0]) == 48  # a fifth of the people, all labels
    assert owners.keys().isdisjoint({image.identity for image in sets["hat"].test})
    assert json.loads((root / "card.json").read_text(encoding="utf-8")) == card
    assert (card["source"], card["licence"], card["images_in_source"]) == ("PETA", "mine", 240)
    assert card["options"]["split"] == "by identity" and len(card["digest"]) == 64


def test_negatives_come_from_the_cameras_of_the_positives(tmp_path: Path) -> None:
    images = read_peta(made.crowd(tmp_path / "set"))
    import_labels(images, ALL, tmp_path / "labels")
    hat = open_label(tmp_path / "labels", "hat")
    assert {image.camera for image in (*hat.train, *hat.val)} == {"north"}
    assert {image.camera for image in hat.test} == {"north", "south"}
    both = Counter(image.target for image in (*hat.train, *hat.val))
    assert both == {0: 48, 1: 16}  # a third of the 192 images that are not tested


def cut(folder: Path, **options: object) -> list[tuple[int, str, int, str]]:
    images = read_peta(folder)
    places, _ = cut_labels(images, ALL, CutOptions(**options))  # type: ignore[arg-type]
    return [(place.label, place.split, place.target, images.names[place.image]) for place in places]


def test_a_cut_depends_on_its_seed_alone(tmp_path: Path) -> None:
    folder = made.crowd(tmp_path / "set")
    first = cut(folder)
    assert first == cut(folder) == sorted(first, key=lambda row: (row[0], ("train", "val", "test").index(row[1])))
    assert first != cut(folder, seed=1)
    assert sum(row[1] == "test" for row in cut(folder, test_share=0.4)) == pytest.approx(3 * 96, abs=6)


@pytest.mark.parametrize(("negatives", "expected"), [(1.0, (20, 20)), (2.0, (40, 20)), (5.0, (50, 10))])
def test_as_many_negatives_as_asked(tmp_path: Path, negatives: float, expected: tuple[int, int]) -> None:
    """Of 12 people with a hat 2 are tested; there is room for 64 of 192 images."""
    rows = [row for row in cut(made.crowd(tmp_path / "set"), negatives=negatives) if row[0] == 1 and row[1] != "test"]
    counts = Counter(row[2] for row in rows)
    assert (counts[0], counts[1]) == expected


def test_allotment_by_hand() -> None:
    """Six people of one image each, two cameras: two positives in the first, which has two negatives to match them."""
    cameras = ["a", "a", "a", "a", "b", "b"]
    targets = np.array([1, 1, 0, 0, 0, 0])
    owner = allot(list("012345"), cameras, [targets], [1], negatives=1.0, seed=0)
    assert owner.tolist() == [0, 0, 0, 0, -1, -1]
    alone = allot(list("012345"), ["a", "a", "b", "b", "b", "b"], [targets], [1], negatives=1.0, seed=0)
    assert alone.tolist() == [-1] * 6  # a camera of positives only would teach the camera


def test_labels_share_what_is_free() -> None:
    identities = [str(index) for index in range(400)]
    rare, common = (np.where(np.arange(400) % step == 0, 1, 0) for step in (10, 2))
    owner = allot(identities, ["c"] * 400, [rare, common], [1, 1], negatives=3.0, seed=0)
    first, second = (np.bincount(target[owner == index]) for index, target in enumerate((rare, common)))
    assert first.tolist() == [120, 40] and not np.any(owner[rare == 1] != 0)
    assert second.sum() == 240 and second[0] < 3 * second[1]  # the last one takes what is left, ratio or not


@pytest.mark.parametrize(
    ("targets", "classes", "expected"), [([0, 1, 1, 1], 2, 1), ([0, 0, 1, 2, 2, -1], 3, 1), ([0, 1, 1, 2, 2], 3, 0)]
)
def test_what_others_are_counted_against(targets: list[int], classes: int, expected: int) -> None:
    assert rarest_class(np.array(targets), classes) == expected


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_samples_are_even(share: float) -> None:
    units = {str(index): (index // 100, "ab"[index // 10 % 2]) for index in range(200)} | {"x": (3, "a"), "y": (3, "b")}
    found = sample(units, share, 0, "test")
    counts = Counter(units[name] for name in found)
    assert all(abs(counts[group, camera] - 50 * share) <= 1 for group in (0, 1) for camera in "ab")
    assert counts[3, "a"] + counts[3, "b"] == 1  # of two at least one, and never all
    assert sample({"x": (3, "a")}, share, 0, "test") == set()


def test_the_same_picture_is_the_same_person(tmp_path: Path) -> None:
    folder = made.crowd(tmp_path / "set")
    chain = ["north/archive/001_0.jpg", "south/archive/001_0.jpg", "south/archive/002_0.jpg"]
    for one, other in pairwise(chain):
        shutil.copy(folder / one, folder / other)
        shutil.copy(folder / one.replace("_0", "_1"), folder / other.replace("_0", "_1"))
    images = read_peta(folder)
    units, _ = same_picture_units(images)
    joined = {unit for unit, name in zip(units, images.identities, strict=True) if name in ("north/001", "south/002")}
    assert len(joined) == 1 and len(set(units)) == 120 - 2
    import_labels(images, ALL, tmp_path / "labels")
    check_leaks(*(open_label(tmp_path / "labels", question.label) for question in ALL))


def test_a_split_of_its_own_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    images = read_pa100k(made.pa100k(tmp_path / "set"))
    question = Question("female", ("no", "yes"), (None, "Female"))
    card = import_labels(images, [question], tmp_path / "labels")
    given = dict(zip(images.names, images.splits or (), strict=True))
    found = open_label(tmp_path / "labels", "female")
    check_leaks(found)
    for split in ("train", "val", "test"):
        names = {image.path.name for image in getattr(found, split)}
        assert names and {given[name] for name in names} == {split}
    assert "000002.jpg" not in {image.path.name for image in found.train}  # the same picture is in test
    assert card["notes"][1:] == ["1 image in a later split too, left out of the earlier one"]
    assert card["options"]["split"] == "the set's own"


def test_rap_is_split_by_track(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    images = read_rap(made.rap(tmp_path / "set", 1))
    question = Question("hat", ("no", "yes"), (None, "hs-Hat"))
    with pytest.raises(InputError, match="label 'hat': expected images of 'no' in the set, found none"):
        cut_labels(images, [question], CutOptions())  # everything is unknown


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        (Question("x", ("no", "yes"), (None, "cap")), {}, "label 'x': expected an attribute of the set, found 'cap'"),
        (Question("x", ("no", "yes"), (None, "hat and south")), {}, "found 'south'"),
        (Question("x", ("no", "yes"), (None, "hat and not hat")), {}, "expected images of 'yes' in the set"),
        (Question("x", ("no", "yes"), ("hat", "hat")), {}, "expected images of 'no' in the set"),
        (HAT, {"negatives": 0.0}, "negatives: expected a number above 0"),
        (HAT, {"negatives": float("nan")}, "negatives: expected"),
        (HAT, {"test_share": 1.0}, "test_share: expected a number above 0 and below 1"),
        (HAT, {"val_share": 0.0}, "val_share: expected"),
    ],
)
def test_nothing_is_written_before_all_is_known(
    tmp_path: Path, question: Question, options: dict[str, float], message: str
) -> None:
    images = read_peta(made.crowd(tmp_path / "set", people=20))
    with pytest.raises(InputError, match=message):
        import_labels(images, [question], tmp_path / "labels", CutOptions(**options))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("writer", ["_put", "write_identities", "atomic_write"])
def test_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, writer: str
) -> None:
    images = read_peta(made.crowd(tmp_path / "set"))
    real = getattr(importing, writer)
    calls = Counter[str]()

    def fail(*arguments: object) -> object:
        calls[writer] += 1
        if calls[writer] == 2:
            raise failure
        return real(*arguments)

    monkeypatch.setattr(importing, writer, fail)
    (tmp_path / "labels").mkdir()
    with pytest.raises(type(failure)):
        import_labels(images, ALL, tmp_path / "labels")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "set"]
    assert list((tmp_path / "labels").iterdir()) == [] and len(everything(tmp_path / "set")) == 242


def test_targets(tmp_path: Path) -> None:
    images = read_peta(made.crowd(tmp_path / "set"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").touch()
    (tmp_path / "file").touch()
    for name, message in (("full", "found something in it"), ("file", "expected a new or empty folder")):
        with pytest.raises(InputError, match=message):
            import_labels(images, ALL, tmp_path / name)
    with pytest.raises(InputError, match="expected a (new or empty folder|folder that can be written)"):
        import_labels(images, ALL, tmp_path / "file/labels")


def test_links_and_copies(tmp_path: Path) -> None:
    images = read_peta(made.crowd(tmp_path / "set"))
    first = import_labels(images, ALL, tmp_path / "copies")
    second = import_labels(images, ALL, tmp_path / "links", link=True)
    assert first == second and everything(tmp_path / "copies") == everything(tmp_path / "links")
    name = "hat/test/no/" + next(iter(sorted(path.name for path in (tmp_path / "links/hat/test/no").iterdir())))
    subset, _, file = name.rpartition("/")[2].partition("_")
    source = tmp_path / "set" / subset / "archive" / file
    assert (tmp_path / "links" / name).samefile(source) and not (tmp_path / "copies" / name).samefile(source)


def test_an_image_that_goes_away(tmp_path: Path) -> None:
    images = read_peta(made.crowd(tmp_path / "set"))
    images.paths[7].unlink()
    with pytest.raises(InputError, match=f"{images.paths[7]}: expected a readable file"):
        import_labels(images, ALL, tmp_path / "labels")


def test_peta_itself(shared: Path) -> None:
    """The notes' own counts, and no person twice; nothing is written."""
    images = read_peta(shared / "data/PETA")
    assert (len(images), len(set(images.identities))) == (16524, 7635)
    backpack = Question("backpack", ("no", "yes"), (None, "carryingBackpack")).targets(images)
    assert (int((backpack == 1).sum()), len({images.identities[row] for row in np.flatnonzero(backpack == 1)})) == (
        3274,
        2211,
    )
    suit = Question("suit", ("no", "yes"), (None, "upperBodySuit or lowerBodySuits")).targets(images)
    assert int((suit == 1).sum()) == 1085
