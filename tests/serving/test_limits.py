"""Full queues, clients that go away, bodies that take too much memory, engines that fail: at the ASGI interface."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graftsdk.errors import EngineOutOfMemory, NonFiniteOutput, Overloaded, PlanCorrupt
from graftsdk.predictor import Predictor
from graftsdk.serving.app import create_app
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings, key_digest

HEADERS = [(b"content-type", b"image/jpeg")]


class Call:
    """One request at the ASGI interface: pieces of its body, then the client waits, or goes away."""

    def __init__(self, app: Any, pieces: list[bytes], path: str = "/v1/predict", headers: Any = HEADERS) -> None:
        self.app = app
        self.left = list(pieces)
        self.gone = asyncio.Event()
        self.asked = asyncio.Event()  # it waits for the client, its body being read
        self.sent: list[dict[str, Any]] = []
        self.scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
        self.scope |= {"root_path": "", "http_version": "1.1", "scheme": "http", "server": ("a", 80), "client": None}

    async def receive(self) -> dict[str, Any]:
        if self.left:
            return {"type": "http.request", "body": self.left.pop(0), "more_body": bool(self.left)}
        self.asked.set()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self) -> None:
        await self.app(self.scope, self.receive, self.send)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(b"".join(message["body"] for message in self.sent[1:]))
        return found


@pytest.fixture
def open_service(toy_path: Path) -> Iterator[Any]:
    made: list[Service] = []

    def make(**settings: Any) -> Service:
        made.append(Service(Predictor(toy_path, threads=1), ServeSettings(**settings)))
        return made[-1]

    yield make
    for service in made:
        asyncio.run(service.stop())


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(open_service: Any, jpeg: bytes) -> None:
    service = open_service(queue=1)
    service.batcher.submit = _raises(Overloaded("batcher: 1 waiting"))

    async def ask() -> None:
        call = Call(create_app(service), [jpeg])
        await call.run()
        assert call.status == 503 and call.document["code"] == "overloaded"
        assert call.headers[b"retry-after"] == b"1" and b"connection" not in call.headers

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/predict", "/v1/predict"),
        ("/v1/crops", "/v1/crops"),
        ("/v2/models/any/infer", "/v2/models/{name}/infer"),
        ("/v2/models/any/versions/1/infer", "/v2/models/{name}/versions/{version}/infer"),
        ("/live", None),
        ("/v2/models/any/inferior", None),
    ],
)
def test_a_full_queue_refuses_before_any_route(
    open_service: Any, path: str, route: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = open_service()
    routes: list[str] = []
    monkeypatch.setattr(type(service.batcher), "full", property(lambda _: True))
    service.answered = lambda method, route, *_: routes.append(route)

    async def ask() -> None:
        call = Call(create_app(service), [b"whatever, nobody looks at it"], path)
        await call.run()
        if route is None:
            assert call.status in (404, 405)
        else:
            assert (call.status, call.document["code"], call.headers[b"retry-after"]) == (503, "overloaded", b"1")
            assert b"connection" not in call.headers and routes == [route]

    asyncio.run(ask())


def test_a_deadline_that_passed_is_a_503(open_service: Any, jpeg: bytes) -> None:
    service = open_service(seconds=0.01)
    stopped = threading.Event()
    service.batcher.observe = lambda _: stopped.wait(0.2)  # the computing thread is busy after the first one

    async def ask() -> None:
        app = create_app(service)
        calls = [Call(app, [jpeg]) for _ in range(3)]
        await asyncio.gather(*(call.run() for call in calls[:1]))
        await asyncio.gather(*(call.run() for call in calls[1:]))
        assert {call.status for call in calls} <= {200, 503} and calls[-1].status == 503
        assert calls[-1].document["code"] == "overloaded"

    asyncio.run(ask())


def test_the_work_of_a_client_that_went_away_is_dropped(open_service: Any, jpeg: bytes) -> None:
    service = open_service()
    future: Future[Any] = Future()
    service.batcher.submit = lambda *_, **__: future
    service.batcher.submit_crops = lambda *_, **__: future

    async def ask() -> None:
        nonlocal future
        for path in ("/v1/predict", "/v1/crops"):
            future = Future()
            call = Call(create_app(service), [jpeg], path)
            running = asyncio.create_task(call.run())
            await call.asked.wait()
            await asyncio.sleep(0.05)  # a picture of /v1/crops is being cut
            assert not running.done()
            call.gone.set()
            await running
            assert future.cancelled() and not call.sent

    asyncio.run(ask())


def test_nobody_is_answered_who_went_away_while_sending(open_service: Any, jpeg: bytes) -> None:
    service = open_service()
    service.batcher.submit = _raises(AssertionError("nothing may be computed"))

    async def ask() -> None:
        call = Call(create_app(service), [jpeg[:10]])
        call.left = []
        call.gone.set()
        await call.run()
        assert not call.sent

    asyncio.run(ask())


def test_all_bodies_together_have_a_limit(open_service: Any, jpeg: bytes) -> None:
    service = open_service(max_held=100_000, max_bytes=90_000)

    async def ask() -> None:
        app = create_app(service)
        first = Call(app, [bytes(60_000), b""])
        slow = asyncio.Event()
        receive = first.receive

        async def waits() -> Any:
            if len(first.left) == 1:
                await slow.wait()
            return await receive()

        first.receive = waits  # type: ignore[method-assign]
        running = asyncio.create_task(first.run())
        await asyncio.sleep(0.01)
        second = Call(app, [bytes(60_000)])
        second.gone.set()
        await second.run()
        assert second.status == 503 and second.document["code"] == "overloaded"
        slow.set()
        await running
        assert first.document["code"] == "decode_error"
        again = Call(app, [bytes(60_000)])  # what was held is free again
        await again.run()
        assert again.document["code"] == "decode_error"

    asyncio.run(ask())


def test_without_a_key_nobody_has_a_body_held(open_service: Any, jpeg: bytes) -> None:
    service = open_service(max_held=100_000, max_bytes=90_000, keys=(key_digest("k"),))

    async def ask() -> None:
        app = create_app(service)
        strangers = []
        for path, headers in (("/live", []), ("/page/page.css", []), ("/", [(b"content-length", b"60000")])):
            call = Call(app, [bytes(60_000), b""], path, headers)
            call.scope["method"] = "GET"
            await call.run()
            strangers.append((call.status, call.document["code"]))
        assert strangers == [(413, "body_too_large")] * 3
        sending = Call(app, [bytes(60_000), b""], "/live", [])
        sending.scope["method"] = "GET"
        receive = sending.receive

        async def slowly() -> Any:
            if len(sending.left) == 1:
                await sending.gone.wait()
            return await receive()

        sending.receive = slowly  # type: ignore[method-assign]
        running = asyncio.create_task(sending.run())
        await asyncio.sleep(0.01)
        call = Call(app, [bytes(60_000)], headers=[*HEADERS, (b"x-api-key", b"k")])
        await call.run()
        assert call.document["code"] == "decode_error"
        sending.gone.set()
        await running

    asyncio.run(ask())


@pytest.mark.parametrize(
    "error", [EngineOutOfMemory("/x/y 0xff"), PlanCorrupt("/x/y"), RuntimeError("/x/y"), MemoryError()]
)
def test_what_is_our_fault_is_told_without_a_word_of_it(
    open_service: Any, jpeg: bytes, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    service = open_service()
    service.batcher.submit = _raises(error)

    async def ask() -> None:
        call = Call(create_app(service), [jpeg], headers=[*HEADERS, (b"x-request-id", b"mine")])
        await call.run()
        assert call.status == 500 and "/x" not in json.dumps(call.document)
        assert call.document["id"] == "mine"

    with caplog.at_level(logging.ERROR):
        asyncio.run(ask())
    assert any("mine" in record.getMessage() and record.exc_info for record in caplog.records)


def test_one_crop_whose_score_is_no_number_fails_alone(open_service: Any, jpeg: bytes) -> None:
    service = open_service()
    service.batcher.submit = _raises(NonFiniteOutput("label 'child'"))

    async def ask() -> None:
        app = create_app(service)
        call, other = Call(app, [jpeg]), Call(app, [jpeg], "/v1/crops")
        await asyncio.gather(call.run(), other.run())
        assert (call.status, call.document["code"], other.status) == (500, "non_finite_output", 200)

    asyncio.run(ask())


def test_fewer_persons_are_told_where_the_limit_is_smaller(open_service: Any) -> None:
    import numpy as np

    service = open_service(max_persons=2)
    image = np.zeros((64, 64, 3), np.uint8)
    boxes = [[0, 0, 20, 20], [10, 10, 40, 40], [5, 5, 60, 60]]
    prediction = service.predictor.predict(image, boxes=boxes)
    found = json.loads(service._told(prediction, None, False, "id"))
    assert len(found["persons"]) == 2 and found["truncated"] and len(prediction) == 3


def test_a_plan_that_was_refused_is_told_without_its_path(open_service: Any, toy_path: Path) -> None:
    service = open_service()

    class Watcher:
        refused = f"{toy_path}: expected a plan, found garbage"

        def close(self) -> None: ...

    assert service.refused() is None
    service.watcher = Watcher()
    assert service.refused() == "plan: expected a plan, found garbage"


def test_nor_with_it_where_the_plan_was_named_by_a_relative_path(
    toy_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy_path.parent)
    with Predictor(toy_path.name, threads=1) as predictor:
        service = Service(predictor, ServeSettings())
        service.watcher = SimpleNamespace(refused=f"{toy_path}: expected a plan, found garbage")  # type: ignore[assignment]
        assert service.refused() == "plan: expected a plan, found garbage"
        service.batcher.close()


def _raises(error: Exception) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call
