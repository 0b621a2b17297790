"""What a notebook shows by itself: one bounded picture, one row a person, and no HTML of others."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from graftsdk.prediction import Attribute, Person, Prediction

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></tr></table><b>",
    "&lt;b&gt;",
    "a\nb\x00\u202e",
    "\ud800",
]


class Page(HTMLParser):
    """The elements, their attributes and the text of a piece of HTML; says whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    def picture(self) -> np.ndarray:
        kind, content = self.all("img")[0]["src"].split(",", 1)
        assert kind == "data:image/jpeg;base64"
        return cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)


def prediction(*persons: Person, height: int = 300, width: int = 400, **fields: object) -> Prediction:
    return Prediction(persons, np.full((height, width, 3), 90, np.uint8), **fields)


def person(index: int = 0, text: str = "backpack") -> Person:
    backpack = Attribute(text, ("no", "yes"), {"no": 0.1, "yes": 0.9})
    gender = Attribute("gender", ("female", "male" + text), {"female": 0.2, "male" + text: 0.8})
    return Person(index, (10, 10, 90, 200), 0.875, {text: backpack, "gender": gender})


def test_a_row_each_and_a_picture():
    page = Page(prediction(person(0), person(1), source="/in/lobby.jpg", frame=3)._repr_html_())
    text = "".join(page.words)
    for told in ("lobby.jpg", "frame 3", "400x300", "2 persons", "0.88", "backpack", "0.90", "gender", "malebackpack"):
        assert told in text
    assert len(page.all("tr")) == 3
    assert len(page.all("img")) == 1
    assert page.picture().shape == (360, 480, 3)


def test_nobody_and_many():
    page = Page(prediction()._repr_html_())
    assert "0 persons" in "".join(page.words)
    assert not page.all("table")
    page = Page(prediction(*(person(index) for index in range(50)), truncated=True)._repr_html_())
    assert len(page.all("tr")) == 22
    assert "and 30 more" in "".join(page.words)
    assert "there were more" in "".join(page.words)


@pytest.mark.parametrize("size", [(1, 1), (4000, 3000), (10, 9000), (9000, 10), (100, 50)])
def test_the_picture_is_bounded(size):
    text = prediction(height=size[0], width=size[1])._repr_html_()
    assert 480 <= max(Page(text).picture().shape) <= 800
    assert len(text) < 400_000


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text):
    plain = Page(prediction(person(), source="a.jpg")._repr_html_())
    page = Page(prediction(person(0, text), source=text)._repr_html_())
    assert [name for name, _ in page.found] == [name for name, _ in plain.found]
    assert [set(attributes) for _, attributes in page.found] == [set(attributes) for _, attributes in plain.found]
    page_text = "".join(page.words)
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    assert page_text.count(shown) >= 3  # the source, a question and an answer
    prediction(person(0, text), source=text)._repr_html_().encode("utf-8")
