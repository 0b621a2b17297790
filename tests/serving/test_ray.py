from __future__ import annotations

import asyncio
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import toys
from PIL import Image

from graftsdk.errors import InputError, MissingDependency

pytest.importorskip("fastapi", reason="needs FastAPI; pip install 'graftsdk[serve]'")
from fastapi import FastAPI, Request

from graftsdk import Predictor
from graftsdk.serving.limits import Limits
from graftsdk.serving.ray import Args, build_app, run
from graftsdk.serving.ray_front import Forward, Front, answer_of
from graftsdk.serving.settings import ServeSettings, key_digest

PORT = 8732
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, of pydantic


class Lost(Exception):
    pass


class Full(Exception):
    pass


def test_words() -> None:
    args = Args.of({"plan": "e.plan", "max_replicas": "8", "num_gpus": "0.25", "queue": "9", "model": "lift"})
    assert (args.plan, args.max_replicas, args.num_gpus, args.settings) == (
        "e.plan",
        8,
        0.25,
        {"queue": 9, "model": "lift"},
    )
    for wrong in (
        {},
        {"plan": "e.plan", "max_replica": "8"},
        {"plan": "e.plan", "max_replicas": "many"},
        {"plan": "e.plan", "max_replicas": "1.5"},
        {"plan": "e.plan", "min_replicas": "5"},
        {"plan": "e.plan", "queue": "x"},
        {"plan": "e.plan", "keys": "no such file"},
    ):
        with pytest.raises(InputError):
            build_app(wrong)


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys.write(tmp_path / "engine.plan", ["child"])
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    with pytest.raises(MissingDependency, match=r'pip install "graftsdk\[ray\]"'):
        build_app({"plan": tmp_path / "engine.plan"})


def _answers(*outcomes: Any, seconds: float = 5.0) -> tuple[int, dict[str, str], Any, list[Any]]:
    """What a client gets where calls of replicas end so, one after another; and the requests that they got."""
    calls: list[Any] = []

    async def call(request: Any) -> Any:
        calls.append(request)
        found = outcomes[min(len(calls), len(outcomes)) - 1]
        if isinstance(found, type):
            raise found
        if found is None:
            await asyncio.sleep(60)
        return found

    forward = Forward(call, seconds, lost=(Lost,), full=(Full,), absent=())
    app = Limits(forward, ServeSettings(), told=lambda *_: None, cut=lambda: None)
    request = ("POST", "/v1/predict", b"labels=child", [(b"x-request-id", b"mine"), (b"x-api-key", b"k")], b"body")
    status, headers, body = asyncio.run(answer_of(app, request))
    return status, {name.decode(): value.decode() for name, value in headers}, body, calls


def test_a_lost_replica_is_replaced_by_another() -> None:
    status, headers, body, calls = _answers(Lost, Lost, (200, [(b"x-request-id", b"x"), (b"a", b"b")], b"done"))
    assert (status, body, len(calls)) == (200, b"done", 3)
    assert headers == {"a": "b", "x-request-id": "mine", "x-content-type-options": "nosniff"}
    assert calls[0] == calls[2]
    method, path, query, sent, content = calls[0]
    assert (method, path, query, content) == ("POST", "/v1/predict", b"labels=child", b"body")
    assert (b"x-request-id", b"mine") in sent and (b"x-api-key", b"k") in sent


def test_the_front_asks_for_a_key_before_a_replica_gets_anything() -> None:
    pytest.importorskip("ray.serve", reason="needs Ray Serve; pip install 'graftsdk[ray]'")
    calls: list[Any] = []

    async def call(request: Any) -> Any:
        calls.append(request[1])
        return 200, [], b"done"

    front = Front(SimpleNamespace(answer=SimpleNamespace(remote=call)), ServeSettings(keys=(key_digest("k"),)))
    app = front.__serve_build_asgi_app__()

    def status(method: str, path: str, body: bytes = b"", *headers: tuple[bytes, bytes]) -> int:
        return asyncio.run(answer_of(app, (method, path, b"", list(headers), body)))[0]

    assert status("POST", "/v1/predict", b"body") == status("GET", "/metrics") == 401
    assert status("GET", "/page/page.css", b"body") == 413
    assert not calls
    for path in ("/live", "/", "/page/page.css"):
        assert status("GET", path) == 200
    assert status("POST", "/v1/predict", b"body", (b"x-api-key", b"k")) == 200
    assert calls == ["/live", "/", "/page/page.css", "/v1/predict"]


@pytest.mark.parametrize(("outcome", "code"), [(Lost, "replica_lost"), (Full, "overloaded"), (None, "overloaded")])
def test_what_nobody_answers_is_a_problem(outcome: Any, code: str) -> None:
    status, headers, body, _ = _answers(outcome, seconds=0.3)
    assert (status, headers["content-type"], json.loads(body)["code"]) == (503, "application/problem+json", code)
    assert json.loads(body)["id"] == "mine" and headers["retry-after"] == "1"


def test_an_app_is_asked_as_by_a_server() -> None:
    app = FastAPI()

    @app.put("/a b/{name}")
    async def put(name: str, request: Request, q: int) -> dict[str, Any]:
        return {"name": name, "q": q, "body": (await request.body()).decode(), "header": request.headers["h"]}

    status, headers, body = asyncio.run(answer_of(app, ("PUT", "/a b/ü", b"q=3", [(b"h", b"v")], b"text")))
    assert status == 200 and dict(headers)[b"content-type"] == b"application/json"
    assert json.loads(body) == {"name": "ü", "q": 3, "body": "text", "header": "v"}


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return (tmp_path / "image.png").read_bytes()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    ray = pytest.importorskip("ray", reason="needs Ray; pip install 'graftsdk[ray]'")
    serve = pytest.importorskip("ray.serve", reason="needs Ray Serve; pip install 'graftsdk[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)  # Ray's processes look there for modules first, and would import the tree
    plan = tmp_path / "engine.plan"
    toys.write(plan, ["child", "gender"])
    try:
        run(Args(str(plan), 1, 1, device="cpu", health_s=0.5), port=PORT)
        yield plan
    finally:
        serve.shutdown()
        ray.shutdown()


def _post(path: str, body: bytes) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    connection.request("POST", path, body, {"Content-Type": "image/png"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text)


def _is_replica(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # gone meanwhile
        return "ServeReplica:graftsdk:replicas" in "".join(process.cmdline())
    return False


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the collector
def test_the_only_replica_is_killed_under_load(served: Path, image: bytes) -> None:
    with Predictor(served) as predictor:
        wanted = predictor.predict(image).to_dict()["persons"]
    status, found = _post("/v1/predict?masks=none", image)
    assert (status, found["persons"]) == (200, wanted)
    assert _post("/v1/predict", b"no image")[1]["code"] == "decode_error"
    answers: list[tuple[int, Any]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answers.append(_post("/v1/predict?masks=none", image))

    clients = [threading.Thread(target=load) for _ in range(2)]
    for client in clients:
        client.start()
    (replica,) = [each for each in psutil.Process().children(recursive=True) if _is_replica(each)]
    while len(answers) < 4:
        time.sleep(0.01)
    replica.kill()
    replica.wait()
    before = len(answers)
    while len(answers) < before + 6:
        time.sleep(0.01)
    stop.set()
    for client in clients:
        client.join()
    assert {status for status, _ in answers} <= {200, 503}
    assert all(found["persons"] == wanted for status, found in answers if status == 200)
    assert all(found["code"] in ("replica_lost", "overloaded") for status, found in answers if status == 503)
    assert answers[-1][0] == 200
