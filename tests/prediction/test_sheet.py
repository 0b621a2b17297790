"""Many predictions in one picture: where cells lie, what is beneath them, and what cannot be shown."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from graftsdk.drawing.lettering import Lettering
from graftsdk.errors import DecodeError, InputError
from graftsdk.prediction import Attribute, Person, Prediction
from graftsdk.sheet import contact_sheet, save_contact_sheet

GROUND = (30, 26, 24)
COLORS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)]
BROKEN = DecodeError("'broken.jpg': expected a readable picture, found 12 bytes; is the file whole?")


def flat(place: int, height: int = 60, width: int = 80, **fields: object) -> Prediction:
    return Prediction((), np.full((height, width, 3), COLORS[place % 4], np.uint8), **fields)


def person(height: int, width: int) -> Prediction:
    gender = Attribute("gender", ("female", "male"), {"female": 0.2, "male": 0.8})
    mask = np.zeros((height, width), bool)
    mask[height // 4 :, width // 4 :] = True
    one = Person(0, (width / 4, height / 4, width, height), 0.9, {"gender": gender}, mask)
    return Prediction((one,), np.full((height, width, 3), 90, np.uint8))


def areas(sheet: np.ndarray, place: int) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of what has this place's colour."""
    x, y, wide, high = cv2.boundingRect((sheet == COLORS[place]).all(axis=2).astype(np.uint8))
    return x, y, x + wide, y + high


@pytest.fixture
def written(monkeypatch) -> list[str]:
    found: list[str] = []
    ink = Lettering.ink
    monkeypatch.setattr(Lettering, "ink", lambda self, text: found.append(text) or ink(self, text))
    return found


def test_cells_are_read_like_a_page():
    sheet = contact_sheet([flat(place) for place in range(4)], width=800)
    assert (sheet.dtype, sheet.shape[1:]) == (np.uint8, (800, 3))
    first, second, third, fourth = (areas(sheet, place) for place in range(4))
    assert first[2] < second[0] and first[1] == second[1] and first[3] == second[3]
    assert first[0] == third[0] and first[3] < third[1] and second[0] == fourth[0]
    for x0, y0, x1, y1 in (first, second, third, fourth):
        assert abs((x1 - x0) / (y1 - y0) - 80 / 60) < 0.02
        assert x1 - x0 > 380


@pytest.mark.parametrize(("height", "width"), [(1, 400), (400, 1), (3000, 40), (40, 3000), (1, 1), (61, 80)])
def test_every_shape_is_fitted_into_its_cell(height, width):
    sheet = contact_sheet([flat(0, height, width), flat(1)], columns=2, width=400)
    x0, y0, x1, y1 = areas(sheet, 0)
    cell = (400 - 6) // 2 - 6
    assert 0 < x1 - x0 <= cell
    assert 0 < y1 - y0 <= 1.25 * cell
    assert max((x1 - x0) / cell, (y1 - y0) / (1.25 * cell)) > 0.98
    assert areas(sheet, 1)[2] - areas(sheet, 1)[0] == cell
    assert areas(sheet, 1)[3] == y1  # on one line with its neighbour


@pytest.mark.parametrize("count", [1, 2, 7, 200])
@pytest.mark.parametrize("width", [500, 1600])
def test_every_number(count, width):
    sheet = contact_sheet([flat(place) for place in range(count)], width=width)
    assert sheet.shape[1] == width
    assert sheet.shape[0] < 50 * width  # 200 of them too


@pytest.mark.parametrize(
    ("item", "place", "told"),
    [
        (flat(0, source="/in/lobby.jpg"), 0, ["lobby.jpg", "0 persons"]),
        (flat(0), 2, ["image 2", "0 persons"]),
        (person(60, 80), 0, ["image 0", "1 person"]),
        (flat(0, truncated=True), 0, ["image 0", "0 persons or more"]),
        (flat(0, source="a.mp4", frame=90, timestamp=3.604), 0, ["a.mp4", "frame 90 · 0:00:03.60 · 0 persons"]),
        (flat(0, source="a.mp4", frame=0, timestamp=3599.999), 0, ["a.mp4", "frame 0 · 1:00:00.00 · 0 persons"]),
        (
            flat(0, source="rtsp://gate/1", frame=7, timestamp=1.7e9),
            0,
            ["1", "frame 7 · 2023-11-14 22:13:20 UTC · 0 persons"],
        ),
        (flat(0, source="a\nb.jpg"), 0, ["a\ufffdb.jpg", "0 persons"]),
    ],
)
def test_what_is_beneath(written, item, place, told):
    filler = [flat(1, source=f"{each}") for each in range(place)]
    contact_sheet([*filler, item], tags=False, width=1600, columns=3)
    assert written[2 * place :] == told


def test_what_failed_says_why(written):
    sheet = contact_sheet([flat(0), BROKEN, flat(2)], columns=3, width=900)
    assert "image 1" in written and "DecodeError" in written
    assert " ".join(written).count("broken.jpg") == 1
    x0, x1 = areas(sheet, 0)[2] + 6, areas(sheet, 2)[0] - 6
    cell = sheet[: areas(sheet, 0)[3], x0:x1]
    assert ((cell == (66, 62, 60)).all(axis=2)).mean() > 0.5
    assert cell.max() > 200


@pytest.mark.parametrize("text", ["", "x" * 5000, "a\nb\x00", "\ud800", "word " * 1000, "性别 العمر"])
def test_hostile_text(text):
    contact_sheet([DecodeError(text), flat(0, source=text), flat(1, labels=(text,))], width=300)


def test_predictions_are_drawn_as_large_as_their_cells(written):
    sheet = contact_sheet([person(40, 30), person(4000, 3000)], columns=2, width=800)
    assert written.count("male") == 2
    assert (sheet[:, :400] != GROUND).any() and (sheet[:, 400:] != GROUND).any()
    written.clear()
    contact_sheet([person(400, 300)], tags=False)
    assert "male" not in written
    plain = contact_sheet([person(400, 300)], tags=False, masks=False, boxes=False)
    assert ((plain == 90).all(axis=2)).mean() > 0.8


def test_labels_that_one_prediction_lacks_are_left_out_in_it(written):
    contact_sheet([person(400, 300), flat(0)], labels=["gender"])
    assert written.count("male") == 1
    written.clear()
    contact_sheet([flat(0, labels=("hat",)), person(400, 300), BROKEN], labels=["hat"])
    assert "male" not in written
    contact_sheet([BROKEN], labels=["hat"])  # which labels there are is not known


@pytest.mark.parametrize(
    ("count", "width", "size"),
    [(1, 1600, 28), (2, 1600, 20), (5, 1600, 16), (48, 1600, 10), (1, 600, 17), (48, 600, 12), (1, 16384, 283)],
)
def test_captions_are_as_large_as_their_cells_ask(monkeypatch, count, width, size):
    sizes = []
    begin = Lettering.__init__
    monkeypatch.setattr(Lettering, "__init__", lambda self, size: sizes.append(size) or begin(self, size))
    contact_sheet([flat(place, 1, 80) for place in range(count)], width=width, tags=False)
    assert sizes == [size]


def test_the_same_list_gives_the_same_pixels():
    items = [person(60, 80), BROKEN, flat(1)]
    np.testing.assert_array_equal(contact_sheet(items), contact_sheet(iter(items)))


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ([], {}, "one prediction or more, found none"),
        ([flat(0), "a.jpg"], {}, "item 1: expected a Prediction or a GraftError, found str"),
        ([flat(0)], {"labels": "gender"}, "labels: expected a list of names, found 'gender'"),
        ([person(60, 80), flat(0, labels=("hat",))], {"labels": ["gendre"]}, "of .'gender', 'hat'., found 'gendre'"),
        *(
            ([flat(0)], {name: value}, f"{name}: expected an integer from 1 to 16384, found {value!r}")
            for name in ("columns", "width")
            for value in (0, -5, 2.5, 800.0, "800", 10**7, True, float("nan"))
        ),
        ([flat(0)], {"columns": 100}, "at least 48 pixels, found 100 in a width of 1600"),
        ([flat(0)], {"width": 10}, "found 1 in a width of 10"),
    ],
)
def test_refusals(items, options, message):
    with pytest.raises(InputError, match=message):
        contact_sheet(items, **options)


def test_numbers_of_numpy():
    items = [person(60, 80), BROKEN]
    found = contact_sheet(items, columns=np.int64(2), width=np.int32(400))
    np.testing.assert_array_equal(found, contact_sheet(items, columns=2, width=400))


def test_saved_as_a_prediction_is(tmp_path):
    items = [person(60, 80), BROKEN]
    save_contact_sheet(tmp_path / "sheet.png", items, width=400)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "sheet.png")), contact_sheet(items, width=400))
    with pytest.raises(InputError, match=r"suffix of \.jpg, .*found '\.gif'"):
        save_contact_sheet(tmp_path / "sheet.gif", items)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]
