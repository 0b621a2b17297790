"""From a camera's snapshot to the pages, over HTTP, with the demo plan and, for the pages, a browser."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import server
from lifts import Fleet
from recognise import InProcess, OverHTTP, ServiceFailed
from schema import read_schema
from server import PLAN, Server

from graftsdk.errors import GraftError, InputError, Overloaded

EXAMPLE = Path(__file__).parents[2] / "examples" / "advertising"
LOBBY = (PLAN.parent / "lobby.jpg").read_bytes()
EMPTY = cv2.imencode(".jpg", np.full((360, 640, 3), 128, np.uint8))[1].tobytes()
JPEG = {"Content-Type": "image/jpeg"}


class Running:
    """The example's server in a thread, on a port of its own. Nothing settles, so that one snapshot is an answer."""

    def __init__(self, folder: Path) -> None:
        self.schema = folder / "schema.toml"
        text = (EXAMPLE / "schema.toml").read_text("utf-8")
        self.schema.write_text(text.replace("settle = 2 ", "settle = 0 ").replace("hold = 10 ", "hold = 0 "), "utf-8")
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()))
        self.thread.start()
        until = time.monotonic() + 30
        while not (hasattr(self, "server") and self.server.started):
            assert self.thread.is_alive() and time.monotonic() < until
            time.sleep(0.02)
        self.address = self.server.address

    async def serve(self) -> None:
        recogniser = InProcess(PLAN, 8)
        self.fleet = Fleet(read_schema(self.schema, recogniser.classes), recogniser, most_lifts=20)
        self.server = Server(self.fleet, 0)
        await self.server.serve()
        await recogniser.close()

    def post(self, lift: str, jpeg: bytes) -> None:
        answer = httpx.post(f"{self.address}/lifts/{lift}/snapshot", content=jpeg, headers=JPEG)
        assert answer.status_code == 202 and answer.json() == {"replaced": False}

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    served = Running(tmp_path_factory.mktemp("advertising"))
    yield served
    served.stop()


class Events:
    """A stream's, one after another."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self, *names: str) -> Any:
        """The data of the next event of one of these names."""
        name = ""
        for line in self._lines:
            key, _, value = line.partition(": ")
            name = value if key == "event" else name
            if key == "data" and name in names:
                return json.loads(value)
        raise AssertionError(f"the stream ended before {names}")


def test_from_a_snapshot_to_the_screen_and_the_dashboard(running: Running) -> None:
    with (
        httpx.stream("GET", f"{running.address}/events", params={"lift": "a-1"}, timeout=20) as screen,
        httpx.stream("GET", f"{running.address}/events", timeout=20) as board,
    ):
        assert screen.headers["content-type"].startswith("text/event-stream")
        shown, wall = Events(screen), Events(board)
        assert shown.next("default")["name"] == "house" and shown.next("advertisement")["name"] == "house"
        assert set(wall.next("advertisements")) == set(running.fleet.schema.advertisements)
        assert [tile["age"] for tile in wall.next("all") if tile["lift"] == "a-1"] == [None]
        running.post("a-1", LOBBY)
        card = shown.next("advertisement")
        assert card["name"] != "house" and "rule" not in card  # what it shows, not why
        while True:
            tiles = {tile["lift"]: tile for tile in wall.next("lifts")}
            if tiles.get("a-1", {}).get("people"):
                break
        tile = tiles["a-1"]
        assert tile["advertisement"] == card["name"] and tile["rule"] and tile["problem"] is None
        assert len(tile["people"]) == 3 and tile["count"] == 3
        assert set(tile) == {"lift", "advertisement", "rule", "count", "people", "age", "problem"}
        assert wall.next("totals")["answered"] >= 1


@pytest.mark.parametrize(
    ("lift", "content", "kind", "status"),
    [
        ("b", LOBBY, "image/png", 415),
        ("b", b"no picture", "image/jpeg", 400),
        ("b", b"", "image/jpeg", 400),
        ("b", b"\xff\xd8\xff" + bytes(2 * 2**20), "image/jpeg", 413),
        ("b c", LOBBY, "image/jpeg", 422),
        ("x" * 41, LOBBY, "image/jpeg", 422),
    ],
)
def test_refused(running: Running, lift: str, content: bytes, kind: str, status: int) -> None:
    answer = httpx.post(f"{running.address}/lifts/{lift}/snapshot", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status and lift not in running.fleet.lifts


@pytest.mark.parametrize(
    "path", ["/files/server.py", "/files/..%2fschema.toml", "/files/schema.toml", "/lifts/a/snapshot"]
)
def test_nothing_else_is_there(running: Running, path: str) -> None:
    assert httpx.get(running.address + path).status_code in (404, 405)


def test_another_name_of_this_machine_is_refused(running: Running) -> None:
    assert httpx.get(running.address + "/totals", headers={"Host": "somewhere.example"}).status_code == 400


def test_a_torn_snapshot_is_told_and_the_next_one_is_fine(running: Running) -> None:
    for jpeg, problem in ((LOBBY[:300], "unreadable snapshot"), (EMPTY, None)):
        answered = running.fleet.totals.answered + running.fleet.totals.unreadable
        running.post("torn", jpeg)
        until = time.monotonic() + 20
        while running.fleet.totals.answered + running.fleet.totals.unreadable == answered:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert running.fleet.lifts["torn"].problem == problem


def test_a_name_that_was_only_looked_at_is_forgotten(running: Running) -> None:
    with httpx.stream("GET", f"{running.address}/events", params={"lift": "typo"}, timeout=20) as screen:
        events = Events(screen)  # kept: without it the response is closed
        events.next("advertisement")
        assert "typo" in running.fleet.lifts
    until = time.monotonic() + 20
    while "typo" in running.fleet.lifts:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_stream_that_has_nothing_to_say_says_so(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ALIVE", 0.1)
    with httpx.stream("GET", f"{running.address}/events", params={"lift": "quiet"}, timeout=20) as screen:
        events = Events(screen)
        assert [events.next("alive"), events.next("alive")] == [{}, {}]  # a comment would not reach a page


def test_there_is_an_end_to_streams(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    until = time.monotonic() + 20
    while running.fleet.streams:  # those of other tests
        assert time.monotonic() < until
        time.sleep(0.02)
    monkeypatch.setattr(server, "MOST_STREAMS", 1)
    with httpx.stream("GET", f"{running.address}/events", timeout=20) as board:
        events = Events(board)
        events.next("all")
        for lift in ({}, {"lift": "one-more"}):
            answer = httpx.get(f"{running.address}/events", params=lift)
            assert answer.status_code == 503 and "expected at most 1 open screens" in answer.json()["detail"]
        assert "one-more" not in running.fleet.lifts


def test_other_files_beside_the_cards_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("toys.svg", "toys.svg~", "photo.xcf"):
        (tmp_path / name).write_text("<svg/>")
    monkeypatch.setattr(server, "CARDS", tmp_path)
    (files,) = (route.endpoint.__closure__ for route in server.create_app(None).routes if route.path == "/files/{name}")
    assert {"toys.svg", "screen.html"} <= set(files[0].cell_contents) and "toys.svg~" not in files[0].cell_contents


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--service: expected `graftsdk serve` at http://127.0.0.1:9, found"):
        OverHTTP("http://127.0.0.1:9")


class Answering:
    """Stands for a service: tells a plan, and answers every snapshot in the same way."""

    def __init__(self, status: int = 200, content: bytes = b"", kind: str = "application/json", **plan: Any) -> None:
        told = json.dumps({"labels": [{"label": "child", "classes": ["no", "yes"]}], **plan}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, told, "application/json")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(status, content, kind)

            def answer(self, status: int, content: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return self.address

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)


def test_a_service_that_keeps_pictures_is_refused() -> None:
    with Answering(harvest=True) as address, pytest.raises(InputError, match="expected a service that keeps no pict"):
        OverHTTP(address)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (422, "decode_error", InputError),
        (413, "image_too_large", InputError),
        (422, "unknown_label", ServiceFailed),  # the plan there is another one now
        (401, "key", ServiceFailed),
        (500, "engine_error", ServiceFailed),
        (502, None, ServiceFailed),  # a proxy's page
        (503, "overloaded", Overloaded),
    ],
)
def test_whose_fault_it_is(status: int, code: str | None, error: type[GraftError]) -> None:
    content, kind = (b"<html>", "text/html") if code is None else (json.dumps({"code": code}).encode(), "problem+json")

    async def ask(address: str) -> None:
        recogniser = OverHTTP(address)
        with pytest.raises(GraftError) as found:
            await recogniser.people(LOBBY, ["child"])
        await recogniser.close()
        assert type(found.value) is error
        if error is not Overloaded:
            assert str(found.value) == f"the service refused: {status} {code or ''}".strip()

    with Answering(status, content, kind) as address:
        asyncio.run(ask(address))


def test_recognised_by_a_running_service_it_is_the_same() -> None:
    from graftsdk.predictor import Predictor
    from graftsdk.serving.run import server_of
    from graftsdk.serving.service import Service
    from graftsdk.serving.settings import ServeSettings

    server = server_of(Service(Predictor(PLAN, threads=1), ServeSettings()), port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until
            time.sleep(0.02)

        async def both() -> None:
            here, there = InProcess(PLAN, 1), OverHTTP(server.address)
            assert here.classes == there.classes
            labels = ("child", "headwear")
            mine, theirs = await here.people(LOBBY, labels), await there.people(LOBBY, labels)
            assert [list(one.attributes) for one in theirs] == [list(labels)] * len(mine) != []
            for one, other in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(one.box, other.box, atol=0.01)
                for label in labels:
                    assert one.attributes[label].decisions() == other.attributes[label].decisions()
            with pytest.raises(InputError):
                await there.people(LOBBY[:300], labels)
            for recogniser in (here, there):  # rules that only count passengers ask about no label
                assert len(await recogniser.people(LOBBY, ())) == len(mine)
            await here.close()
            await there.close()

        asyncio.run(both())
    finally:
        server.should_exit = True
        thread.join(30)


# ------------------------------------------------------------------------------------------------------------ browser


@pytest.fixture  # not of the module: while it is there, its event loop runs in this thread
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the python package playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs a chromium on PATH (Debian: apt install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def test_pages(running: Running, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 700}, reduced_motion="reduce")
    said: list[str] = []
    asked: list[str] = []
    context.on("console", lambda message: said.append(message.text))
    context.on("weberror", lambda error: said.append(str(error.error)))
    context.on("request", lambda request: asked.append(request.url))
    board = context.new_page()
    board.goto(running.address + "/")
    screen = context.new_page()
    screen.goto(running.address + "/lifts/p-1")
    screen.wait_for_selector("article[data-name=house].shown")
    running.post("p-1", LOBBY)
    running.post("p-2", EMPTY)
    screen.wait_for_selector("article.shown:not([data-name=house])")
    name = running.fleet.lifts["p-1"].shown.advertisement
    card = running.fleet.schema.advertisements[name]
    assert screen.locator("article.shown h1").last.inner_text() == card.headline
    assert screen.get_attribute("main", "aria-live") == "polite"

    board.wait_for_selector("li:has-text('p-1'):has-text('3 passengers')")
    board.wait_for_selector("li.empty:has-text('p-2')")
    board.keyboard.press("/")
    board.keyboard.type(card.brand)
    assert {"p-1", "p-2"} & set(board.locator("li:visible .name").all_inner_texts()) == {"p-1"}
    board.fill("#find", "p-")
    board.keyboard.press("Tab")
    board.keyboard.press("Tab")
    board.keyboard.press("Tab")
    board.keyboard.press("ArrowRight")
    assert board.evaluate("document.activeElement.querySelector('.name').textContent") == "p-2"
    board.keyboard.press("Enter")
    board.wait_for_url("**/lifts/p-2")
    assert said == []
    assert {url.split("/")[2] for url in asked} == {running.address.split("/")[2]}  # nothing from outside
    context.close()


def test_a_connection_that_breaks_without_a_sign(
    running: Running, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ALIVE", 600.0)  # the server says nothing, and the connection stays open
    context = browser.new_context(reduced_motion="reduce")
    screen = context.new_page()
    screen.clock.install()
    screen.goto(running.address + "/lifts/s-1")
    screen.wait_for_selector("article[data-name=house].shown")
    running.post("s-1", LOBBY)
    screen.wait_for_selector("article.shown:not([data-name=house])")
    refused: list[str] = []
    screen.route("**/*", lambda route: (refused.append(route.request.url), route.abort()))
    screen.clock.fast_forward(9_000)
    assert screen.locator("#away").is_hidden() and refused == []
    screen.clock.fast_forward(3_000)
    screen.wait_for_selector("#away:visible")
    assert refused[0].endswith("/events?lift=s-1")  # another one is tried
    assert screen.locator("article.shown[data-name=house]").count() == 0
    screen.clock.fast_forward(9_000)
    screen.wait_for_selector("article.shown[data-name=house]")
    assert screen.evaluate("[...document.querySelectorAll('article[data-name=house] img')].pop().naturalWidth") > 0
    screen.unroute("**/*")
    screen.wait_for_selector("article.shown:not([data-name=house])")
    screen.wait_for_selector("#away", state="hidden")
    context.close()


def test_a_dashboard_whose_connection_breaks_without_a_sign(
    running: Running, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = browser.new_context()
    board = context.new_page()
    board.clock.install()
    board.goto(running.address + "/")
    board.wait_for_selector("#link.live")
    monkeypatch.setattr(server, "TOGETHER", 600.0)
    board.wait_for_timeout(1500)  # its last word
    board.route("**/events", lambda route: route.abort())
    board.clock.fast_forward(6_000)
    board.wait_for_selector("#link.lost")
    monkeypatch.undo()
    board.unroute("**/events")
    board.wait_for_selector("#link.live")
    context.close()


def test_streams_end_when_the_server_does(tmp_path: Path) -> None:
    served = Running(tmp_path)
    with httpx.stream("GET", f"{served.address}/events", params={"lift": "a"}, timeout=20) as screen:
        events = Events(screen)
        events.next("advertisement")
        served.stop()
        with pytest.raises(AssertionError, match="the stream ended"):
            events.next("advertisement")
