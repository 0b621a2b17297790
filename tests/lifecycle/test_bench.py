"""A plan is measured: what the rows are made of, and that they are held against the plan's own arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import toys

from graftsdk import Predictor
from graftsdk.errors import InputError
from graftsdk.lifecycle import bench
from graftsdk.lifecycle.bench import bench_plan
from graftsdk.lifecycle.drawn_scene import HEIGHT, WIDTH, draw_scene
from graftsdk.lifecycle.picture_cases import STAGES, file_cases
from graftsdk.lifecycle.promise import Promise
from graftsdk.plan import open_plan
from graftsdk.plan.edit import merge_plans
from graftsdk.preprocess import decode_image

LITTLE = 1e-3  # seconds: the least number of runs is what is measured


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench, "LEAST_RUNS", 2)
    toys.write(tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index:02d}.png" for index in range(30)]
    for path in paths:
        assert cv2.imwrite(str(path), np.zeros((40, 50, 3), np.uint8))
    return paths


def test_rows(plan: Path) -> None:
    told: list[object] = []
    found = bench_plan(
        plan, persons=(0, 2), batches=(1, 3), seconds=LITTLE, threads=1, starting=lambda *what: told.extend(what)
    )
    assert told == [2 * 2 + 3, {}]  # plan and trunk at each batch; two pictures and a list
    assert (found.labels, found.layout, found.trunks) == (("child", "gender", "backpack"), "merged", ("toy 32x32",))
    assert (found.machine.threads, found.machine.device, found.machine.shared) == (1, "cpu", False)
    assert found.machine.versions["onnxruntime"]
    assert [row.batch for row in found.engine] == [1, 3]
    for row in found.engine:
        assert row.spent.runs == bench.LEAST_RUNS
        assert 0 < row.spent.least_ms <= row.spent.median_ms <= row.spent.p95_ms
        assert row.expected_ms == pytest.approx(found.networks * row.network_ms)
        assert row.measured_to_expected == pytest.approx(row.spent.least_ms / row.expected_ms)
        assert row.networks == pytest.approx(row.measured_to_expected * found.networks)
    assert [(row.persons, row.at_once) for row in found.pictures] == [(0, 1), (2, 1), (2, 8)]
    for row in found.pictures:
        assert row.size == (HEIGHT, WIDTH)
        assert tuple(row.stages) == (STAGES if row.at_once == 1 else ())
    alone = found.pictures[1]
    assert sum(stage.least_ms for stage in alone.stages.values()) <= alone.total.least_ms
    assert found.drawn and not found.interrupted and found.segmenter is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_files(plan: Path, photos: list[Path]) -> None:
    found = bench_plan(plan, pictures=photos[:3], batches=(1,), seconds=LITTLE)
    assert [row.name for row in found.pictures] == ["00.png", "01.png", "02.png", "all 3 in one list"]
    assert [row.persons for row in found.pictures] == [1] * 4  # no segmenter: the picture is one person
    assert (found.drawn, found.left_out) == (False, 0)


def test_many_files_are_chosen_evenly(plan: Path, photos: list[Path]) -> None:
    with Predictor(plan) as predictor:
        cases, unreadable = file_cases(predictor, photos)
    names = [case.name for case in cases]
    assert names == [f"{int(2.5 * index):02d}.png" for index in range(12)] + ["the first 8 in one list"]
    assert unreadable == {}


def test_bad_files_are_left_out(plan: Path, photos: list[Path]) -> None:
    """The next one is taken for a bad one; where there is none, there are fewer."""
    for index in (0, 2, 3, 4):  # 0 and 1, 2 to 4 and 5 and 6 stand for one each
        photos[index].write_bytes(b"no picture")
    photos[29].unlink()
    told: list[object] = []
    found = bench_plan(plan, pictures=photos, batches=(1,), seconds=LITTLE, starting=lambda *what: told.extend(what))
    assert [row.name for row in found.pictures[:3]] == ["01.png", "05.png", "07.png"]
    assert len(found.pictures) == 11 + 1
    assert list(found.unreadable) == [str(photos[index]) for index in (0, 2, 3, 4)]
    assert told[1] == found.unreadable
    assert found.left_out == 30 - 4 - 11  # of 29 nobody knows
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("labels", [None, ["gender"], ["child", "backpack"]])
def test_promise_is_the_plans_arithmetic(plan: Path, labels: list[str] | None) -> None:
    """A toy's trunk to tap k costs 1000 (k + 1), a branch 500; the i-th label sits on tap i; one network is 4000."""
    with open_plan(plan) as opened:
        promise = Promise(opened, labels or opened.labels)
    taps = [opened.labels.index(label) for label in labels or opened.labels]
    assert promise.macs == 1000 * (max(taps) + 1) + 500 * len(taps)
    assert promise.networks == pytest.approx(promise.macs / 4000)


def test_two_trunks(tmp_path: Path) -> None:
    toys.write(tmp_path / "a.plan", ["child"])
    toys.write(tmp_path / "b.plan", ["hat", "bag"], seed=5)
    merge_plans(tmp_path / "a.plan", tmp_path / "b.plan", tmp_path / "both.plan")
    with open_plan(tmp_path / "both.plan") as plan:
        promise = Promise(plan, plan.labels)
        first, second = promise.values
        row = promise.row(2, [30.0, 40.0], {first: [8.0, 9.0], second: [20.0, 16.0]})
    networks = (1000 + 500) / 4000, (2000 + 2 * 500) / 4000
    assert promise.trunks == ("toy 32x32", "toy 32x32")
    assert promise.networks == pytest.approx(sum(networks))
    assert row.expected_ms == pytest.approx(networks[0] * 4.0 + networks[1] * 8.0)
    assert row.network_ms == pytest.approx(row.expected_ms / sum(networks))
    assert (row.spent.least_ms, row.spent.runs) == (15.0, 2)


@pytest.mark.parametrize(("at", "kept"), [(1, False), (20, True)])
def test_interrupted(plan: Path, photos: list[Path], at: int, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is kept once every case ran."""
    in_turns = bench.in_turns

    def interrupted(*args, **options):  # type: ignore[no-untyped-def]
        for index, found in enumerate(in_turns(*args, **options)):
            if index == at:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(bench, "in_turns", interrupted)
    if not kept:
        with pytest.raises(KeyboardInterrupt):
            bench_plan(plan, pictures=photos[:1], seconds=60.0)
        return
    found = bench_plan(plan, pictures=photos[:1], seconds=60.0)
    assert found.interrupted
    assert all(row.spent.runs >= 1 for row in found.engine)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batches": ()}, "batches"),
        ({"batches": (0,)}, "batches"),
        ({"persons": (-1,)}, "persons"),
        ({"persons": ()}, "persons"),
        ({"persons": (1001,)}, "persons"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": -1}, "seconds"),
        ({"seconds": 0}, "expected more than 0"),
        ({"pictures": []}, "pictures"),
        ({"labels": ["hat"]}, "hat"),
        ({"pictures": [Path("missing.jpg"), Path("gone.jpg")]}, "found none of 2; missing.jpg: expected a file"),
    ],
    ids=str,
)
def test_refusals(options: dict, says: str, plan: Path) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=says):
        bench_plan(plan, **options)


@pytest.mark.parametrize("count", [0, 1, 8, 30])
def test_drawn_scene(count: int) -> None:
    scene = draw_scene(count)
    image = decode_image(scene.encoded)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert len(scene.boxes) == len(scene.masks) == count
    assert scene.encoded == draw_scene(count).encoded
    if count:
        assert (scene.boxes[:, :2] >= 0).all() and (scene.boxes[:, 2:] <= (WIDTH, HEIGHT)).all()
        share = scene.masks.mask_at(0, HEIGHT, WIDTH).sum() / np.prod(scene.boxes[0, 2:] - scene.boxes[0, :2])
        assert 0.4 < share < 0.8
