"""Rows, data frames and detections: the same columns and kinds for somebody and for nobody."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from graftsdk.errors import MissingDependency
from graftsdk.prediction import Attribute, Person, Prediction

GENDER = Attribute("gender", ("female", "male"), {"female": np.float32(0.07), "male": np.float32(0.93)})
BACKPACK = Attribute("backpack", ("no", "yes"), {"no": 0.9, "yes": 0.1}, {"yes": 0.7})
AGE = Attribute("age", ("child", "adult", "senior"), {"child": 0.25, "adult": 0.5, "senior": 0.25}, {"child": 0.25})
FIXED = ("source", "frame", "timestamp", "person", "x0", "y0", "x1", "y1", "score")


def person(index: int = 0, *attributes: Attribute, score: float | None = 0.875, mask: object = None) -> Person:
    return Person(index, (1.0, 0.333333, 5.5, 4.0), score, {each.label: each for each in attributes}, mask)


def prediction(*persons: Person, **fields: object) -> Prediction:
    return Prediction(persons, np.zeros((4, 6, 3), np.uint8), **fields)


def test_rows():
    found = prediction(person(0, GENDER, BACKPACK, AGE), person(1, GENDER, BACKPACK, AGE, score=None), source="a.jpg")
    assert [list(row.values()) for row in found.to_rows()] == [
        ["a.jpg", None, None, 0, 1.0, 0.33, 5.5, 4.0, 0.875, "male", 0.93, "no", 0.1, "adult", 0.5],
        ["a.jpg", None, None, 1, 1.0, 0.33, 5.5, 4.0, None, "male", 0.93, "no", 0.1, "adult", 0.5],
    ]
    labels = ("gender", "gender.score", "backpack", "backpack.score", "age", "age.score")
    assert found.columns == (*FIXED, *labels)
    assert all(tuple(row) == found.columns for row in found.to_rows())


def test_rows_of_nobody_and_of_a_frame():
    nobody = prediction(labels=("gender",))
    assert nobody.to_rows() == []
    assert nobody.columns == (*FIXED, "gender", "gender.score")
    row = prediction(person(), frame=3, timestamp=0.12).to_rows()[0]
    assert (row["frame"], row["timestamp"], row["source"]) == (3, 0.12, None)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("score",), ("score_", "score_.score")),
        (("frame", "frame_"), ("frame_", "frame_.score", "frame__", "frame__.score")),
        (("age", "age.score"), ("age", "age.score", "age.score_", "age.score_.score")),
        (("class_name",), ("class_name_", "class_name_.score")),
        (("age.score", "age"), ("age.score", "age.score.score", "age_", "age_.score")),
    ],
)
def test_no_label_takes_the_column_of_another(labels, names):
    found = prediction(labels=labels)
    assert found.columns == (*FIXED, *names)


def test_a_label_that_one_person_lacks_is_empty():
    rows = prediction(person(0, GENDER, AGE), person(1, GENDER)).to_rows()
    assert (rows[1]["gender"], rows[1]["age"], rows[1]["age.score"]) == ("male", None, None)


def test_pandas():
    pandas = pytest.importorskip("pandas")
    both = prediction(person(0, GENDER, AGE), person(1, GENDER, score=None), source="a.jpg", labels=("gender", "age"))
    frame = both.to_pandas()
    assert tuple(frame.columns) == both.columns
    assert frame["gender"].tolist() == ["male", "male"]
    assert frame["person"].tolist() == [0, 1]
    assert frame["gender.score"].tolist() == [np.float32(0.93)] * 2
    assert frame["age"].isna().tolist() == [False, True]
    assert frame.loc[0, ["x0", "y0"]].tolist() == [1.0, 0.33]
    assert frame["score"].isna().tolist() == [False, True]
    assert frame["frame"].isna().all() and frame["timestamp"].isna().all()
    assert frame[frame["age"] == "adult"]["person"].tolist() == [0]
    kinds = {
        "source": "string", "frame": "Int64", "timestamp": "float64", "person": "int64", "x0": "float64",
        "score": "float32", "gender": "string", "gender.score": "float32",
    }  # fmt: skip
    assert {name: str(frame[name].dtype) for name in kinds} == kinds
    others = [
        prediction(labels=("gender", "age")),
        prediction(person(0, GENDER, AGE), source=b"\xff.mp4".decode("utf-8", "surrogateescape"), frame=2, timestamp=1),
    ]
    for other in others:
        assert (other.to_pandas().dtypes == frame.dtypes).all()
    together = pandas.concat([each.to_pandas() for each in (both, *others)])
    assert (together.dtypes == frame.dtypes).all()
    assert len(together) == 3


def test_pandas_with_every_class():
    pytest.importorskip("pandas")
    frame = prediction(person(0, GENDER, AGE), person(1, GENDER), labels=("gender", "age")).to_pandas(classes=True)
    assert list(frame.columns[len(FIXED) + 4 :]) == ["age.child", "age.adult", "age.senior"]  # two classes: one score
    assert frame["age.child"].tolist()[0] == 0.25
    assert frame["age.child"].isna().tolist() == [False, True]
    assert str(frame["age.child"].dtype) == "float32"
    assert list(prediction(labels=("age",)).to_pandas(classes=True).columns) == [*FIXED, "age", "age.score"]


def test_a_class_named_score_has_its_own_column():
    pytest.importorskip("pandas")
    odd = Attribute("a", ("x", "y", "score"), {"x": 0.2, "y": 0.5, "score": 0.3})
    frame = prediction(person(0, odd)).to_pandas(classes=True)
    assert frame.iloc[0][["a", "a.score", "a.score_"]].tolist() == ["y", np.float32(0.5), np.float32(0.3)]


def test_supervision():
    supervision = pytest.importorskip("supervision")
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    somebody = prediction(person(0, GENDER, AGE, mask=mask), person(1, GENDER, mask=mask), labels=("gender", "age"))
    nobody = prediction(labels=("gender", "age"))
    found, empty = somebody.to_supervision(), nobody.to_supervision()
    assert found.data["class_name"].tolist() == ["person", "person"]
    assert found["gender"].tolist() == ["male", "male"]
    assert found["age"].tolist() == ["adult", ""]
    assert np.isnan(found["age.score"]).tolist() == [False, True]
    assert found.mask.tolist() == [mask.tolist()] * 2
    assert found.class_id.tolist() == [0, 0]
    for each, count in ((found, 2), (empty, 0)):
        assert len(each) == count
        assert (each.xyxy.shape, each.xyxy.dtype) == ((count, 4), np.float32)
        assert (each.mask.shape, each.mask.dtype) == ((count, 4, 6), bool)
        assert (each.confidence.shape, each.confidence.dtype) == ((count,), np.float32)
        assert set(each.data) == {"class_name", "gender", "gender.score", "age", "age.score"}
        assert all(len(values) == count for values in each.data.values())
        assert each["gender.score"].dtype == np.float32
    assert len(supervision.Detections.merge([found, empty, found])) == 4
    assert found[found["age"] == "adult"].xyxy.shape == (1, 4)
    assert somebody.to_supervision(masks=False).mask is None
    scene = np.zeros((80, 120, 3), np.uint8)
    labels = [str(each) for each in somebody]
    for annotator, options in ((supervision.LabelAnnotator(), {}), (supervision.LabelAnnotator(), {"labels": labels})):
        assert annotator.annotate(scene.copy(), found, **options).any()
        annotator.annotate(scene.copy(), empty)
    boxes_only = prediction(person(0, score=None), person(1)).to_supervision()
    assert (boxes_only.mask, boxes_only.confidence) == (None, None)
    crowded = prediction(person(0, Attribute("class_name", ("no", "yes"), {"no": 0.1, "yes": 0.9}))).to_supervision()
    assert (crowded["class_name"].tolist(), crowded["class_name_"].tolist()) == (["person"], ["yes"])


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_a_missing_package_is_told_with_its_install_line(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf'{package}.*; pip install "graftsdk\[results\]"'):
        getattr(prediction(person()), f"to_{package}")()
