"""What simulated cameras post."""

from __future__ import annotations

import random
import sys
from itertools import islice
from pathlib import Path

import cameras
import cv2
import numpy as np
import pytest

from graftsdk.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 40 * number, np.uint8))
    return tmp_path


def test_a_folder_is_taken_whole(folder: Path) -> None:
    assert len(cameras.replayed(str(folder), stride=25)) == 6  # the stride is for videos


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_broken_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xffno picture")
    with pytest.raises(InputError, match="--source: expected pictures that can be read, found none in"):
        cameras.replayed(str(tmp_path), stride=1)


@pytest.mark.parametrize(("told", "empty"), [([], 0.0), (["--empty", "0.3"], 0.3)])
def test_pictures_of_your_own_have_no_empty_lift(
    told: list[str], empty: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def simulate(_: str, rides: list[list[bytes]], *others: float) -> cameras.Counts:
        asked.append((len(rides[0]), others))
        return cameras.Counts()

    monkeypatch.setattr(cameras, "simulate", simulate)
    monkeypatch.setattr(sys, "argv", ["cameras.py", "--source", str(folder), *told])
    cameras.main()
    assert asked == [(6, (5, 2.0, empty, None))]


def test_a_lift_without_pauses_posts_one_picture_after_another() -> None:
    posted = list(islice(cameras.snapshots([[b"a", b"b", b"c"]], 0.0, random.Random(1)), 9))
    at = b"abc".index(posted[0])
    assert posted == [b"abc"[(at + place) % 3 :][:1] for place in range(9)]
