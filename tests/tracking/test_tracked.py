"""Streams with tracks, from the pictures to the answers: what is computed, for whom, and what is shown and told."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_segmenter
import toys

from graftsdk import Predictor
from graftsdk.drawing.draw import color_of, number_of
from graftsdk.engines import Engine
from graftsdk.errors import InputError, MissingDependency, ShapeError
from graftsdk.plan import PartInfo, Provenance, SegmenterInfo
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import read_segmenter_part
from graftsdk.prediction import Attribute, Person, Prediction
from graftsdk.segment import recognise
from graftsdk.tracking import Tracking, tracked

LABELS = ("child", "hat", "bag")
NEWEST = Tracking(memory=0, decide_after=1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracks")
    part, inputs, outputs, _ = read_segmenter_part(toy_segmenter.write(folder / "s.onnx"))
    info = SegmenterInfo(part=part.name, **recognise(inputs, outputs))
    segmenter = part, info, PartInfo("segmenter", part.digest, provenance=Provenance("", ""))
    branches = [toys.branch(label, tap, seed=tap + 1) for tap, label in enumerate(LABELS)]
    create_plan(folder / "p.plan", toys.trunk(), branches, segmenter)
    return folder / "p.plan"


@pytest.fixture(scope="module", params=["split", "merged"])
def predictor(plan: Path, request: pytest.FixtureRequest) -> Iterator[Predictor]:
    with Predictor(plan, layout=request.param) as predictor:
        yield predictor


@pytest.fixture
def frames() -> list[np.ndarray]:
    """Noise of ten frames, in which the toy finds the same persons at the same places."""
    return [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8) for seed in range(10)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(crops, labels) of each run of an engine."""
    found = []
    run = Engine.run

    def counted(self: Engine, feeds: Any, outputs: Any = None) -> Any:
        if "crops" in feeds:
            found.append((len(feeds["crops"]), len(outputs)))
        return run(self, feeds, outputs)

    monkeypatch.setattr(Engine, "run", counted)
    return found


def layout(predictor: Predictor) -> str:
    return predictor.__reduce__()[1][1]["layout"]


def in_order(boxes: np.ndarray, scores: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The toy gives the same persons in the same order."""
    assert boxes.dtype == scores.dtype == np.float32 and frame.dtype == np.uint8
    assert boxes.shape == (len(scores), 4)
    return np.arange(len(boxes)) + 10


def answers(prediction: Any) -> list[Any]:
    return [(person.box.tolist(), {each.label: dict(each.scores) for each in person}) for person in prediction]


def test_everything_each_frame_without_votes_is_the_stream_without_tracks(predictor, frames) -> None:
    plain = list(predictor.stream(frames))
    found = list(predictor.stream(frames, track=in_order, every={}, tracking=NEWEST))
    assert [answers(one) for one in found] == [answers(one) for one in plain]  # bit by bit
    assert [person.track for person in found[4]] == [10 + index for index in range(len(found[4]))]
    assert all((one.tracked, two.tracked) == (True, False) for one, two in zip(found, plain, strict=True))
    assert [np.array_equal(one.mask, two.mask) for one, two in zip(found[0], plain[0], strict=True)] == [True] * len(
        plain[0]
    )
    assert found[0].timings["track"] > 0 and "track" not in plain[0].timings
    assert plain[0].to_dict().keys() == found[0].to_dict().keys()
    assert "track" not in plain[0].to_dict()["persons"][0] and found[0].to_dict()["persons"][0]["track"] == 10


def test_only_what_is_due_is_computed(predictor, frames, asked) -> None:
    every = {"child": 4, "hat": 4, "bag": 2}
    found = list(predictor.stream(frames, track=in_order, every=every, tracking=NEWEST))
    persons = len(found[0])
    assert persons > 1
    labels = [3, 1, 3, 1, 3] if layout(predictor) == "split" else [3] * 5
    assert asked == [(persons, count) for count in labels]  # of frames 0, 2, 4, 6, 8; none in those between
    plain = list(predictor.stream(frames))
    for label, taken in (("child", (0, 0, 0, 0, 4, 4, 4, 4, 8, 8)), ("bag", (0, 0, 2, 2, 4, 4, 6, 6, 8, 8))):
        if layout(predictor) == "merged":  # whoever is computed is computed whole
            taken = (0, 0, 2, 2, 4, 4, 6, 6, 8, 8)
        for one, frame in zip(found, taken, strict=True):
            assert [person[label].scores for person in one] == [person[label].scores for person in plain[frame]]


def test_until_it_is_decided_a_label_is_computed_on_each_frame(predictor, frames, asked) -> None:
    every = dict.fromkeys(LABELS, 100)
    with predictor.stream(frames, track=in_order, every=every, tracking=Tracking(decide_at=1)) as stream:
        told = [len(stream.events) > 0 for _ in stream]
    assert told == [False, False, True] + [False] * 7 and len(asked) == 3


def test_frames_between_strides_count(predictor, frames, asked) -> None:
    every = dict.fromkeys(LABELS, 4)
    list(predictor.stream(frames, stride=2, track=in_order, every=every, tracking=NEWEST))
    assert len(asked) == 3  # frames 0, 4, 8


def test_who_is_new_is_computed_alone(predictor, frames, asked) -> None:
    seen = itertools.count()

    def another(boxes: np.ndarray, *_: Any) -> np.ndarray:
        ids = np.arange(len(boxes))
        if next(seen) >= 3:
            ids[0] = 77  # from the fourth frame on somebody else
        return ids

    found = list(predictor.stream(frames, track=another, every=dict.fromkeys(LABELS, 100), tracking=NEWEST))
    assert [count for count, _ in asked] == [len(found[0]), 1]
    assert {person.track for person in found[9]} == {77, *range(1, len(found[0]))}


def test_who_has_no_track_is_computed_each_frame_and_not_voted(predictor, frames, asked) -> None:
    def some(boxes: np.ndarray, *_: Any) -> list[int]:
        return [-1, *range(1, len(boxes))]

    with predictor.stream(frames, track=some, every=dict.fromkeys(LABELS, 100), tracking=NEWEST) as stream:
        found = [(prediction, stream.events) for prediction in stream]
    plain = list(predictor.stream(frames))
    assert [one[0].track for one, _ in found] == [None] * 10
    assert [one[0]["bag"].scores for one, _ in found] == [one[0]["bag"].scores for one in plain]
    assert [count for count, _ in asked[:10]] == [len(plain[0])] + [1] * 9
    assert all(event.track >= 1 for _, events in found for event in events)


def test_scores_are_voted(predictor, frames) -> None:
    plain = list(predictor.stream(frames))
    found = list(predictor.stream(frames, track=in_order, tracking=Tracking(memory=0.5)))
    newest_first = np.array([list(one[1]["hat"].scores.values()) for one in plain[::-1]])
    weights = 0.5 ** np.arange(10)
    expected = weights @ newest_first / weights.sum()
    np.testing.assert_allclose(list(found[9][1]["hat"].scores.values()), expected, rtol=1e-9)


def test_each_decision_is_told_once(predictor, frames) -> None:
    told = []
    options = Tracking(decide_after=3, decide_at=1, hysteresis=0.99)
    with predictor.stream(frames, track=in_order, tracking=options, on_event=told.append) as stream:
        for prediction in stream:
            assert len(stream.events) == (len(prediction) * 3 if prediction.frame == 2 else 0)
            for event in stream.events:
                person = next(each for each in prediction if each.track == event.track)
                assert (event.name, event.score) == (person[event.label].name, person[event.label].score)
                assert (event.frames, event.first_frame, event.frame) == (3, 0, 2)
    assert {(event.track, event.label) for event in told} == {
        (10 + person, label) for person in range(len(prediction)) for label in LABELS
    }
    assert len(told) == 3 * len(prediction)


def test_a_track_that_is_gone_is_forgotten(predictor, frames) -> None:
    numbers = itertools.count()

    def always_new(boxes: np.ndarray, *_: Any) -> np.ndarray:
        return next(numbers) * 100 + np.arange(len(boxes))

    stream = predictor.stream(frames, track=always_new, tracking=Tracking(forget=3))
    known = [stream._tracked.remembered // len(prediction) for prediction in stream]
    assert known == [1, 2, 3, 3, 3, 3, 3, 3, 3, 3]


def test_nobody_in_a_frame(predictor, frames) -> None:
    frames[4] = np.zeros_like(frames[4])  # the toy finds nobody in black
    found = list(predictor.stream(frames, track=in_order, every={"bag": 3}))
    assert [len(one) > 0 for one in found] == [True] * 4 + [False] + [True] * 5
    assert found[4].tracked and "track" in found[4].columns and found[4].to_rows() == []


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (lambda boxes, *_: np.arange(len(boxes) + 1), ShapeError),
        (lambda boxes, *_: np.arange(len(boxes)) * 0.5, InputError),
        (lambda boxes, *_: np.zeros(len(boxes), int), InputError),
        (lambda boxes, *_: np.arange(len(boxes)) - 2, InputError),
        (lambda boxes, *_: [[1], [2, 3]], ShapeError),
    ],
)
def test_a_tracker_that_counts_wrongly(predictor, frames, ids, error) -> None:
    stream = predictor.stream(frames, track=ids)
    with pytest.raises(error, match="^track: expected"):
        next(stream)
    assert stream.failed == 0 and list(stream) == []  # no image is to blame


@pytest.mark.parametrize("where", ["track", "on_event"])
def test_an_error_of_the_callers_own_is_no_bad_image(predictor, frames, where) -> None:
    def refuse(*_: Any) -> Any:
        raise InputError("expected better")

    stream = predictor.stream(frames, **{"track": in_order, "tracking": NEWEST, where: refuse})
    with pytest.raises(InputError, match="expected better"):
        next(stream)
    assert stream.failed == 0 and list(stream) == []


def test_beside_a_tracker_a_bad_image_is_left_out_alone(predictor, frames) -> None:
    stream = predictor.stream([*frames[:3], b"no image", *frames[3:5]], track=in_order)
    assert [one.frame for one in stream] == [0, 1, 2, 4, 5] and stream.failed == 1


def test_labels_of_an_iterator(predictor, frames) -> None:
    labels = ["bag", "hat"]
    found = predictor.stream(frames, labels=iter(labels))
    assert {one.labels for one in found} == {("bag", "hat")} and found.failed == 0
    changing = predictor.stream(frames, labels=labels)
    first = next(changing).labels
    labels.append("child")
    assert first == next(changing).labels == ("bag", "hat")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"track": "bytetrack"}, "track: expected 'supervision'"),
        ({"track": 3}, "track: expected"),
        ({"every": {"bag": 3}}, "every: expected track="),
        ({"on_event": print}, "on_event: expected track="),
        ({"track": in_order, "every": {"age": 3}}, "every: expected labels"),
        ({"track": in_order, "every": {"bag": 3}, "labels": ["hat"]}, "every: expected labels"),
        ({"track": in_order, "tracking": {}}, "tracking: expected"),
        ({"track": in_order, "on_event": 3}, "on_event: expected a function"),
    ],
)
def test_arguments(predictor, frames, arguments, told) -> None:
    with pytest.raises(InputError) as caught:
        predictor.stream(frames, **arguments)
    assert told in str(caught.value)


def test_byte_track(predictor, frames, monkeypatch) -> None:
    pytest.importorskip("trackers", reason="the package trackers is not installed")
    found = list(predictor.stream(frames, track="supervision", labels=["bag"]))
    sure = [[person.track for person in one if person.score > 0.75] for one in found]
    assert None not in sure[-1] and len(set(sure[-1])) == len(sure[-1]) == 2
    assert sure[3:] == [sure[-1]] * 7  # each keeps its number
    monkeypatch.setitem(__import__("sys").modules, "trackers", None)
    with pytest.raises(MissingDependency, match="pip install trackers"):
        predictor.stream(frames, track="supervision")


def test_tables_of_tracks(predictor, frames) -> None:
    prediction = next(predictor.stream(frames, track=lambda boxes, *_: [-1, *range(7, 6 + len(boxes))]))
    assert prediction.columns[:5] == ("source", "frame", "timestamp", "person", "track")
    rows = prediction.to_rows()
    assert [row["track"] for row in rows[:2]] == [None, 7] and tuple(rows[0]) == prediction.columns
    assert "(track 7)" in repr(prediction[1]) and "track" not in repr(prediction[0])
    detections = pytest.importorskip("supervision") and prediction.to_supervision(masks=False)
    assert detections.tracker_id.tolist()[:2] == [-1, 7]
    table = prediction.to_pandas()
    assert str(table["track"].dtype) == "Int64" and table["track"].isna().tolist()[:2] == [True, False]


class _Look:
    """One person, of whom a plan says what it says; notes what is asked."""

    def __init__(self, plan: str, score: float, width: int = 4) -> None:
        self.plan, self.labels = plan, ("bag",)
        self.boxes, self.scores = np.array([[0, 0, width, 8]], np.float32), np.ones(1, np.float32)
        self.image = np.zeros((8, 8, 3), np.uint8)
        self.asked = 0
        self._answer = {"bag": np.array([[1 - score, score]], np.float32)}

    def spend(self, stage: str, milliseconds: float) -> None:
        assert stage == "track" and milliseconds >= 0

    def score(self, persons: Any, labels: Any) -> dict[str, np.ndarray]:
        self.asked += 1
        return self._answer

    def prediction(self, rows: dict[str, np.ndarray]) -> Prediction:
        scores = dict(zip(("no", "yes"), rows["bag"][0].tolist(), strict=True))
        return Prediction(
            (Person(0, self.boxes[0], None, {"bag": Attribute("bag", ("no", "yes"), scores)}),), self.image
        )


def test_scores_of_another_plan_are_not_mixed_and_what_was_told_stays_told() -> None:
    tracks = tracked(("bag",), split=True, track=lambda *_: [5], every={"bag": 100})
    looks = [_Look("old", 0.96), _Look("old", 0.96), _Look("new", 0.9), _Look("new", 0.1)]
    shown, told = [], []
    for frame, look in enumerate(looks):
        shown.append(tracks.predict(look, frame)[0]["bag"].scores["yes"])
        told += [(event.frame, event.name) for event in tracks.events]
    assert [look.asked for look in looks] == [1, 0, 1, 0]
    assert shown == pytest.approx([0.96, 0.96, 0.9, 0.9]) and told == [(0, "yes")]


def test_a_tracker_may_write_into_its_boxes() -> None:
    def parts(boxes: np.ndarray, *_: Any) -> list[int]:
        boxes /= 16
        return [5]

    tracks = tracked(("bag",), split=True, track=parts, every={"bag": 100})
    looks = [_Look("plan", 0.96, width=4), _Look("plan", 0.96, width=4), _Look("plan", 0.96, width=8)]
    for frame, look in enumerate(looks):
        tracks.predict(look, frame)
    assert [look.asked for look in looks] == [1, 0, 1]  # in the third frame the person has turned


def test_a_person_keeps_number_and_colour_through_files_and_pictures() -> None:
    person = Person(0, (1, 1, 5, 7), None, {}).on_track(3)
    assert pickle.loads(pickle.dumps(person)).track == 3
    image = np.full((160, 160, 3), 90, np.uint8)
    tracked_picture = Prediction((person,), image).plot()
    other = Person(3, (1, 1, 5, 7), None, {})
    assert not np.array_equal(tracked_picture, Prediction((person.on_track(None),), image).plot())
    assert person.on_track(None).track is None and color_of(number_of(person)) == color_of(number_of(other))
