"""Person and Prediction as containers, and the JSON that programs read."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest

from graftsdk.errors import InputError, ShapeError
from graftsdk.prediction import Attribute, Person, Prediction
from graftsdk.preprocess.boxmasks import BoxMasks, LazyMask

GENDER = Attribute("gender", ("female", "male"), {"female": np.float32(0.07), "male": np.float32(0.93)})
BACKPACK = Attribute("backpack", ("no", "yes"), {"no": 0.9, "yes": 0.1}, {"yes": 0.7})
AGE = Attribute("age", ("child", "adult", "senior"), {"child": 0.25, "adult": 0.5, "senior": 0.25}, {"child": 0.25})
MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:5] = True


def person(index: int = 0, mask: object = MASK, score: float | None = 0.875) -> Person:
    attributes = {each.label: each for each in (GENDER, BACKPACK, AGE)}
    return Person(index, (1.0, 0.333333, 5.5, 4.0), score, attributes, mask)


def prediction(*persons: Person, **fields: object) -> Prediction:
    return Prediction(persons, np.full((4, 6, 3), 7, np.uint8), **fields)


GOLDEN = (
    '{"source": "straße/lobby.jpg", "size": [4, 6], "plan": "00ff", "labels": ["gender", "backpack", "age"], '
    '"truncated": false, "timings": {"decode": 1.235}, "persons": [{"index": 0, "box": [1.0, 0.33, 5.5, 4.0], '
    '"score": 0.875, "attributes": {"gender": {"name": "male", "score": 0.93, "scores": {"female": 0.07, '
    '"male": 0.93}, "thresholds": {"male": 0.5}, "is": {"female": false, "male": true}, "present": true}, '
    '"backpack": {"name": "no", "score": 0.1, "scores": {"no": 0.9, "yes": 0.1}, "thresholds": {"yes": 0.7}, '
    '"is": {"no": true, "yes": false}, "present": false}, "age": {"name": "adult", "score": 0.5, "scores": '
    '{"child": 0.25, "adult": 0.5, "senior": 0.25}, "thresholds": {"child": 0.25}, "is": {"child": true}}}, '
    '"mask": {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}}]}'
)


def test_json_text_is_fixed():
    found = prediction(person(), source="straße/lobby.jpg", timings={"decode": 1.23456}, plan="00ff")
    assert found.to_json(masks=True) == GOLDEN
    assert json.loads(found.to_json(indent=2, masks=True)) == json.loads(GOLDEN) == found.to_dict(masks=True)
    assert "mask" not in found.to_dict()["persons"][0]


def test_json_of_nobody_and_of_an_unnamed_image():
    assert json.loads(prediction(labels=("gender",)).to_json()) == {
        "source": None,
        "size": [4, 6],
        "plan": "",
        "labels": ["gender"],
        "truncated": False,
        "timings": {},
        "persons": [],
    }
    alone = prediction(person(mask=None, score=None)).to_dict(masks=True)["persons"][0]
    assert (alone["mask"], alone["score"]) == (None, None)


def test_json_keeps_every_bit_of_a_score():
    scores = np.random.default_rng(0).random(200, dtype=np.float32)
    for value in (*scores, np.float32(1e-30), np.float32(0.1), np.nextafter(np.float32(1), np.float32(0))):
        told = Attribute("q", ("no", "yes"), {"no": 1 - value, "yes": value}).to_dict()
        assert np.float32(json.loads(json.dumps(told))["score"]).tobytes() == value.tobytes()


def test_json_of_a_path_that_is_not_utf8():
    text = prediction(source=b"\xff.jpg".decode("utf-8", "surrogateescape")).to_json()
    assert json.loads(text.encode("utf-8"))["source"] == "\udcff.jpg"


def test_json_tells_the_moment_where_there_is_one():
    told = prediction(frame=0, timestamp=1 / 3).to_dict()
    assert list(told)[:4] == ["source", "frame", "timestamp", "size"]
    assert (told["frame"], told["timestamp"]) == (0, 0.333333)
    assert not {"frame", "timestamp"} & set(prediction().to_dict())


def decoded(run_lengths: dict) -> np.ndarray:
    height, width = run_lengths["size"]
    flat = [value % 2 for value, count in enumerate(run_lengths["counts"]) for _ in range(count)]
    return np.array([[flat[x * height + y] for x in range(width)] for y in range(height)], bool)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 7), (13, 4)])
def test_run_lengths_against_a_slow_decoder(shape, share):
    for seed in range(4):
        mask = np.random.default_rng(seed).random(shape) < share
        told = person(mask=mask).to_dict(masks=True)["mask"]
        assert sum(told["counts"]) == mask.size
        assert all(count > 0 for count in told["counts"][1:])  # the first run, of zeros, may be empty
        np.testing.assert_array_equal(decoded(told), mask)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_run_lengths_of_a_mask_that_covers_a_part_are_those_of_the_frame(share):
    rng = np.random.default_rng(7)
    extents = [(0, 0, 9, 7), (2, 0, 5, 7), (0, 2, 9, 5), (2, 3, 6, 7), (5, 2, 9, 7), (-3, -2, 4, 30), (20, 20, 30, 30)]
    arrays = [rng.random((4, 5)) < share for _ in extents]
    masks = BoxMasks(arrays, np.array(extents, np.float32))
    for index in range(len(extents)):
        lazy = LazyMask(masks, index, (7, 9))
        assert person(mask=lazy).to_dict(masks=True) == person(mask=lazy()).to_dict(masks=True)


def test_run_lengths_take_the_memory_of_the_person_not_of_the_frame():
    lazy = LazyMask(
        BoxMasks([np.ones((9, 9), bool)], np.array([[3000, 2000, 3060, 2100]], np.float32)), 0, (5000, 5000)
    )
    tracemalloc.start()
    told = person(mask=lazy).to_dict(masks=True)["mask"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told["counts"][:3] == [3000 * 5000 + 2000, 100, 4900] and sum(told["counts"]) == 5000 * 5000
    assert peak < 2 * 2**20


def test_person_reads_like_a_mapping():
    one = person()
    assert one["gender"] is GENDER
    assert [each.label for each in one] == ["gender", "backpack", "age"]
    assert "age" in one
    assert "hat" not in one
    with pytest.raises(InputError, match=r"labels 'gender', 'backpack', 'age', found 'hat'"):
        one["hat"]
    with pytest.raises(InputError, match=r"labels none, found 'hat'"):
        Person(0, (0, 0, 1, 1), None, {})["hat"]


@pytest.mark.parametrize("source", [MASK, lambda: MASK, MASK.astype(np.uint8), MASK.astype(np.uint8) * 255])
def test_masks_are_made_when_asked_for_and_belong_to_the_caller(source):
    one = person(mask=source)
    first = one.mask
    assert first.dtype == np.bool_
    np.testing.assert_array_equal(first, MASK)
    first[:] = True
    np.testing.assert_array_equal(one.mask, MASK)
    assert person(mask=None).mask is None


def test_a_mask_that_nobody_asks_for_is_never_made():
    def fail() -> np.ndarray:
        raise AssertionError("made")

    one = prediction(person(mask=fail))
    assert one.to_dict()["persons"]
    assert repr(one)
    with pytest.raises(AssertionError, match="made"):
        _ = one[0].mask


def test_boxes_belong_to_the_caller():
    given = np.array([1, 2, 3, 4], np.float64)
    one = Person(0, given, None, {})
    given[:] = 0
    one.box[:] = 0
    assert one.box.dtype == np.float32
    assert one.box.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Person(3, (1, 2, 3), None, {}), ShapeError, r"person 3: .*\(4,\), found \(3,\)"),
        (lambda: Person(3, (1, 2, 3, np.nan), None, {}), InputError, r"person 3: expected a finite box"),
        (lambda: Person(3, (1, 2, 3, 4), None, {}, np.zeros((1, 4, 6), bool)).mask, ShapeError, r"person 3: .*mask"),
        (lambda: Prediction((), np.zeros((4, 6), np.uint8)), ShapeError, r"\(H, W, 3\), found \(4, 6\)"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_everything_is_frozen():
    found = prediction(person(), timings={"crop": 1.0})
    for thing, name in ((found, "persons"), (found[0], "index"), (found[0], "box"), (found[0], "mask")):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
            setattr(thing, name, None)
    for mapping in (found.timings, found[0].attributes):
        with pytest.raises(TypeError):
            mapping["x"] = None


def test_prediction_counts_iterates_and_indexes_its_persons():
    found = prediction(person(0), person(1), person(2))
    assert len(found) == 3
    assert [each.index for each in found] == [0, 1, 2]
    assert found[-1].index == 2
    assert [each.index for each in found[1:]] == [1, 2]
    assert found.size == (4, 6)
    assert found.labels == ("gender", "backpack", "age")
    with pytest.raises(IndexError):
        found[3]


def test_the_image_is_the_original():
    image = np.zeros((4, 6, 3), np.uint8)
    assert Prediction((), image).image is image


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize(
    "mask",
    [
        np.eye(4, 6, dtype=bool),
        partial(np.eye, 4, 6),
        LazyMask(BoxMasks([np.eye(4, 6, dtype=bool)], np.array([[0, 0, 6, 4]], np.float32)), 0, (4, 6)),
    ],
    ids=["array", "function", "lazy"],
)
def test_copies(again, mask):
    told = {"source": "a.jpg", "timings": {"crop": 1.0}, "plan": "ff", "frame": 3, "timestamp": 0.12}
    found = prediction(person(mask=mask), **told)
    assert again(found).to_json(masks=True) == found.to_json(masks=True)
    assert (again(found).frame, again(found).timestamp) == (3, 0.12)
    assert (again(found)[0].mask == np.eye(4, 6, dtype=bool)).all()


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            prediction(person(), source="/in/lobby.jpg"),
            "lobby.jpg 6x4: 1 person; 0: gender male 0.93, age adult/child 0.50",
        ),
        (prediction(), "image 6x4: 0 persons"),
        (prediction(source="/in/clip.mp4", frame=7, timestamp=0.28), "clip.mp4 frame 7 6x4: 0 persons"),
        (prediction(Person(0, (0, 0, 1, 1), None, {"backpack": BACKPACK})), "image 6x4: 1 person; 0: nothing to tell"),
        (prediction(source="a\nb.jpg"), "a\ufffdb.jpg 6x4: 0 persons"),
    ],
)
def test_summary(found, text):
    assert repr(found) == str(found) == text


def test_summary_of_a_crowd_stays_readable():
    text = str(prediction(*(person(index) for index in range(60))))
    assert text.endswith("; and 52 more")
    assert text.startswith("image 6x4: 60 persons; 0: ")


def test_importing_prediction_loads_neither_opencv_nor_pillow():
    code = "import sys, graftsdk.prediction; print(sorted({'cv2', 'PIL', 'torch', 'onnx_ir'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
