"""The harvest: which crops, how many, where, who may read them, and what a bad disk does."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftsdk.attribute import Attribute
from graftsdk.errors import InputError
from graftsdk.plan import CropSpec
from graftsdk.prediction import Person, Prediction
from graftsdk.preprocess import mask_crop
from graftsdk.preprocess.crop_file import read_crop
from graftsdk.serving import harvest
from graftsdk.serving.harvest import Harvest, doubt

SPEC = CropSpec((32, 32), pad=0.1)
IMAGE = np.random.default_rng(0).integers(1, 255, (80, 120, 3), np.uint8)
MASK = np.zeros((80, 120), bool)
MASK[20:60, 35:70] = True


def attribute(label: str, score: float, **thresholds: float) -> Attribute:
    return Attribute(label, ("no", "yes"), {"no": 1 - score, "yes": score}, thresholds)


def seen(*attributes: Attribute, box: Any = (30, 15, 75, 65), mask: Any = MASK) -> Prediction:
    person = Person(0, box, 0.9, {each.label: each for each in attributes}, mask)
    return Prediction((person,), IMAGE, source=None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [time.time()]
    monkeypatch.setattr(harvest.time, "time", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def offered(folder: Path, *predictions: Prediction, **options: Any) -> list[Path]:
    """The files after one harvest saw these."""
    found = Harvest(folder, **({"crop": SPEC} | options))
    for prediction in predictions:
        found.offer(prediction)
        while not found._waiting.empty():
            time.sleep(0.001)
    found.close()
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_an_uncertain_crop_is_one_file_that_the_training_reads_as_serving_did(tmp_path: Path) -> None:
    folder = tmp_path / "harvest"
    (path,) = offered(folder, seen(attribute("child", 0.45)))
    assert path.parent == folder / "child" / "no"
    np.testing.assert_array_equal(
        read_crop(path, SPEC), mask_crop(IMAGE, np.array([[30, 15, 75, 65]], np.float32), MASK[None], SPEC)[0]
    )


def test_modes_and_names_tell_nothing(tmp_path: Path) -> None:
    folder, before = tmp_path / "harvest", os.umask(0)
    try:
        (path,) = offered(folder, seen(attribute("child", 0.45)))
    finally:
        os.umask(before)
    assert harvest._NAME.fullmatch(path.name)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, path.parent.parent, path.parent)] == [0o700] * 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("background", ["fill", "keep"])
def test_who_stands_beside_is_black_where_the_plan_does_not_need_it(tmp_path: Path, background: Any) -> None:
    import cv2

    spec = CropSpec((32, 32), background=background)
    (path,) = offered(tmp_path / "harvest", seen(attribute("child", 0.45)), crop=spec)
    pixels = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED)
    outside = pixels[pixels[:, :, 3] == 0][:, :3]
    assert len(outside) and bool(outside.any()) == (background == "keep")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([attribute("child", 0.62, yes=0.7)], "child/no"),
        ([attribute("child", 0.81, yes=0.7)], None),
        ([attribute("child", 0.5, yes=0.9)], None),
        ([attribute("child", 0.58), attribute("hat", 0.52)], "hat/yes"),
        ([Attribute("age", ("a", "b", "c"), {"a": 0.45, "b": 0.4, "c": 0.15})], "age/a"),
        ([Attribute("age", ("a", "b", "c"), {"a": 0.8, "b": 0.1, "c": 0.1})], None),
        ([attribute("../up", 0.5)], None),
        ([attribute(".hidden", 0.5)], None),
    ],
)
def test_what_is_uncertain(tmp_path: Path, given: list[Attribute], expected: str | None) -> None:
    found = offered(tmp_path / "harvest", seen(*given))
    assert [path.parent.relative_to(tmp_path / "harvest").as_posix() for path in found] == [expected] * bool(expected)
    assert not list(tmp_path.glob("up*"))


def test_doubt_of_classes_with_thresholds() -> None:
    scores = {"a": 0.8, "b": 0.15, "c": 0.05}
    assert doubt(Attribute("age", ("a", "b", "c"), scores, {"b": 0.2})) == pytest.approx(0.05)
    assert doubt(attribute("child", 0.9, no=0.1)) == pytest.approx(0.0, abs=1e-9)


def test_a_day_s_pictures_are_spread_over_the_day(tmp_path: Path, clock: Callable[[float], None]) -> None:
    folder, one = tmp_path / "harvest", seen(attribute("child", 0.5))
    assert len(offered(folder, *[one] * 5, per_day=24)) == 1
    for path in folder.rglob("*.png"):
        os.utime(path, (harvest.time.time(),) * 2)
    assert len(offered(folder, one, per_day=24)) == 1  # a restart begins no new day
    clock(3500)
    assert len(offered(folder, one, per_day=24)) == 1
    clock(200)
    assert len(offered(folder, one, per_day=24)) == 2


def test_two_processes_share_the_number(tmp_path: Path) -> None:
    folder, one = tmp_path / "harvest", seen(attribute("child", 0.5))
    first, second = Harvest(folder), Harvest(folder)
    for each in (first, second):
        each.offer(one)
        each.close()
    assert len(list(folder.rglob("*.png"))) == 1


def test_what_is_too_old_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    home = tmp_path / "harvest" / "child" / "yes"
    home.mkdir(mode=0o700, parents=True)
    (tmp_path / "harvest").chmod(0o700)
    names = [f"{'a' * 32}.png", f"{'b' * 32}.png", "mine.png", f".{'c' * 32}.png.12.0123abcd.tmp"]
    for name in names:
        (home / name).write_bytes(b"")
    for name in (names[0], *names[2:]):
        os.utime(home / name, (time.time() - 8 * 86400,) * 2)
    Harvest(tmp_path / "harvest", keep_days=7).close()
    assert sorted(os.listdir(home)) == sorted([names[1], "mine.png"])


def test_a_full_disk_ends_it_with_one_line_and_no_half_file(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = Harvest(tmp_path / "harvest")
    with caplog.at_level(logging.ERROR, "graftsdk.serving"):
        for _ in range(5):
            found.offer(seen(attribute("child", 0.5)))
            clock(86400)
        found.close()
        found.offer(seen(attribute("child", 0.5)))
    assert found.stopped and len(caplog.records) == 1 and "No space left" in caplog.text
    assert not [path for path in (tmp_path / "harvest").rglob("*") if path.is_file()]


def test_a_sweep_that_fails_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    swept = threading.Event()

    def failing(_: Harvest) -> None:
        swept.set()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Harvest, "_sweep", failing)
    with caplog.at_level(logging.ERROR, "graftsdk.serving"):
        assert len(offered(tmp_path / "harvest", seen(attribute("child", 0.5)))) == 1
    assert swept.is_set() and "Too many open files" in caplog.text


def test_it_closes_while_one_picture_is_written_and_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = threading.Event(), threading.Event()
    keep = Harvest._keep_one

    def slow(harvest: Harvest, *offered: Any) -> None:
        reached.set()
        go_on.wait(20)
        keep(harvest, *offered)

    monkeypatch.setattr(Harvest, "_keep_one", slow)
    found = Harvest(tmp_path / "harvest")
    found.offer(seen(attribute("child", 0.5)))
    assert reached.wait(20)
    found.offer(seen(attribute("child", 0.5)))
    closing = threading.Thread(target=found.close)
    closing.start()
    go_on.set()
    closing.join(20)
    assert not closing.is_alive()


def test_a_crop_that_nobody_could_read_again_is_left_out(tmp_path: Path) -> None:
    assert offered(tmp_path / "harvest", seen(attribute("child", 0.5), box=(30, 30, 35, 70))) == []


def test_it_holds_on_to_no_image(tmp_path: Path) -> None:
    import gc
    import weakref

    found, prediction = Harvest(tmp_path / "harvest"), seen(attribute("child", 0.5))
    found.offer(prediction)
    gone = weakref.ref(prediction)
    del prediction
    for _ in range(2000):
        gc.collect()
        if gone() is None:
            break
        time.sleep(0.005)
    assert gone() is None
    found.close()


@pytest.mark.parametrize("what", ["open to others", "a link", "a file", "no parent"])
def test_folders_that_are_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "harvest"
    if what == "open to others":
        folder.mkdir(mode=0o755)
    elif what == "a link":
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to("other")
    elif what == "a file":
        folder.write_bytes(b"")
    else:
        folder = folder / "deeper"
    with pytest.raises(InputError, match="harvest: expected a folder"):
        Harvest(folder)


@pytest.mark.parametrize("options", [{"per_day": 0}, {"per_day": 10_001}, {"keep_days": 0}, {"margin": 1.5}])
def test_numbers_that_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="harvest"):
        Harvest(tmp_path / "harvest", **options)
    assert not (tmp_path / "harvest").exists()
