"""What a service does around its answers: its log and spans, the time that it takes, plans that come and go."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from requests_and_problems import check_problem
from starlette.testclient import TestClient

from graftsdk.errors import Overloaded
from graftsdk.prediction import Person, Prediction
from graftsdk.serving.app import create_app
from graftsdk.serving.logs import json_log
from graftsdk.serving.opening import open_service
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def plan(toy_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(toy_path, tmp_path / "engine.plan"))


@pytest.fixture
def opened(plan: Path) -> Service:
    return open_service(str(plan), ServeSettings(seconds=1.0), {"threads": 1}, watch=3600.0, own_process=False)


@pytest.fixture
def asking(opened: Service) -> Iterator[Any]:
    with TestClient(create_app(opened)) as client:
        yield client


class Spans:
    """Stands where OpenTelemetry's would be."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def request(self, *facts: Any) -> None:
        self.told.append(facts)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/crops"])
def test_a_request_is_a_line_and_a_span_with_nothing_of_what_came(
    asking: Any, opened: Service, jpeg: bytes, path: str
) -> None:
    spans, stream, log = Spans(), io.StringIO(), logging.getLogger("graftsdk.serving")
    opened._tracing = spans  # type: ignore[assignment]
    before = log.level
    log.setLevel(logging.INFO)
    headers = {"x-request-id": "lift-7", "traceparent": PARENT, "x-api-key": "not-to-be-told"}
    try:
        with json_log(stream):
            found = asking.post(f"{path}?labels=child", files={"image": ("holiday.jpg", jpeg)}, headers=headers)
            refused = asking.post(f"{path}?labels=holiday", content=b"\xff", headers={"content-type": "image/jpeg"})
    finally:
        log.setLevel(before)
    assert found.status_code == 200 and refused.status_code == 422
    one, other = map(json.loads, stream.getvalue().splitlines())
    assert {key: one[key] for key in ("id", "method", "route", "status", "persons", "plan")} == {
        "id": "lift-7",
        "method": "POST",
        "route": path,
        "status": 200,
        "persons": 1,
        "plan": opened.predictor.plan.digest,
    }
    assert set(one) == {"time", "level", "event", "id", "method", "route", "status", "ms", "persons", "plan"}
    assert (other["status"], other["code"], other["id"]) == (422, "unknown_label", refused.json()["id"])
    for secret in ("holiday", "labels=", "not-to-be-told", PARENT):
        assert secret not in stream.getvalue()
    (method, route, status, seconds, request_id, timings, parent), _ = spans.told
    assert (method, route, status, request_id, parent) == ("POST", path, 200, "lift-7", PARENT)
    assert 0 < seconds < 60 and (path == "/v1/crops" or timings["engine"] > 0)


def test_plans_that_come_and_go_are_told(asking: Any, opened: Service, plan: Path, jpeg: bytes) -> None:
    watcher = opened.watcher
    assert watcher is not None
    watcher.close()  # this test looks itself
    kept = plan.with_name("kept.plan")
    shutil.copyfile(plan, kept)
    first = asking.get("/v1/plan").json()

    toys.write(plan.with_name("later.plan"), ["child", "added"])
    plan.with_name("later.plan").replace(plan)
    watcher.look()
    second = asking.get("/v1/plan").json()
    assert [label["label"] for label in second["labels"]] == ["child", "added"] != first["labels"]
    assert second["digest"] == asking.get("/ready").json()["plan"] != first["digest"]
    asking.post("/v1/predict", content=jpeg, headers={"content-type": "image/jpeg"})
    text = asking.get("/metrics").text
    assert f'graftsdk_plan_info{{digest="{second["digest"]}"}} 1.0' in text and first["digest"] not in text
    assert 'graftsdk_reloads_total{result="done"} 1.0' in text
    assert 'graftsdk_label_persons_total{label="added"} 1.0' in text

    kept.replace(plan)
    watcher.look()
    assert asking.get("/v1/plan").json() == first
    assert 'label="added"' not in asking.get("/metrics").text

    plan.with_name("garbage").write_bytes(b"no plan" * 1000)
    plan.with_name("garbage").replace(plan)
    watcher.look()
    ready = asking.get("/ready")
    assert ready.status_code == 200 and ready.json()["plan"] == first["digest"]
    assert ready.json()["refused"] and str(plan.parent) not in ready.text
    text = asking.get("/metrics").text
    assert 'graftsdk_reloads_total{result="refused"} 1.0' in text
    assert 'graftsdk_reloads_total{result="done"} 2.0' in text
    assert asking.post("/v1/predict", content=jpeg, headers={"content-type": "image/jpeg"}).status_code == 200


class SlowToTell(Person):
    """Each of them takes a twentieth of a second; `told` counts."""

    told = 0

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        SlowToTell.told += 1
        threading.Event().wait(0.05)
        return super().to_dict(masks)


def test_an_answer_that_takes_long_to_write_ends_with_its_time(
    asking: Any, opened: Service, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    persons = tuple(SlowToTell(place, (0, 0, 9, 9), None, {}) for place in range(100))
    prediction = Prediction(persons, np.zeros((9, 9, 3), np.uint8), labels=("child",))

    async def predicted(*_: Any, **__: Any) -> Prediction:
        return prediction

    with monkeypatch.context() as patch:
        patch.setattr(opened.batcher, "apredict", predicted)
        answer = asking.post("/v1/predict", content=jpeg, headers={"content-type": "image/jpeg"})
    check_problem(answer, 503, "overloaded")
    threading.Event().wait(0.2)
    assert 10 < SlowToTell.told < 30
    assert "graftsdk_persons_total 0.0" in asking.get("/metrics").text
    assert asking.post("/v1/predict", content=jpeg, headers={"content-type": "image/jpeg"}).status_code == 200


def test_what_waits_for_a_worker_waits_no_longer_than_its_time(opened: Service) -> None:
    async def main() -> None:
        hold = threading.Event()
        busy = [asyncio.ensure_future(opened.work(lambda _: hold.wait(20), float("inf"))) for _ in range(64)]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded, match="deadline"):
            await opened.work(lambda _: None, 0.0)
        hold.set()
        await asyncio.gather(*busy)
        await opened.stop()

    asyncio.run(main())
