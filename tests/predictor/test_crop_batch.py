"""Crops of several images in one array: the kernel writes where the engine reads, and nobody's scores depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from graftsdk import Predictor, scene
from graftsdk.scene import CROPS_AT_ONCE


@pytest.fixture
def predictor(tmp_path: Path) -> Iterator[Predictor]:
    toys.write(tmp_path / "p", ["child", "gender"])
    with Predictor(tmp_path / "p") as opened:
        yield opened


@pytest.fixture
def watched(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the kernel wrote and what the engine was given, call by call."""
    seen: dict[str, list[Any]] = {"cut": [], "fed": []}
    cut, run = scene.mask_crop, predictor._loaded.engine.run

    def cutting(*args: Any, **kwargs: Any) -> Any:
        seen["cut"].append(kwargs["out"])
        return cut(*args, **kwargs)

    def running(feeds: Any, outputs: Any = None) -> Any:
        seen["fed"].append(feeds["crops"])
        return run(feeds, outputs)

    monkeypatch.setattr(scene, "mask_crop", cutting)
    monkeypatch.setattr(predictor._loaded.engine, "run", running)
    return seen


def images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 48, 40, 3), np.uint8))


def boxes(count: int) -> list[list[int]]:
    return [[place % 8, place % 5, 20 + place % 11, 30 + place % 13] for place in range(count)]


@pytest.mark.parametrize(
    ("persons", "fed"),
    [
        ([], []),
        ([0], []),
        ([1], [1]),
        ([3, 0, 2], [5]),
        ([CROPS_AT_ONCE], [CROPS_AT_ONCE]),
        ([30, 5], [32, 3]),
        ([1] * 40, [32, 8]),
        ([70, 1, 0], [32, 32, 7]),
    ],
)
def test_batches(predictor: Predictor, watched: dict[str, list[Any]], persons: list[int], fed: list[int]) -> None:
    found = predictor.predict(images(len(persons)), boxes=[boxes(count) for count in persons])
    assert [len(prediction) for prediction in found] == persons
    assert [len(crops) for crops in watched["fed"]] == fed


def test_the_engine_reads_what_the_kernel_wrote(predictor: Predictor, watched: dict[str, list[Any]]) -> None:
    predictor.predict(images(3), boxes=[boxes(2), boxes(30), boxes(9)])
    written = [array.__array_interface__["data"][0] for array in watched["cut"]]
    read = [array.__array_interface__["data"][0] for array in watched["fed"]]
    assert set(read) == {written[0]}  # one array, used anew: nothing was copied
    size = watched["fed"][0][0].nbytes
    assert [(at - written[0]) // size for at in written] == [0, 2, 0]
    assert [len(array) for array in watched["cut"]] == [2, 30, 9]


def test_scores_are_those_of_each_image_alone(predictor: Predictor) -> None:
    many, persons = images(6), [3, 0, 17, 1, 31, 2]
    together = predictor.predict(many, boxes=[boxes(count) for count in persons])
    for image, count, prediction in zip(many, persons, together, strict=True):
        alone = (
            predictor.predict(image, boxes=boxes(count)) if count else predictor.predict(image, boxes=np.empty((0, 4)))
        )
        assert [person.to_dict() for person in prediction] == [person.to_dict() for person in alone]


def test_an_image_whose_scores_are_no_numbers_fails_alone(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = predictor._loaded.engine.run

    def spoilt(feeds: Any, outputs: Any = None) -> Any:
        found = run(feeds, outputs)
        found[outputs[0]][4] = np.nan  # the third image's second person
        return found

    many, persons = images(4), [boxes(2), boxes(1), boxes(3), boxes(1)]
    sound = predictor.predict(many, boxes=persons)
    monkeypatch.setattr(predictor._loaded.engine, "run", spoilt)
    found = predictor.predict(many, boxes=persons, errors="return")
    assert "person 1 got [nan, nan]" in str(found.pop(2))
    sound.pop(2)
    for one, other in zip(found, sound, strict=True):
        assert [person.to_dict() for person in one] == [person.to_dict() for person in other]  # type: ignore[union-attr]


def test_two_calls_never_share_an_array(predictor: Predictor, watched: dict[str, list[Any]]) -> None:
    for _ in range(2):
        predictor.predict(images(1)[0], boxes=boxes(2))
    first, second = watched["cut"]
    assert not np.shares_memory(first, second)
