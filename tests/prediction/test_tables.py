"""Rows, data frames and detections: the same columns and kinds for somebody and for nobody."""

from __future__ import annotations

import numpy as np
import pytest

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
        (("age.score", "age"), ("age.score", "age.score.score", "age_", "age_.score")),
    ],
)
def test_no_label_takes_the_column_of_another(labels, names):
    found = prediction(labels=labels)
    assert found.columns == (*FIXED, *names)


def test_a_label_that_one_person_lacks_is_empty():
    rows = prediction(person(0, GENDER, AGE), person(1, GENDER)).to_rows()
    assert (rows[1]["gender"], rows[1]["age"], rows[1]["age.score"]) == ("male", None, None)
