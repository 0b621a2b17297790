"""The page in a browser, as a visitor has it: over the service itself, with the demo plan."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason='needs graftsdk[serve]: pip install "graftsdk[serve]"')
pytest.importorskip("uvicorn", reason='needs graftsdk[serve]: pip install "graftsdk[serve]"')

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

import graftsdk.serving.page
from graftsdk.predictor import Predictor
from graftsdk.serving.app import create_app
from graftsdk.serving.page import page_routes
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings

PLAN = Path(__file__).parents[2] / "examples" / "demo.plan"
WIDE = {"width": 1000, "height": 700}  # two columns
WATCH = (  # what moves from now on was moved by an answer
    "() => { window.moved = 0; new PerformanceObserver(list => list.getEntries().forEach("
    "entry => { window.moved += entry.value })).observe({type: 'layout-shift', buffered: false}); }"
)
LABELS = ["suit", "food deliverer", "headwear", "courier", "child"]
FOLDER = Path(graftsdk.serving.page.__file__).parent


class Serving:
    """A service on a port of its own, in a thread."""

    def __init__(self) -> None:
        self.service = Service(Predictor(PLAN, threads=1), ServeSettings())
        config = uvicorn.Config(create_app(self.service), host="127.0.0.1", port=0, log_level="warning", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> str:
        self.thread.start()
        end = time.monotonic() + 30.0
        while not self.server.started:
            assert self.thread.is_alive() and time.monotonic() < end, "the service did not start"
            time.sleep(0.02)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(30.0)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with Serving() as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the python package playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs a chromium on PATH (Debian: apt install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )  # root has no sandbox
        yield browser
        browser.close()


class Visit:
    """A page that was just opened, what it said on the console and what it asked for."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.said: list[str] = []
        self.asked: list[Any] = []
        page.goto("about:blank")  # nothing of the visit before, and no request of it on its way
        page.on("console", self.hear)
        page.on("request", self.note)
        page.goto(address)

    def hear(self, message: Any) -> None:
        self.said.append(message.text)

    def note(self, request: Any) -> None:
        self.asked.append(request)

    def end(self) -> None:
        self.page.unroute_all()
        self.page.remove_listener("console", self.hear)
        self.page.remove_listener("request", self.note)

    def sample(self, name: str = "lift") -> Any:
        self.page.click(f"[data-sample={name}]")
        self.page.wait_for_selector(".badge")
        return self.page

    def predicted(self) -> list[str]:
        return [request.url for request in self.asked if "/v1/predict" in request.url]


@pytest.fixture(scope="module")
def tab(browser: Any) -> Any:
    # One for all tests: a new one takes longer than what most of them do in it.
    page = browser.new_context(viewport=WIDE, reduced_motion="reduce").new_page()
    page.set_default_timeout(20_000)
    return page


@pytest.fixture
def visit(tab: Any, address: str) -> Iterator[Visit]:
    visit = Visit(tab, address)
    yield visit
    visit.end()


def test_files_and_their_headers() -> None:
    app = FastAPI()
    app.include_router(page_routes())
    client = TestClient(app)
    page = client.get("/")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'" and policy["script-src"] == "'self'"
    assert "unsafe" not in str(policy) and "//" not in str(policy)
    assert re.search(r"<style|\sstyle=|\son\w+=|<script[^>]*>[^<]", page.text) is None  # what the policy would stop
    shipped = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.*") if "__pycache__" not in path.parts}
    for name in shipped - {"__init__.py", "index.html"}:
        found = client.get(f"/page/{name}")
        assert found.content == (FOLDER / name).read_bytes() and found.headers["x-content-type-options"] == "nosniff"
        again = client.get(f"/page/{name}", headers={"If-None-Match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for hidden in ("__init__.py", "index.html", "..%2f..%2fapp.py", "../settings.py", "samples/"):
        assert client.get(f"/page/{hidden}").status_code == 404


def test_a_sample_gives_persons_and_nothing_leaves_this_host(visit: Visit, address: str) -> None:
    page = visit.page
    page.get_by_role("switch", name="courier").wait_for()
    page.evaluate(WATCH)
    visit.sample()
    assert page.locator(".badge").count() == page.locator("#persons li").count() == 5
    assert page.locator("#scores tbody tr").count() == 5
    outlines = page.eval_on_selector_all("#overlay .edge", "found => found.map(each => each.getAttribute('d'))")
    assert len(outlines) == 5 and all(path.count("L") > 20 for path in outlines)  # masks, not boxes
    assert "segment" in page.inner_text("#legend") and page.locator("#stack span").count() >= 4
    assert page.inner_text("#status").startswith("5 persons found")
    assert page.evaluate("window.moved") < 0.01
    assert visit.said == []
    hosts = {urlsplit(request.url).netloc for request in visit.asked if not request.url.startswith("blob:")}
    assert hosts == {urlsplit(address).netloc}


def test_outline_of_a_mask_with_a_hole(visit: Visit) -> None:
    # 12 high, 20 wide: columns 5..14 are full from row 2 to 9, but for a hole of 4 by 4 in their middle.
    counts = [5 * 12 + 2]
    for column in range(5, 15):
        counts += [3, 2, 3, 4] if 8 <= column < 12 else [8, 4]
    # A hole 2 high and 4 wide is 12 sides long: more than the specks that are left out.
    counts[-1] += 5 * 12 - 2
    script = "counts => import('/page/outline.js').then(found => found.outline({size: [12, 20], counts}))"
    found = visit.page.evaluate(script, counts)
    assert found["top"] == [10, 2] and found["path"].count("M") == 2
    numbers = [float(number) for number in re.findall(r"[\d.]+", found["path"])]
    assert (min(numbers[::2]), max(numbers[::2])) == (5, 15) and (min(numbers[1::2]), max(numbers[1::2])) == (2, 10)
    empty = "import('/page/outline.js').then(found => found.outline({size: [12, 20], counts: [240]}))"
    assert visit.page.evaluate(empty) is None


def test_hover_and_keyboard_show_attributes_with_bars(visit: Visit) -> None:
    page = visit.sample()
    card = page.locator("#card")
    page.locator(".badge").nth(2).hover()
    assert card.is_visible() and "Person 3" in card.inner_text()
    assert page.locator("#persons li.active").inner_text().startswith("3")
    bars, ticks = card.locator(".bar"), card.locator(".tick")
    assert bars.count() == ticks.count() == len(LABELS) + 2  # headwear has three classes
    tick = card.locator(".tick").first.evaluate("tick => tick.offsetLeft / tick.parentElement.offsetWidth")
    assert tick == pytest.approx(0.697, abs=0.02)  # the plan's threshold of suit
    page.mouse.move(2, 2)
    card.wait_for(state="hidden")
    page.keyboard.press("Tab")  # from the sample that was clicked: two more of them, then the persons
    for _ in range(9):
        if page.evaluate("document.activeElement.classList.contains('badge')"):
            break
        page.keyboard.press("Tab")
    assert card.is_visible() and "Person 1" in card.inner_text()
    page.keyboard.press("Tab")
    assert "Person 2" in card.inner_text() and page.locator(".badge.active").inner_text() == "2"
    page.keyboard.press("Escape")
    assert card.is_hidden()


def test_labels_switch_off_are_remembered_and_not_asked_for(visit: Visit, browser: Any) -> None:
    page = visit.sample()
    page.get_by_role("switch", name="food deliverer").uncheck(force=True)
    assert "food deliverer" not in page.inner_text("#scores thead") and "courier" in page.inner_text("#scores thead")
    assert page.url.endswith("#off=food%20deliverer")
    page.reload()
    assert not page.get_by_role("switch", name="food deliverer").is_checked()
    visit.sample("child")
    assert visit.predicted()[-1].endswith("labels=suit%2Cheadwear%2Ccourier%2Cchild")
    page.get_by_role("switch", name="food deliverer").check(force=True)  # its score is fetched
    page.wait_for_selector("#scores th:text-is('food deliverer')")
    assert len(visit.predicted()) == 3 and "#" not in page.url


def test_all_labels_off_asks_for_one_alone(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="All off").click()
    visit.sample("child")
    assert visit.predicted()[-1].endswith("labels=suit") and "All labels are off" in page.inner_text("#scores")


def test_another_plan_answers(visit: Visit) -> None:
    page = visit.page

    def older(route: Any) -> None:  # the plan before: another digest, a label less and one that is gone
        answer = route.fetch()
        plan = answer.json()
        kept = [label for label in plan["labels"] if label["label"] != "child"]
        gone = {**kept[0], "label": "gone"}
        route.fulfill(
            response=answer, json={**plan, "digest": "0" * 64, "labels": [*kept, gone], "profiles": ["night"]}
        )

    for asked, off in (("seen by the answer's digest", ""), ("refused: one is gone", "suit")):
        page.route("**/v1/plan", older, times=1)
        page.goto("about:blank")
        page.goto(f"{visit.address}#off={off}&profile={'night' if off else ''}")
        page.get_by_role("switch", name="gone").wait_for()
        assert page.get_by_role("switch", name="child").count() == 0, asked
        visit.sample("child")
        page.get_by_role("switch", name="child").wait_for()
        page.wait_for_selector("#scores th:text-is('child')")
        assert page.get_by_role("switch", name="gone").count() == 0, asked
        assert page.inner_text("#plan-chip") != f"plan {'0' * 12}" and page.locator(".alert").count() == 0, asked
        assert "profile" not in visit.predicted()[-1], asked


def test_what_is_refused_is_not_called_a_bad_picture(visit: Visit) -> None:
    page = visit.page
    detail = {"title": "Unprocessable Content", "status": 422, "detail": "labels: expected others"}
    page.route("**/v1/predict*", lambda route: route.fulfill(status=422, json={**detail, "code": "unknown_label"}))
    page.click("[data-sample=child]")
    page.get_by_role("alert").get_by_text("The request was refused").wait_for()
    assert len(visit.predicted()) == 2  # once more with the plan read anew, and no more


def test_a_profile_in_the_address_decides(visit: Visit) -> None:
    page = visit.page
    page.route("**/v1/plan", lambda route: _answer_with(route, profiles=["night"]))
    page.route("**/v1/predict*", lambda route: route.continue_(url=re.sub("&profile=night", "", route.request.url)))
    page.reload()
    page.get_by_role("switch", name="courier").wait_for()
    visit.sample("child")
    with page.expect_request(lambda request: request.url.endswith("profile=night")):
        page.evaluate("location.hash = 'profile=night'")
    assert page.input_value("#profile") == "night"
    with page.expect_request(lambda request: "v1/predict" in request.url and "profile" not in request.url):
        page.evaluate("location.hash = 'profile=nobody'")
    assert page.input_value("#profile") == "" and "#" not in page.url


def test_a_broken_file_is_told(visit: Visit) -> None:
    page = visit.sample("child")
    page.set_input_files("#file", files=[{"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff no"}])
    alert = page.get_by_role("alert")
    alert.get_by_text("This picture could not be read").wait_for()
    assert "422" in alert.inner_text() and page.locator(".badge").count() == 0
    visit.sample("child")
    assert page.locator(".alert").count() == 0


def test_a_service_that_keeps_crops_says_so(visit: Visit) -> None:
    page = visit.page
    page.get_by_text("stores it nowhere").wait_for()
    page.route("**/v1/plan", lambda route: route.abort())  # not known yet
    page.reload()
    page.get_by_text("No answer").wait_for()
    assert "stores it nowhere" not in page.inner_text("#privacy")
    page.unroute_all()
    page.route("**/v1/plan", lambda route: _answer_with(route, harvest=True, profiles=["lobby"]))
    page.reload()
    page.get_by_text("keeps a few crops a day").wait_for()
    assert "stores it nowhere" not in page.inner_text("#privacy")


def _answer_with(route: Any, **changed: Any) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, json={**answer.json(), **changed})


def test_names_for_screen_readers(visit: Visit) -> None:
    page = visit.sample("child")
    told = page.locator("body").aria_snapshot()
    for expected in (
        'heading "graftsdk" [level=1]',
        'button "Choose a picture"',
        'button "Sample: five people in a lift"',
        'group "Persons in the picture"',
        'button "Person 1: headwear: none, child"',
        'switch "courier" [checked]',
        'table "Scores of every person and label, each with its threshold"',
        'columnheader "food deliverer"',
        "threshold 0.70",
    ):
        assert expected in told, told
    nameless = (
        "found => found.filter(each => !each.labels?.length && !each.ariaLabel && !each.textContent.trim()).length"
    )
    assert page.eval_on_selector_all("button, input, select, a", nameless) == 0


def test_a_key_is_asked_for_and_sent(visit: Visit) -> None:
    page = visit.page

    def guard(route: Any) -> None:
        if route.request.headers.get("x-api-key") == "the right key":
            route.continue_()
        else:
            route.fulfill(status=401, json={"title": "Unauthorized", "status": 401, "detail": "expected a known key"})

    page.route("**/v1/**", guard)
    page.reload()
    for key, told in (("a wrong key", "That key was refused."), ("the right key", "")):
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Use this key").click()
        if told:
            page.get_by_text(told).wait_for()
    page.get_by_role("switch", name="courier").wait_for()
    visit.sample("child")
    assert page.locator("#key-form").is_hidden()
    kept = page.evaluate("[JSON.stringify({...localStorage, ...sessionStorage}), document.cookie, location.href]")
    assert "right" not in str(kept) and page.input_value("#key") == ""


def test_a_narrow_screen_needs_no_sideways_scrolling(visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    try:
        page.get_by_role("switch", name="courier").wait_for()
        page.evaluate(WATCH)
        visit.sample()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("window.moved") < 0.01
        page.locator(".badge").first.click()
        card = page.locator("#card").bounding_box()
        assert card["x"] >= 0 and card["x"] + card["width"] <= 360 and card["y"] + card["height"] <= 740
        page.locator("#card .readings").evaluate("found => found.classList.add('dense')")  # as of many labels
        assert page.locator("#card").bounding_box()["width"] <= 360 - 2 * 8
        page.get_by_role("button", name="Close").click()
        assert page.locator("#card").is_hidden()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 24)"
    finally:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(WIDE)
