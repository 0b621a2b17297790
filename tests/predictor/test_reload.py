"""A plan is swapped under a predictor: no call is lost, none is answered by two plans, nothing stays behind."""

from __future__ import annotations

import gc
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from predictor.test_hostile_branch import CASES, hostile

from graftsdk import Predictor
from graftsdk.engines.golden import check_golden
from graftsdk.errors import EngineClosed, GraftError, InputError, PlanError
from graftsdk.loaded import Loaded
from graftsdk.plan.edit import add_branches, create_plan, remove_label
from graftsdk.prediction import decisions
from graftsdk.preprocess import golden_crops

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
BOXES = [[3, 4, 50, 49], [0, 0, 50, 60]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toys.write(tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


@pytest.fixture
def predictor(path: Path) -> Iterator[Predictor]:
    with Predictor(path, threads=1, layout="split") as opened:
        yield opened


def test_what_changed_is_told(predictor: Predictor, path: Path) -> None:
    old = predictor.plan.digest
    remove_label(path, "child")
    add_branches(path, [toys.branch("hat", 3, seed=70)])
    found = predictor.reload()
    assert (found.old, found.new) == (old, predictor.plan.digest) and found.old != found.new
    assert (found.added, found.removed) == (("hat",), ("child",))
    assert [change.label for change in found.changes] == ["gender", "backpack"]
    assert found.largest == 0.0 and found.flips == {} and found.seconds > 0
    assert predictor.labels == ("gender", "backpack", "hat")
    assert predictor.predict(IMAGE)[0]["hat"].score >= 0
    add_branches(path, [toys.branch("gender", 3, seed=71)], replace_labels=True)  # other classes, under the same name
    assert predictor.reload().flips["gender"] > 0


def test_another_path_is_the_one_from_then_on(predictor: Predictor, tmp_path: Path) -> None:
    toys.write(tmp_path / "other.plan", ["gender"], seed=3)
    assert predictor.reload(tmp_path / "other.plan").largest > 0
    assert predictor.labels == ("gender",)
    assert predictor.reload().largest == 0.0
    with (
        Predictor((tmp_path / "other.plan").read_bytes()) as of_bytes,
        pytest.raises(InputError, match="found None; pass"),
    ):
        of_bytes.reload()


def _garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _rotten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(_garbage, PlanError), (_cut_off, PlanError), (_rotten, PlanError), (Path.unlink, PlanError),
     (lambda path: remove_label(path, "child"), InputError)],
)  # fmt: skip
def test_what_is_wrong_leaves_the_old_one_serving(
    path: Path, spoil: Callable[[Path], Any], error: type[Exception], tmp_path: Path
) -> None:
    with Predictor(path, labels=["child", "gender"]) as predictor:
        loaded, before = predictor._loaded, predictor.predict(IMAGE).to_dict()["persons"]
        copy = tmp_path / "new.plan"
        copy.write_bytes(path.read_bytes())
        spoil(copy)
        with pytest.raises(error):
            predictor.reload(copy)
        assert predictor._loaded is loaded
        assert predictor.predict(IMAGE).to_dict()["persons"] == before
        assert predictor.reload().largest == 0.0


def test_scores_that_are_no_numbers_are_refused(predictor: Predictor, path: Path, monkeypatch: Any) -> None:
    from graftsdk import reloading

    monkeypatch.setattr(reloading, "golden_crops", lambda spec: np.full((2, 3, *spec.size), np.nan, np.float32))
    with pytest.raises(Exception, match="finite"):
        predictor.reload()
    assert len(predictor.predict(IMAGE)) == 1


@pytest.mark.parametrize("layout", ["merged", "split"])
@pytest.mark.parametrize("name", ["logits", "one row for all"])
def test_a_label_that_never_worked_can_be_taken_back_or_replaced(tmp_path: Path, name: str, layout: Any) -> None:
    path = tmp_path / "engine.plan"
    create_plan(path, toys.trunk(), [toys.branch("child", 1), hostile(CASES[name][0])])
    healed = tmp_path / "healed.plan"
    create_plan(healed, toys.trunk(), [toys.branch("child", 1), toys.branch("bad", 1)])
    with Predictor(path, layout=layout) as predictor:
        with pytest.raises(GraftError):
            predictor.predict(IMAGE, boxes=BOXES)
        child = predictor.predict(IMAGE, labels=["child"])[0]["child"]
        found = predictor.reload(healed)
        told = {change.label: (change.largest, change.flips) for change in found.changes}
        assert told["bad"] == (math.inf, found.flips["bad"]) and found.flips["bad"] > 0
        assert told["child"] == (0.0, 0)
        person = predictor.predict(IMAGE)[0]
        assert person["child"].scores == child.scores and person["bad"].score >= 0
    with Predictor(path, layout=layout) as predictor:
        remove_label(path, "bad")
        found = predictor.reload()
        assert (found.removed, predictor.labels) == (("bad",), ("child",))
        create_plan(path, toys.trunk(), [toys.branch("child", 1), hostile(CASES[name][0])])
        with pytest.raises(CASES[name][1]):  # of the new plan all labels have to work
            predictor.reload()
        assert predictor.labels == ("child",)


def test_answers_unlike_those_stored_in_the_new_plan_are_told(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = predictor.plan.manifest
    sound = check_golden(predictor.run, manifest, golden_crops(manifest.crop), decisions)
    with caplog.at_level(logging.INFO, "graftsdk"):
        assert predictor.reload().golden == sound
    assert "golden crops: scores differ" in caplog.text
    run, old = Loaded.run, predictor._loaded

    def turned(self: Loaded, *arguments: Any) -> dict[str, np.ndarray]:
        found = run(self, *arguments)
        return found if self is old else {label: scores[:, ::-1].copy() for label, scores in found.items()}

    monkeypatch.setattr(Loaded, "run", turned)  # probabilities still, of other classes
    found = predictor.reload()
    assert found.golden == check_golden(predictor.run, manifest, golden_crops(manifest.crop), decisions) != sound
    assert [change.label for change in found.golden] == ["child", "gender", "backpack"] and found.largest > 0


def test_a_plan_that_comes_while_the_predictor_closes_serves_nobody(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    retire, tried = Loaded.retire, []

    def then_closed(self: Loaded) -> None:
        retire(self)
        if not tried:  # the old one, just replaced: `close` saw it as well, and has returned
            tried.append(self)
            predictor._closed = True
            with pytest.raises(EngineClosed):
                predictor.predict(IMAGE)

    monkeypatch.setattr(Loaded, "retire", then_closed)
    predictor.reload()
    assert predictor._loaded not in tried and predictor._loaded._retired


def test_a_call_in_flight_ends_on_its_plan_which_closes_then(predictor: Predictor, path: Path) -> None:
    class Slow:
        def read(self, size: int = -1) -> bytes:
            reached.set()
            assert go.wait(20)
            import cv2

            return cv2.imencode(".png", IMAGE)[1].tobytes()

    reached, go, found = threading.Event(), threading.Event(), []
    old = predictor._loaded
    thread = threading.Thread(target=lambda: found.append(predictor.predict(Slow())))
    thread.start()
    assert reached.wait(20)
    add_branches(path, [toys.branch("hat", 3, seed=70)])
    told = predictor.reload()
    assert "hat" in predictor.predict(IMAGE).labels
    go.set()
    thread.join(20)
    assert found[0].plan == told.old and found[0].labels == ("child", "gender", "backpack")
    with pytest.raises(EngineClosed):
        old.engine.run({"crops": toys.crops(1)})


def test_fifty_reloads_under_load(predictor: Predictor, path: Path, tmp_path: Path) -> None:
    """Labels come and go; the others' answers are the same bits, each answer is one plan's, nothing grows."""
    plain, with_hat = path.read_bytes(), tmp_path / "hat.plan"
    with_hat.write_bytes(plain)
    add_branches(with_hat, [toys.branch("hat", 3, seed=70)])
    expected = predictor.predict(IMAGE, boxes=BOXES)
    labels = {predictor.plan.digest: predictor.labels}
    told = predictor.reload(with_hat)
    labels[told.new] = predictor.labels
    stop, errors, done = threading.Event(), list[BaseException](), [0, 0, 0]
    batcher = predictor.batcher()

    def check(found: Any) -> None:
        assert found.labels == labels[found.plan]
        assert all(tuple(person.attributes) == found.labels for person in found)
        for person, wanted in zip(found, expected, strict=True):
            for label in ("child", "gender", "backpack"):
                assert person[label].scores == wanted[label].scores

    def work(place: int) -> None:
        try:
            while not stop.is_set() or done[place] < 20:
                if place < 2:
                    check(predictor.predict(IMAGE, boxes=BOXES))
                else:
                    check(batcher.predict(IMAGE, boxes=BOXES))
                done[place] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    descriptors: list[int] = []
    try:
        for index in range(50):
            told = predictor.reload(with_hat if index % 2 else path)
            assert told.largest == 0.0
            if index in (9, 49):
                gc.collect()
                descriptors.append(len(os.listdir("/proc/self/fd")))
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        batcher.close()
    assert not errors, errors[0]
    assert min(done) >= 20
    assert descriptors[1] <= descriptors[0] + 4  # of calls in flight, which hold an old plan
    assert predictor._loaded._holds == 0


def test_after_close_nothing_is_loaded(predictor: Predictor) -> None:
    predictor.close()
    with pytest.raises(EngineClosed):
        predictor.reload()
