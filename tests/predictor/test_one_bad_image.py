"""A list with images that cannot be used: each error at its place, everybody else as if they were not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toys
from bad_images.arrays import IMAGE
from bad_images.case import Case
from bad_images.files import BGR, encoded
from bad_images.judge import check_message, inference, scores
from bad_images.persons import boxes_of
from bad_images.table import CASES

from graftsdk import Prediction, Predictor
from graftsdk.errors import DecodeError, EngineClosed, GraftError, ImageTooSmall, InputError

# One case of each error of each row.
BAD: list[Case] = list({(case.row, case.refused): case for case in CASES if case.refused and not case.size}.values())
BAD = [case for case in BAD if case.row != "BoxMasks"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "engine.plan"
    toys.write(path)
    return path


@pytest.fixture(scope="module")
def predictor(path: Path) -> Iterator[Predictor]:
    with Predictor(path) as predictor:
        yield predictor


@pytest.fixture(autouse=True)
def _unharmed(predictor: Predictor) -> Iterator[None]:
    before = inference(predictor)
    yield
    assert inference(predictor) == before


def people(count: int) -> list[list[float]]:
    found: list[list[float]] = boxes_of(count).tolist()
    return found


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_every_kind_of_bad_image_among_good_ones(predictor: Predictor, tmp_path: Path, shift: int) -> None:
    """Good images of 0 to 40 persons between them, so that batches are shared across the bad ones."""
    images, masks, boxes, expected = [], [], [], []
    for index, case in enumerate(BAD):
        for _ in range((index + shift) % 3):
            good, own = np.roll(IMAGE, len(images), axis=0), people(len(images) * 7 % 41)
            images.append(good)
            masks.append(None)
            boxes.append(own)
            expected.append(scores(predictor.predict(good, boxes=own)))
        given = case.make(tmp_path)
        images.append(given.image)
        masks.append(given.masks() if callable(given.masks) else given.masks)
        boxes.append(given.boxes)
        expected.append(case.refused)
    found = predictor.predict(images, masks=masks, boxes=boxes, errors="return")
    assert len(found) == len(expected) > len(BAD)
    for one, right in zip(found, expected, strict=True):
        if isinstance(one, GraftError):
            assert type(one) is right
            check_message(str(one))
        else:
            assert scores(one) == right


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_the_first_is_named_where_errors_are_raised(predictor: Predictor, bad: int) -> None:
    images = [IMAGE] * bad + [np.zeros((4, 4, 3), np.uint8), IMAGE, b"no image"]
    with pytest.raises(ImageTooSmall, match=rf"^image {bad}: expected sides of at least 16") as caught:
        predictor.predict(images)
    assert isinstance(caught.value.__cause__, ImageTooSmall)


def test_nothing_but_bad_images(predictor: Predictor) -> None:
    found = predictor.predict([b"", None, "no/such/image.jpg"], errors="return")
    assert [type(one) for one in found] == [DecodeError, InputError, InputError]
    assert predictor.predict([], errors="return") == []
    (only,) = predictor.predict((b"",), errors="return")
    assert isinstance(only, DecodeError)


def test_a_bad_image_of_a_list_of_one_is_named(predictor: Predictor) -> None:
    with pytest.raises(DecodeError, match="^image 0: "):
        predictor.predict([b"no image"])


def test_one_image_is_no_list(predictor: Predictor) -> None:
    for image in (IMAGE, b"no image", "no/such/image.jpg"):
        with pytest.raises(InputError, match="expected a list of images, found one image") as caught:
            predictor.predict(image, errors="return")  # type: ignore[call-overload]
        assert type(caught.value) is InputError


def test_a_folder_with_other_files_and_a_broken_one(predictor: Predictor, tmp_path: Path) -> None:
    whole = encoded("PNG")
    files = {
        "a.png": whole,
        "b.jpg": encoded("JPEG")[:500],
        "c.webp": b"",
        "d.PNG": whole,
        "notes.txt": b"hello",
        "Thumbs.db": bytes(99),
        ".DS_Store": bytes(99),
        "film.mp4": bytes(99),
        "noext": whole,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DecodeError, match=r"b\.jpg: expected a whole JPEG"):
        predictor.predict(tmp_path)
    found = predictor.predict(tmp_path, errors="return")
    assert [type(one) for one in found] == [Prediction, DecodeError, DecodeError, Prediction]
    assert [one.source for one in found] == [str(tmp_path / name) for name in list(files)[:4]]
    alone = scores(predictor.predict(BGR.copy()))
    assert scores(found[0]) == scores(found[3]) == alone
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="expected images in '.*empty', found none"):
        predictor.predict(empty)


def test_what_is_wrong_with_the_call_or_the_engine_is_raised(path: Path) -> None:
    with Predictor(path) as predictor:
        for options in ({"labels": ["hat"]}, {"color": "grey"}, {"boxes": [None]}, {"masks": [None] * 3}):
            with pytest.raises(InputError):
                predictor.predict([IMAGE, IMAGE], errors="return", **options)
    with pytest.raises(EngineClosed):
        predictor.predict([IMAGE, b"no image"], errors="return")
