"""The table of bad input through every way in: the exact error or the right result, and nothing is broken after.

A case takes less than two seconds of CPU and 64 MiB; the golden inference after it gives the same bits as before.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from bad_images.arrays import IMAGE
from bad_images.case import Case, Given
from bad_images.judge import bounded, check_message, inference, scores
from bad_images.table import CASES, PROMISED

from graftsdk import Prediction, Predictor
from graftsdk.errors import GraftError
from graftsdk.preprocess import decode_image, mask_boxes, mask_crop
from graftsdk.text import one_line

LIMIT = 1000  # persons of one image
LISTED = [case for case in CASES if case.row != "BoxMasks"]  # which are made before they are handed in
DECODED = [case for case in CASES if case.row not in ("persons", "masks", "BoxMasks")]
CUT = [case for case in CASES if case.arrays]


def test_every_row_has_what_it_promises() -> None:
    counts = Counter(case.row for case in CASES)
    assert counts.keys() == PROMISED.keys()
    assert {row: count for row, count in counts.items() if count < PROMISED[row]} == {}
    assert [name for name, count in Counter(map(str, CASES)).items() if count > 1] == []


def test_the_row_of_encoded_images_is_what_it_says() -> None:
    names = [case.name for case in CASES if case.row == "encoded"]
    for kind in ("JPEG", "PNG", "WEBP"):
        assert sum(name.startswith(f"{kind} cut at") for name in names) == 20
        assert sum(name.startswith(f"{kind} with bit") for name in names) == 60
    for beginning, least in {"bomb": 8, "wrong content": 16, "right: EXIF": 8, "right": 18}.items():
        assert sum(name.startswith(beginning) for name in names) >= least


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    path = tmp_path_factory.mktemp("plan") / "engine.plan"
    toys.write(path)
    with Predictor(path) as predictor:
        predictor.predict([IMAGE, IMAGE])
        yield predictor


@pytest.fixture(scope="module")
def golden(predictor: Predictor) -> list[bytes]:
    return inference(predictor)


@pytest.fixture(autouse=True)
def _unharmed(predictor: Predictor, golden: list[bytes]) -> Iterator[None]:
    yield
    assert inference(predictor) == golden


def answer(case: Case, call: Callable[[], Any], prefix: str = "") -> Any:
    """What `call` gives; None where it is refused, as it should or may be."""
    try:
        with bounded():
            found = call()
    except GraftError as error:
        assert type(error) is case.refused, repr(error)
        assert str(error).startswith(prefix)
        check_message(str(error))
        return None
    assert case.refused is None or case.size is not None, f"expected {case.refused}, found a result"
    return found


def options(given: Given, at: int | None = None) -> dict[str, Any]:
    """Boxes and masks of `predict`, those of one person, if asked for."""
    masks = given.masks() if callable(given.masks) else given.masks
    persons = {"boxes": given.boxes, "masks": masks}
    return {k: v if at is None or v is None else v[at : at + 1] for k, v in persons.items()}


def some(count: int) -> list[int]:
    """Persons that are looked at alone: those around the edges of batches."""
    return sorted({0, 31, 32, 63, 64, count - 1} & set(range(count)))


def check_prediction(predictor: Predictor, case: Case, given: Given, found: Prediction, folder: Path) -> None:
    count = min(case.persons, LIMIT)
    assert (len(found), found.truncated) == (count, case.persons > LIMIT)
    assert all(0 <= value <= 1 for person in scores(found) for row in person.values() for value in row.values())
    if case.plain is not None:
        plain = case.plain(folder)
        assert scores(found) == scores(predictor.predict(plain.image, color=plain.color, **options(plain)))
    if case.row == "encoded":
        assert scores(found) == scores(predictor.predict(decode_image(given.image)))
    for index in some(count) if given.boxes is not None else ():
        alone = predictor.predict(given.image, color=given.color, **options(given, index))
        assert scores(found)[index] == scores(alone)[0]


def ids(cases: list[Case] | tuple[Case, ...]) -> dict[str, Any]:
    return {"argvalues": cases, "ids": list(map(str, cases))}


@pytest.mark.parametrize("case", **ids(CASES))
def test_predict(predictor: Predictor, case: Case, tmp_path: Path) -> None:
    given = case.make(tmp_path)
    found = answer(case, lambda: predictor.predict(given.image, color=given.color, **options(given)))
    if found is not None:
        check_prediction(predictor, case, given, found, tmp_path)


@pytest.mark.parametrize("case", **ids(LISTED))
def test_predict_in_a_list(predictor: Predictor, case: Case, tmp_path: Path) -> None:
    """It is named, or fails alone where that is asked for; its neighbours have their own results."""

    def together(given: Given, errors: str) -> Any:
        sides = {name: [None, side, None] for name, side in options(given).items()}
        images = [IMAGE, given.image, IMAGE]
        found = predictor.predict(images, color=given.color, errors=errors, **sides)  # type: ignore[call-overload]
        if isinstance(found[1], GraftError):
            assert scores(found[0]) == scores(found[2]) == neighbour
            raise found[1]
        return found

    for errors in ("raise", "return"):
        given = case.make(tmp_path)  # before memory is watched, and anew: a file is read once
        neighbour = scores(predictor.predict(IMAGE, color=given.color))
        path = given.image.__fspath__() if isinstance(given.image, os.PathLike) else given.image
        named_by = str if path is given.image else (str, bytes)  # bytes are no path, a path-like may give them
        name = os.fsdecode(path) if isinstance(path, named_by) else ""
        named = one_line(name[-200:] or "image 1") + ": "
        found = answer(case, partial(together, given, errors), named)
        if found is not None:
            assert scores(found[0]) == scores(found[2]) == neighbour
            check_prediction(predictor, case, case.make(tmp_path), found[1], tmp_path)


@pytest.mark.parametrize("case", **ids(DECODED))
def test_decode(case: Case, tmp_path: Path) -> None:
    given = case.make(tmp_path)
    found = answer(case, lambda: decode_image(given.image, given.color))
    if found is None:
        return
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
    if case.size is not None:
        assert found.shape[:2] == case.size
    if case.pixels is not None:
        assert found.shape == case.pixels.shape
        assert np.abs(found.astype(int) - case.pixels).max() <= case.within
    if case.row == "encoded":
        assert found.tobytes() == decode_image(given.image).tobytes()  # nothing of it is other memory
    if case.plain is not None:
        plain = case.plain(tmp_path)
        assert found.tobytes() == decode_image(plain.image, plain.color).tobytes()


@pytest.mark.parametrize("case", **ids(CUT))
def test_mask_crop(case: Case, tmp_path: Path) -> None:
    def cut(given: Given, at: int | None = None) -> np.ndarray:
        persons = options(given, at)
        size = np.shape(given.image)[:2]
        if persons["boxes"] is None:
            whole = [[0, 0, *size[::-1]]]
            persons["boxes"] = whole if persons["masks"] is None else mask_boxes(persons["masks"], size)
        return mask_crop(given.image, **persons, spec=toys.CROP, color=given.color)

    given = case.make(tmp_path)
    found = answer(case, lambda: cut(given))
    if found is None:
        return
    assert found.shape == (case.persons, 3, toys.SIDE, toys.SIDE) and np.isfinite(found).all()
    assert found.size == 0 or (found.min() >= -2 - 1e-5 and found.max() <= 2 + 1e-5)  # mean .5, deviation .25
    if case.plain is not None:
        assert found.tobytes() == cut(case.plain(tmp_path)).tobytes()
    for index in some(case.persons):
        if given.boxes is not None:
            assert found[index].tobytes() == cut(given, index).tobytes()
