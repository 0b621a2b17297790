"""CSV that csv and pandas read back, and that no spreadsheet takes for a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
import pandas
import pytest

from graftsdk.attribute import Attribute
from graftsdk.cli.formats import Csv, told
from graftsdk.prediction import Person, Prediction

IMAGE = np.zeros((32, 32, 3), np.uint8)


def prediction(source: str, persons: int = 1, label: str = "hat", classes: Sequence[str] = ("no", "yes")) -> Prediction:
    scores = {name: 0.25 + 0.5 * (name == classes[-1]) for name in classes}
    found = {label: Attribute(label, tuple(classes), scores, {})}
    people = tuple(Person(i, [1.25, 2, 30, 31], 0.5, found) for i in range(persons))
    return Prediction(people, IMAGE, source, labels=(label,))


@pytest.mark.parametrize(
    ("source", "frame", "told_as"),
    [
        ("a.jpg", None, "a.jpg 32x32: 0 persons\n"),
        ("d1/a.jpg", None, "d1/a.jpg 32x32: 0 persons\n"),  # not the one in d2
        ("/d2/clip.mp4", 3, "/d2/clip.mp4 frame 3 32x32: 0 persons\n"),
        ("rtsp://host/1", 0, "rtsp://host/1 frame 0 32x32: 0 persons\n"),
        ("rtsp://host/", 0, "rtsp://host/ frame 0 32x32: 0 persons\n"),
        ("/", None, "/ 32x32: 0 persons\n"),  # no name at all
        ("two\nlines/x", None, "two\N{REPLACEMENT CHARACTER}lines/x 32x32: 0 persons\n"),
        (None, None, "image 32x32: 0 persons\n"),
    ],
)
def test_a_line_names_its_source_in_full(source: str | None, frame: int | None, told_as: str) -> None:
    assert told(Prediction((), IMAGE, source, frame=frame)) == told_as


def test_one_head_and_a_row_a_person() -> None:
    form = Csv()
    text = "".join(form(each) for each in (prediction("none.jpg", 0), prediction("a.jpg", 2), prediction("b.jpg", 1)))
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == list(prediction("a.jpg").columns)
    assert [row[0] for row in rows[1:]] == ["a.jpg", "a.jpg", "b.jpg"]
    table = pandas.read_csv(io.StringIO(text))
    pandas.testing.assert_frame_equal(
        table[["source", "person", "x0", "score", "hat", "hat.score"]],
        pandas.DataFrame(
            {
                "source": ["a.jpg", "a.jpg", "b.jpg"],
                "person": [0, 1, 0],
                "x0": [1.25] * 3,
                "score": [0.5] * 3,
                "hat": ["yes"] * 3,
                "hat.score": [0.75] * 3,
            }
        ),
    )


@pytest.mark.parametrize(
    "name", ['with "quotes", commas', "two\nlines", "a;b\tc", "帽子", " spaces ", "'quoted'", "100%", "x=1"]
)
def test_hostile_names_come_back_as_they_are(name: str) -> None:
    text = Csv()(prediction(name, label=name, classes=("no", name)))
    head, row = csv.reader(io.StringIO(text))
    found = dict(zip(head, row, strict=True))
    assert (found["source"], found[name]) == (name, name)
    table = pandas.read_csv(io.StringIO(text))
    assert (table["source"][0], table[name][0]) == (name, name)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3+cmd", "'-2+3+cmd"),
        ("\t=1", "'\t=1"),
        ("-18", "-18"),  # classes of age: a sign and a number are no formula
        ("+65", "+65"),
        ("-", "-"),
        ("a=b", "a=b"),
        ("./=1.jpg", "./=1.jpg"),
    ],
)
def test_formulas(text: str, cell: str) -> None:
    head, row = csv.reader(io.StringIO(Csv()(prediction(text, label=text, classes=("no", text)))))
    assert row[0] == cell
    assert head[9] == cell
    assert row[9] == cell
