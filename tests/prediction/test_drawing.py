"""The picture: what is touched, what is not, and that nothing makes it fail."""

from __future__ import annotations

import re
from functools import partial

import cv2
import numpy as np
import pytest

from graftsdk.drawing import tags
from graftsdk.drawing.lettering import Lettering
from graftsdk.errors import GraftError, InputError, PlanPathError, ShapeError
from graftsdk.prediction import Attribute, Person, Prediction
from graftsdk.preprocess import BoxMasks
from graftsdk.preprocess.boxmasks import LazyMask

HOSTILE = [
    "",
    " ",
    "a\nb\tc\x00d",
    "\ud800",
    "\u202eabc\u202c",
    "x" * 5000,
    "性别",
    "العمر",
    "👩‍👩‍👧",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A",
    "%s{0}\\",
    "\u00a0\u2028",
]


def photograph(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 31 + width)
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def attributes(count: int = 18) -> dict[str, Attribute]:
    found = {"gender": Attribute("gender", ("female", "male"), {"female": 0.2, "male": 0.8})}
    for index in range(count - 1):
        found[f"label {index}"] = Attribute(f"label {index}", ("no", "yes"), {"no": 0.3, "yes": 0.7})
    return found


def overlap(one, other) -> int:
    sides = [min(one[2 + axis], other[2 + axis]) - max(one[axis], other[axis]) for axis in (0, 1)]
    return max(sides[0], 0) * max(sides[1], 0)


@pytest.fixture
def laid(monkeypatch) -> list[tuple[int, int, int, int]]:
    """Where tags are laid, in that order."""
    found: list[tuple[int, int, int, int]] = []
    monkeypatch.setattr(tags, "_lay", lambda picture, tag, rect: found.append(rect))
    return found


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """What tags say, text by text."""
    found: list[str] = []
    ink = Lettering.ink
    monkeypatch.setattr(Lettering, "ink", lambda self, text: found.append(text.strip()) or ink(self, text))
    return found


def crowd(height: int, width: int, count: int) -> Prediction:
    rng = np.random.default_rng(count)
    persons = []
    for index in range(count):
        x, y = rng.uniform(0, 0.9) * width, rng.uniform(0, 0.8) * height
        box = (x, y, min(x + 0.12 * width, width), min(y + 0.4 * height, height))
        mask = np.zeros((height, width), bool)
        mask[int(y) : int(box[3]), int(x) : int(box[2])] = True
        persons.append(Person(index, box, float(rng.uniform(0.3, 1)), attributes(), mask))
    return Prediction(tuple(persons), photograph(height, width))


@pytest.mark.parametrize("count", [0, 1, 60])
@pytest.mark.parametrize("size", [(64, 64), (1, 1), (16, 900), (900, 16), (480, 640), (3000, 3000)])
def test_every_size_and_number_of_persons(size, count):
    found = crowd(*size, min(count, 8) if size == (3000, 3000) else count)
    before = found.image.copy()
    picture = found.plot()
    assert picture.shape == (*size, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(found.image, before)
    assert np.array_equal(picture, before) is (count == 0)


def test_the_same_prediction_gives_the_same_pixels():
    np.testing.assert_array_equal(crowd(480, 640, 12).plot(), crowd(480, 640, 12).plot())


def test_nothing_to_draw_is_the_image_and_a_copy():
    found = crowd(48, 64, 3)
    picture = found.plot(masks=False, boxes=False, tags=False)
    np.testing.assert_array_equal(picture, found.image)
    assert not np.shares_memory(picture, found.image)


def test_masks_touch_the_mask_and_its_outline_only():
    mask = np.zeros((200, 300), bool)
    cv2_mask = cv2.ellipse(mask.astype(np.uint8), (150, 100), (40, 60), 0, 0, 360, 1, -1)
    mask = cv2_mask.astype(bool)
    found = Prediction((Person(0, (110, 40, 191, 161), 0.9, {}, mask),), photograph(200, 300))
    changed = (found.plot(boxes=False, tags=False) != found.image).any(axis=2)
    reach = cv2.dilate(cv2_mask, np.ones((5, 5), np.uint8)).astype(bool)
    assert not changed[~reach].any()
    assert changed[mask].mean() > 0.99


def test_boxes_touch_their_lines_only():
    found = Prediction((Person(0, (110, 40, 190, 160), 0.9, {}),), photograph(200, 300))
    changed = (found.plot(tags=False) != found.image).any(axis=2)
    lines = np.zeros((200, 300), bool)
    lines[40:160, 110:190] = True
    lines[42:158, 112:188] = False
    assert not changed[~lines].any()
    assert changed[40, 110:190].any()
    assert changed[159, 110:190].any()  # half-open: the last row that belongs to it


def test_tags_stay_near_their_person_and_the_rest_is_untouched():
    found = Prediction((Person(0, (300, 400, 420, 700), 0.9, attributes(4)),), photograph(1000, 1400))
    changed = (found.plot() != found.image).any(axis=2)
    assert changed.any()
    assert not changed[:, 900:].any()
    assert not changed[:200].any()
    assert not changed[850:].any()


def test_tags_do_not_overlap_where_there_is_room(laid):
    persons = [Person(i, (60 + 300 * i, 300, 180 + 300 * i, 700), 0.5, attributes(6)) for i in range(6)]
    Prediction(tuple(persons), photograph(900, 1900)).plot()
    assert len(laid) == 6
    for place, (x1, y1, x2, y2) in enumerate(laid):
        assert 0 <= x1 < x2 <= 1900
        assert 0 <= y1 < y2 <= 900
        assert not any(overlap((x1, y1, x2, y2), other) for other in laid[:place])


@pytest.mark.parametrize(("count", "most", "least"), [(50, 50, 45), (400, 400, 150)])
def test_in_a_crowd_tags_shrink_and_hide_next_to_nothing_of_one_another(laid, count, most, least):
    crowd(1080, 1920, count).plot(masks=False)
    area = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in laid)
    hidden = sum(overlap(one, other) for place, one in enumerate(laid) for other in laid[:place])
    assert least <= len(laid) <= most  # those that would hide others are left out
    assert area < 0.35 * 1080 * 1920
    assert hidden < 0.01 * area


@pytest.mark.parametrize("room", [300, 900])
def test_heads_stay_in_sight(laid, room):
    persons = [Person(i, (40 + 200 * i, room - 280, 160 + 200 * i, room - 10), 0.9, attributes(5)) for i in range(4)]
    Prediction(tuple(persons), photograph(room, 860)).plot()
    heads = [(40 + 200 * i + 24, room - 280, 160 + 200 * i - 24, room - 280 + 54) for i in range(4)]
    assert len(laid) == 4
    assert sum(overlap(tag, head) for tag in laid for head in heads) < 0.05 * 4 * 72 * 54


@pytest.mark.parametrize(("height", "width"), [(400, 300), (300, 400), (900, 250)])
def test_the_head_of_a_person_who_fills_the_picture_stays_in_sight(laid, height, width):
    Prediction((Person(0, (0, 0, width, height), 0.9, attributes(6)),), photograph(height, width)).plot()
    assert len(laid) == 1
    assert overlap(laid[0], (width // 5, 0, width - width // 5, height // 5)) == 0


def hidden_shares(laid, count, sizes, ys, part) -> list[float]:
    """For persons of 20 pictures, `count` in each: the share of this part of the box that tags hide."""
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        laid.clear()
        boxes = []
        for index in range(count):
            height = int(rng.uniform(*sizes))
            x, y = int(rng.uniform(0, 640 - 0.4 * height)), int(rng.uniform(*ys[index % len(ys)]) * (480 - height))
            boxes.append((x, y, x + int(0.4 * height), y + height))
        persons = [Person(index, box, 0.9, attributes(8)) for index, box in enumerate(boxes)]
        Prediction(tuple(persons), photograph(480, 640)).plot(masks=False)
        for box in map(part, boxes):
            shares.append(sum(overlap(tag, box) for tag in laid) / ((box[2] - box[0]) * (box[3] - box[1])))
    return shares


def test_heads_of_near_persons_stay_in_sight(laid):
    def head(box):
        side = (box[2] - box[0]) // 5
        return box[0] + side, box[1], box[2] - side, box[1] + (box[3] - box[1]) // 5

    assert np.mean(hidden_shares(laid, 7, (150, 300), [(0, 1)], head)) < 0.004


def test_small_persons_stay_in_sight(laid):
    shares = hidden_shares(laid, 5, (14, 40), [(0, 0.05), (0.95, 1)], lambda box: box)
    assert np.mean(shares) < 0.05


@pytest.mark.parametrize("side", [100, 200, 400])
def test_boxes_at_any_scale_lie_where_they_belong(side):
    found = Prediction((Person(0, (40, 30, 120, 90), 0.9, {}),), np.full((100, 200, 3), 90, np.uint8))
    drawn = (found.plot(tags=False, side=side) != 90).any(axis=2)
    x, y, wide, high = cv2.boundingRect(drawn.view(np.uint8))
    np.testing.assert_allclose(np.array([x, y, x + wide, y + high]) * 200 / side, [40, 30, 120, 90], atol=2)


def test_a_tag_says_what_holds_and_no_more(written):
    found = Prediction((Person(3, (300, 200, 420, 500), 0.874, attributes(3)),), photograph(600, 900))
    found.plot()
    assert [text for text in written if text != "·"] == ["3   0.87", "gender", "male", "label 0", "label 1"]


@pytest.mark.parametrize(("score", "title"), [(None, []), (0.9, ["0   0.90"])])
def test_a_lone_person_without_a_score_has_no_title(written, score, title):
    Prediction((Person(0, (0, 0, 300, 500), score, attributes(1)),), photograph(500, 300)).plot()
    assert written == [*title, "gender", "male"]


def test_more_room_tells_more(written):
    small = Prediction((Person(0, (0, 0, 64, 128), None, attributes(18)),), photograph(128, 64))
    told = {}
    for side in (128, 512, 1024):
        written.clear()
        assert small.plot(side=side).shape == (side, side // 2, 3)
        told[side] = len([text for text in written if text.startswith("label")])
    assert told[128] < told[512] <= told[1024] == 17


@pytest.mark.parametrize("font", ["OpenCV 5", "Pillow"])
@pytest.mark.parametrize("size", [1, 9, 12, 13, 14, 40])
def test_letters(monkeypatch, font, size):
    if font == "Pillow":
        monkeypatch.delattr(cv2, "FontFace", raising=False)
    elif not hasattr(cv2, "FontFace"):
        pytest.skip("OpenCV 4 has no fonts")
    letters = Lettering(size)
    assert letters.width("") == 0
    assert letters.width("gender") <= letters.width("gender ") <= letters.width("gender male")
    for text in (*HOSTILE[5:], "gender"):
        ink = letters.ink(text)
        assert ink.dtype == np.uint8
        assert ink.shape == (letters.line, max(letters.width(text), 1))
        np.testing.assert_array_equal(ink, letters.ink(text))
    if size >= 9:
        assert 0 < letters.width("gender") < letters.width("gender ") < letters.width("gender male")
        rows = np.flatnonzero(letters.ink("H").any(axis=1))
        assert abs(rows[0] + rows[-1] + 1 - letters.line) <= 2 + size / 20  # capitals stand in the middle
        assert letters.ink("gender").max() > 150


def test_other_scripts_are_letters_not_boxes():
    if not hasattr(cv2, "FontFace"):
        pytest.skip("Pillow's own font, in place of OpenCV 5's, has the letters of English only")
    letters = Lettering(20)
    texts = ("女", "男", "ж", "ф", "λ", "φ", "한", "국", "ع", "م")
    assert len({letters.ink(text).tobytes() for text in texts}) == len(texts)


@pytest.mark.parametrize("side", [30, 120, 240, 500])
@pytest.mark.parametrize("kind", ["bool", "float", "lazy"])
def test_masks_at_any_scale_lie_where_they_belong(kind, side):
    shape = cv2.ellipse(np.zeros((60, 40), np.uint8), (20, 30), (15, 25), 0, 0, 360, 1, -1)
    masks = BoxMasks([shape], np.array([[40, 30, 80, 90]], np.float32))
    whole = masks.mask_at(0, 120, 160)
    mask = {"bool": whole, "float": whole.astype(np.float32), "lazy": LazyMask(masks, 0, (120, 160))}[kind]
    found = Prediction((Person(0, (40, 30, 80, 90), 0.9, {}, mask),), np.full((120, 160, 3), 90, np.uint8))
    picture = found.plot(boxes=False, tags=False, side=side)
    height = round(120 * side / 160)
    assert picture.shape == (height, side, 3)
    drawn = (picture != 90).any(axis=2).astype(np.uint8)
    expected = cv2.resize(whole.view(np.uint8), (side, height), interpolation=cv2.INTER_LINEAR)
    reach = np.ones((5, 5), np.uint8)
    assert not drawn[cv2.dilate(expected, reach) == 0].any()
    assert drawn[cv2.erode(expected, reach) == 1].all()
    assert drawn.any()


class Made:
    """A callable without a name."""

    def __call__(self, *_: object) -> np.ndarray:
        return np.eye(50, 60, dtype=bool)


EYE = BoxMasks([np.eye(50, 60, dtype=bool)], np.array([[0, 0, 60, 50]], np.float32))


@pytest.mark.parametrize(
    "lazy",
    [
        Made(),
        partial(Made(), 0, 50, 60),
        partial(np.eye, 50, 60),
        lambda: np.eye(50, 60),
        partial(EYE.mask_at, 0, 50, 60),
        LazyMask(EYE, 0, (50, 60)),
    ],
)
def test_masks_made_in_any_way(lazy):
    found = Prediction((Person(0, (0, 0, 50, 50), 0.9, {}, lazy),), photograph(50, 60))
    changed = (found.plot(boxes=False, tags=False) != found.image).any(axis=2)
    assert changed[np.eye(50, 60, dtype=bool)].mean() > 0.95
    assert changed.mean() < 0.2


def test_a_segmenters_mask_is_never_made_for_the_whole_frame(monkeypatch):
    masks = BoxMasks([np.ones((4, 4), bool)], np.array([[10, 10, 30, 30]], np.float32))
    found = Prediction((Person(0, (10, 10, 30, 30), 0.9, {}, LazyMask(masks, 0, (50, 60))),), photograph(50, 60))
    monkeypatch.setattr(BoxMasks, "values", None)  # what mask_at samples with
    drawn = (found.plot(boxes=False, tags=False) != found.image).any(axis=2)
    assert drawn[12:28, 12:28].mean() > 0.95


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text(text):
    attribute = Attribute(text, ("a" + text, "b" + text), {"a" + text: 0.1, "b" + text: 0.9})
    found = Prediction((Person(0, (10, 10, 60, 90), 0.9, {text: attribute}),), photograph(100, 100), source=text)
    assert found.plot().shape == (100, 100, 3)
    assert str(found).isprintable()
    found.to_json().encode("utf-8")


@pytest.mark.parametrize("box", [(-50, -50, 500, 500), (200, 200, 300, 300), (30, 30, 30, 30), (1e9, -1e9, 3e38, 1)])
def test_boxes_past_the_picture(box):
    found = Prediction((Person(0, box, None, attributes(3)),), photograph(100, 100))
    assert found.plot().shape == (100, 100, 3)


def test_only_the_labels_asked_for_are_told():
    found = Prediction((Person(0, (300, 200, 420, 500), 0.9, attributes(8)),), photograph(600, 900))
    pictures = [found.plot(labels=labels).tobytes() for labels in (None, ["gender"], ["label 3"], [])]
    assert len(set(pictures)) == 4
    np.testing.assert_array_equal(found.plot(labels=iter(["gender"])), found.plot(labels=["gender"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["hat"]}, r"expected labels of \['gender', 'a'\], found 'hat'"),
        ({"labels": "gender"}, "labels: expected a list of names, found 'gender'"),
        ({"labels": "a"}, "labels: expected a list of names, found 'a'"),  # a label of one letter
        ({"labels": 5}, "labels: expected a list of names, found 5"),
        *(
            ({name: value}, rf"{name}: expected an integer from 1 to {most}, found {re.escape(repr(value))}")
            for name, most in (("font_size", 1000), ("side", 16384))
            for value in (
                0,
                -1,
                most + 1,
                65_000,
                10**30,
                12.5,
                12.0,
                "x",
                np.nan,
                np.inf,
                True,
                np.True_,
                np.float32(9),
            )
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    labels = {"gender": attributes(1)["gender"], "a": Attribute("a", ("no", "yes"), {"no": 0.1, "yes": 0.9})}
    with pytest.raises(InputError, match=message):
        Prediction((Person(0, (1, 1, 9, 9), 0.9, labels),), photograph(20, 30)).plot(**options)


@pytest.mark.parametrize("options", [{"font_size": 1000}, {"font_size": 1}, {"side": 16384}, {"side": 1}])
def test_the_greatest_and_the_least_are_drawn(options):
    found = Prediction((Person(0, (1, 1, 60, 3), 0.9, attributes(18)),), photograph(4, 64))
    picture = found.plot(**options)
    assert picture.shape[1] == options.get("side", 64)
    numpys = {name: np.int32(value) for name, value in options.items()}
    np.testing.assert_array_equal(found.plot(**numpys), picture)


def test_masks_of_another_size_are_refused():
    odd = Prediction((Person(7, (1, 1, 9, 9), None, {}, np.ones((5, 5), bool)),), photograph(10, 10))
    with pytest.raises(ShapeError, match=r"person 7: expected a mask \(10, 10\), found \(5, 5\)"):
        odd.plot()
    other = Prediction((Person(7, (1, 1, 9, 9), None, {}, LazyMask(EYE, 0, (50, 60))),), photograph(10, 10))
    with pytest.raises(ShapeError, match=r"person 7: expected a mask \(10, 10\), found \(50, 60\)"):
        other.plot()


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".bmp"])
def test_save(tmp_path, suffix):
    found = crowd(120, 160, 2)
    target = tmp_path / f"out{suffix}"
    found.save(target)
    assert [entry.name for entry in tmp_path.iterdir()] == [target.name]  # no temporary file is left
    read = cv2.imread(str(target))
    assert read.shape == (120, 160, 3)
    if suffix in (".png", ".bmp"):
        np.testing.assert_array_equal(read, found.plot())


@pytest.mark.parametrize("name", ["out", "out.gif", "out.jpg.txt", ".png"])
def test_save_refuses_other_suffixes(tmp_path, name):
    with pytest.raises(InputError, match=r"suffix of \.jpg, .*\.bmp, found"):
        crowd(20, 20, 1).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_save_into_no_folder(tmp_path):
    with pytest.raises(PlanPathError, match="create it first"):
        crowd(20, 20, 1).save(tmp_path / "missing" / "out.png")


def test_what_the_kind_of_file_cannot_hold_is_said(tmp_path):
    wide = Prediction((), np.zeros((2, 16384, 3), np.uint8))
    with pytest.raises(GraftError, match=r"16384x2 pixels.*save as \.png"):
        wide.save(tmp_path / "out.webp")
    wide.save(tmp_path / "out.png")
    assert cv2.imread(str(tmp_path / "out.png")).shape == (2, 16384, 3)
