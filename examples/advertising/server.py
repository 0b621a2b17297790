"""Lifts send snapshots, screens show advertisements, a dashboard shows all lifts.

    python server.py                                      # the demo plan, in this process
    python server.py --service http://127.0.0.1:8000      # recognition by a running `graftsdk serve`

POST /lifts/NAME/snapshot   a JPEG; answered at once, looked at when its turn comes
GET  /lifts/NAME            the lift's screen
GET  /                      the dashboard
GET  /events[?lift=NAME]    what the pages hear, as server-sent events
GET  /totals[?seconds=10]   counts, for measuring

No image is written anywhere, and none goes out again. It listens on this machine alone: before it come cameras that are
elsewhere, put a proxy with TLS and a key for each camera in front (README.md).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from lifts import Fleet
from recognise import InProcess, OverHTTP, Recogniser
from schema import CARDS, Schema, read_schema
from starlette.middleware.trustedhost import TrustedHostMiddleware

from graftsdk.errors import GraftError, Overloaded

HERE = Path(__file__).parent
PLAN = HERE.parent / "demo.plan"
MOST_BYTES = 2 * 2**20  # of a snapshot
SLOWEST = 10.0  # seconds for a snapshot to come in
TOGETHER = 0.25  # seconds over which the dashboard's changes are gathered
ALIVE = 5.0  # seconds after which a stream that has nothing to say says so; pages wait for twice that
MOST_STREAMS = 2000  # pages that are open at a time
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
)
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_app(fleet: Fleet) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(fleet.run())
        yield
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    app = FastAPI(title="Advertisements in lifts", lifespan=lifespan, docs_url=None, redoc_url=None)
    # Pages of other sites cannot reach it under a name of theirs.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    @app.post("/lifts/{lift}/snapshot", status_code=202)
    async def snapshot(lift: str, request: Request) -> dict[str, bool]:
        _check(lift)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "image/jpeg":
            raise HTTPException(415, "expected Content-Type: image/jpeg")
        jpeg = await _body(request)
        if not jpeg.startswith(b"\xff\xd8\xff"):
            raise HTTPException(400, "expected a JPEG as the body")
        return {"replaced": await fleet.post(lift, jpeg)}

    @app.get("/events")
    async def events(lift: Annotated[str | None, Query()] = None) -> StreamingResponse:
        if lift is None:
            stream = _dashboard(fleet)
        else:
            _check(lift)
            fleet.room(lift)  # or there is none, and that is an answer of its own
            stream = _screen(fleet, lift)
        if fleet.streams >= MOST_STREAMS:
            raise Overloaded(f"expected at most {MOST_STREAMS} open screens and dashboards, found another one")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_counted(fleet, stream), media_type="text/event-stream", headers=headers)

    @app.get("/totals")
    async def totals(seconds: Annotated[float, Query(gt=0, le=600)] = 10.0) -> dict[str, Any]:
        return fleet.summary(seconds)

    @app.get("/lifts/{lift}")
    async def screen(lift: str) -> Response:
        _check(lift)
        return files["screen.html"]

    @app.get("/")
    async def dashboard() -> Response:
        return files["dashboard.html"]

    @app.get("/files/{name}")
    async def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "no such file")
        return files[name]

    @app.exception_handler(Overloaded)
    async def overloaded(_: Request, error: Overloaded) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "5"})

    paths = [path for folder in (HERE / "pages", CARDS) for path in folder.iterdir() if path.suffix in KINDS]
    files = {path.name: _file(path) for path in paths}
    return app


def _check(lift: str) -> None:
    if not NAME.fullmatch(lift):
        raise HTTPException(422, "lift: expected 1 to 40 letters, digits and . _ -, found another name")


async def _body(request: Request) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(SLOWEST):
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:
                    raise HTTPException(413, f"expected at most {MOST_BYTES} bytes")
    except TimeoutError:
        raise HTTPException(408, f"expected the snapshot within {SLOWEST:.0f} s") from None
    return bytes(data)


def _file(path: Path) -> Response:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return Response(path.read_bytes(), media_type=KINDS[path.suffix], headers=headers)


# ------------------------------------------------------------------------------------------------------------- events


async def _counted(fleet: Fleet, stream: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    fleet.streams += 1
    try:
        async with contextlib.aclosing(stream):
            async for event in stream:
                yield event
    finally:
        fleet.streams -= 1


async def _screen(fleet: Fleet, name: str) -> AsyncGenerator[str, None]:
    """What the lift shows now, then each change. A page that was away gets the newest, not what it missed."""
    lift = fleet.lift(name)
    lift.screens += 1
    try:
        yield "retry: 1000\n\n" + _event("default", _card(fleet.schema, fleet.schema.default))
        told = None
        while not fleet.closed:
            if told != lift.shown.advertisement:
                told = lift.shown.advertisement
                yield _event("advertisement", _card(fleet.schema, told))
            else:
                yield _event("alive", {})  # no comment: pages do not hear of those
            if told == lift.shown.advertisement:  # it may have changed while that was sent
                await lift.bell.wait(ALIVE)
    finally:
        fleet.left(lift)


async def _dashboard(fleet: Fleet) -> AsyncGenerator[str, None]:
    """All lifts, then those that change, gathered: what comes out is bounded, whatever comes in."""
    cards = {name: _card(fleet.schema, name) for name in fleet.schema.advertisements}
    yield "retry: 1000\n\n" + _event("advertisements", cards)
    seen, removed = 0, -1
    while not fleet.closed:
        whole = fleet.removed != removed  # also at first
        removed = fleet.removed
        seen, tiles = fleet.changes(0 if whole else seen)
        if whole or tiles:
            yield _event("all" if whole else "lifts", tiles)
        yield _event("totals", fleet.summary())
        await asyncio.sleep(TOGETHER)
        if fleet.version == seen and fleet.removed == removed:
            await fleet.bell.wait(1.0)


def _card(schema: Schema, name: str) -> dict[str, str]:
    """What a screen shows: not why."""
    advertisement = schema.advertisements[name]
    return {**asdict(advertisement), "ink": advertisement.ink}


def _event(name: str, value: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"


# ----------------------------------------------------------------------------------------------------------- starting


class Server(uvicorn.Server):
    """Streams never end by themselves: they are told when the server stops."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self._fleet = fleet
        super().__init__(
            uvicorn.Config(
                create_app(fleet), host="127.0.0.1", port=port, ws="none", access_log=False, log_level="warning",
                server_header=False, proxy_headers=False, timeout_graceful_shutdown=5,
            )
        )  # fmt: skip

    async def shutdown(self, sockets: Any = None) -> None:
        self._fleet.close()
        await super().shutdown(sockets)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"


async def serve(arguments: argparse.Namespace) -> None:
    recogniser: Recogniser
    if arguments.service:
        recogniser = OverHTTP(arguments.service, os.environ.get("GRAFTSDK_API_KEY"))
    else:
        recogniser = InProcess(arguments.plan, arguments.in_flight)
    try:
        schema = read_schema(arguments.schema, recogniser.classes)
        fleet = Fleet(schema, recogniser, most_lifts=arguments.most_lifts, in_flight=arguments.in_flight)
        server = Server(fleet, arguments.port)
        running = asyncio.create_task(server.serve())
        while not (server.started or running.done()):
            await asyncio.sleep(0.02)
        if server.started:
            print(f"{server.address}/ shows all lifts, {server.address}/lifts/NAME the screen of one", flush=True)
        await running
    finally:
        await recogniser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--service", metavar="URL", help="a running `graftsdk serve`; its key in GRAFTSDK_API_KEY")
    parser.add_argument("--schema", type=Path, default=HERE / "schema.toml")
    parser.add_argument("--port", type=int, default=8010, help="0 takes a free one")
    parser.add_argument("--most-lifts", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=8, help="snapshots that are looked at, the others wait")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(arguments))
    except GraftError as error:
        sys.exit(f"server.py: {error}")


if __name__ == "__main__":
    main()
