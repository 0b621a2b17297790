"""Pictures of one person each, `/v1/crops`: profiles, reloads, what is counted, and what it may take of the machine."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from requests_and_problems import check_problem, encoded
from starlette.testclient import TestClient

from graftsdk.predictor import Predictor
from graftsdk.serving import answers
from graftsdk.serving.app import create_app
from graftsdk.serving.metrics import Metrics
from graftsdk.serving.profiles import Profiles
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings


@pytest.fixture
def plan(toy_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(toy_path, tmp_path / "engine.plan"))


class Running:
    """A service over the plan, and what asks it."""

    def __init__(self, plan: Path, **settings: Any) -> None:
        self.service = Service(Predictor(plan, threads=1), ServeSettings(**settings))
        predictor = self.service.predictor
        known = answers.documents_of(predictor.plan, predictor.labels)
        self.service.metrics = Metrics(known, lambda: 0, predictor.plan.digest)
        self.client = TestClient(create_app(self.service))

    def crops(self, *pictures: bytes, query: str = "") -> Any:
        files = [("image", (f"{place}.jpg", data)) for place, data in enumerate(pictures)]
        return self.client.post(f"/v1/crops{query}", files=files)


@pytest.fixture
def running(plan: Path) -> Iterator[Any]:
    opened: list[Any] = []

    def run(**settings: Any) -> Running:
        found = Running(plan, **settings)
        opened.append(found.client)
        found.client.__enter__()
        return found

    yield run
    for client in opened:
        client.__exit__(None, None, None)


def test_a_profile_may_speak_of_labels_that_were_not_asked_for(running: Any, jpeg: bytes) -> None:
    found = running()
    found.service.profiles = Profiles({"all": {"child": 0.0, "backpack": 0.3}, "none": {"child": 1.0}})
    for profile, present in (("all", True), ("none", False)):
        answer = found.crops(jpeg, query=f"?labels=child&profile={profile}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["crops"][0]["attributes"]["child"]["present"] is present
    check_problem(found.crops(jpeg, query="?profile=nope"), 422, "unknown_profile")


@pytest.mark.parametrize("when", ["waiting", "cut"])
def test_a_reload_that_takes_a_label_and_changes_the_crop_fails_no_request(
    running: Any, plan: Path, jpeg: bytes, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = running()
    predictor, before = found.service.predictor, found.service.predictor.plan.digest
    later = plan.with_name("later.plan")
    toys.write(later, ["gender"])

    def reload() -> None:
        later.replace(plan)
        predictor.reload()

    if when == "cut":
        decode = answers.decode_image
        monkeypatch.setattr(answers, "decode_image", lambda data: (later.exists() and reload(), decode(data))[1])
    else:
        arun = found.service.batcher.arun

        async def reloaded(*arguments: Any, **options: Any) -> Any:
            reload()
            return await arun(*arguments, **options)

        monkeypatch.setattr(found.service.batcher, "arun", reloaded)
    answer = found.crops(jpeg)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert predictor.labels == ("gender",) and predictor.plan.digest != before
    if when == "cut":
        assert told["plan"] == before and set(told["crops"][0]["attributes"]) == {"child", "gender", "backpack"}
    else:
        assert told["plan"] == predictor.plan.digest and set(told["crops"][0]["attributes"]) == {"gender"}


def test_persons_and_positives_are_counted_and_what_was_no_picture_is_not(running: Any, jpeg: bytes) -> None:
    found = running()
    found.service.profiles = Profiles({"all": {"child": 0.0}})
    found.crops(jpeg, b"no image", encoded((40, 20), seed=3), query="?profile=all")
    text = found.client.get("/metrics").text
    assert "graftsdk_persons_total 2.0" in text
    assert 'graftsdk_label_persons_total{label="child"} 2.0' in text
    assert 'graftsdk_label_positive_total{label="child",value="yes"} 2.0' in text


def test_no_picture_at_all(running: Any) -> None:
    told = running().crops(b"no image", b"nor this").json()
    assert [crop["error"]["code"] for crop in told["crops"]] == ["decode_error"] * 2


def test_a_score_that_is_no_number_is_told_without_a_word_of_it(
    running: Any, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = running()
    engine = found.service.predictor._loaded.engine
    run = engine.run

    def spoiled(feeds: Any, outputs: Any = None) -> Any:
        return {name: np.full_like(values, np.nan) for name, values in run(feeds, outputs).items()}

    monkeypatch.setattr(engine, "run", spoiled)
    check_problem(found.crops(jpeg, jpeg), 500, "non_finite_output")
    monkeypatch.undo()
    assert found.crops(jpeg).status_code == 200


def test_pictures_are_cut_when_their_turn_comes_and_what_the_queue_has_no_room_for_is_refused(
    running: Any, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask: crops are held of as many requests as there are threads that cut, and those that are ready."""
    found = running(queue=8)
    gate, reached, cut = threading.Event(), threading.Event(), []
    engine, decode = found.service.predictor._loaded.engine, answers.decode_image
    run = engine.run

    def gated(feeds: Any, outputs: Any = None) -> Any:
        reached.set()
        assert gate.wait(20)
        return run(feeds, outputs)

    def counted(data: bytes) -> Any:
        cut.append(1)
        return decode(data)

    monkeypatch.setattr("graftsdk.batching.DECODED_BYTES", 1)
    monkeypatch.setattr(engine, "run", gated)
    monkeypatch.setattr(answers, "decode_image", counted)
    with ThreadPoolExecutor(24) as pool:
        first = pool.submit(found.crops, jpeg)
        assert reached.wait(20)
        others = [pool.submit(found.crops, jpeg) for _ in range(23)]
        while sum(other.done() for other in others) < 15:
            threading.Event().wait(0.01)
        before = len(cut)
        gate.set()
        told = [future.result(20) for future in (first, *others)]
    assert before <= 6  # the first, those that four threads were at, and one that is ready
    assert sorted(answer.status_code for answer in told) == [200] * 9 + [503] * 15


def test_cutting_ends_with_the_time_for_the_answer(running: Any, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    found = running(seconds=0.3)
    decode, cut = answers.decode_image, []

    def slow(data: bytes) -> Any:
        cut.append(1)
        threading.Event().wait(0.05)
        return decode(data)

    monkeypatch.setattr(answers, "decode_image", slow)
    check_problem(found.crops(*[jpeg] * 60), 503, "overloaded")
    threading.Event().wait(0.2)
    assert len(cut) < 15
