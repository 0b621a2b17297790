"""What stands before every route: an id, the key, and a body that is read whole, within bytes, pieces and time."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from graftsdk.errors import GraftError, Overloaded
from graftsdk.serving.logs import begin_request, note
from graftsdk.serving.problems import MEDIA_TYPE, ClientGone, Problem, problem_of
from graftsdk.serving.settings import ServeSettings

__all__ = ["CHUNKS", "Limits", "Told"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Told = Callable[[str, str, int, float, str], None]  # method, route, status, seconds, request id

CHUNKS = "graftsdk.chunks"  # in the scope: how many chunks of a chunked body came
MAX_CHUNKS = 32768  # of a body of 20 MiB: 640 bytes each; nobody who means well sends smaller ones
GONE = 499  # in metrics and log only: the client went away
_LINGER = 1.0  # seconds in which the rest of a refused body is thrown away, so that its sender reads the refusal
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN = ("/live", "/ready", "/v2/health/live", "/v2/health/ready")

_log = logging.getLogger("graftsdk.serving")


class Limits:
    """ASGI middleware; the one place where bodies are read.

    Health is open to everybody, and so are the page's own files, which hold nothing of anybody: `open_paths`.

    Args:
        told: called after every request. cut: called for one that the end of the service cut off.
        full: whether the queue takes nothing more. A request to one of `computing`, routes' paths, is then refused
            before any of them sees it: in overload most requests are, and a refusal must cost little.
        open_paths: beyond health, those that need no key; one that ends in "/" stands for what lies below it too.
    """

    def __init__(
        self,
        app: Any,
        settings: ServeSettings,
        told: Told,
        cut: Callable[[], None],
        open_paths: tuple[str, ...] = (),
        *,
        full: Callable[[], bool] = lambda: False,
        computing: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._settings = settings
        self._told = told
        self._cut = cut
        self._open = (*_OPEN, *open_paths)
        self._full = full
        self._computing = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path) for path in computing]
        self._held = 0  # bytes of all bodies that are in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no websockets here: uvicorn refuses the handshake
        started = time.perf_counter()
        request_id = _request_id(scope)
        begin_request()
        note(traceparent=_header(scope, b"traceparent"))
        scope.setdefault("state", {})["request_id"] = request_id
        status, route = 0, "other"

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                if all(name != b"x-content-type-options" for name, _ in headers):
                    headers.append((b"x-content-type-options", b"nosniff"))
                message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
            await send(message)

        held = [0]
        try:
            self._check_head(scope)
            body = await self._read(scope, receive, held)
            if scope["method"] == "POST" and self._full():
                found = [path for pattern, path in self._computing if pattern.fullmatch(scope["path"])]
                if found:
                    route = found[0]
                    raise problem_of(Overloaded("the queue is full"))
            await self._app(scope, _replay(body, receive), answer)
        except Problem as problem:
            if not status:
                await _refuse(problem, request_id, scope, receive, answer)
        except ClientGone:
            _log.debug("request %s: its client went away", request_id)
        except GraftError as error:
            told = problem_of(error)
            if told.status >= 500 and not isinstance(error, Overloaded):
                _log.error("request %s failed: %s", request_id, error, exc_info=error)
            if not status:
                await _refuse(told, request_id, scope, receive, answer)
        except asyncio.CancelledError:  # the time for a graceful stop is over
            self._cut()
            if not status:
                late = Problem(503, "stopping", "the service stopped before it had an answer; try again")
                await _refuse(late, request_id, scope, receive, answer)
            raise
        except Exception:  # noqa: BLE001  (the last place where anything can be answered)
            _log.exception("request %s failed", request_id)
            if not status:
                unknown = Problem(500, "internal_error", "the service failed; its log has the reason under this id")
                await _refuse(unknown, request_id, scope, receive, answer)
        finally:
            self._held -= held[0]
            route = getattr(scope.get("route"), "path", route)  # a template: paths are without number
            self._told(scope["method"], route, status or GONE, time.perf_counter() - started, request_id)

    def _check_head(self, scope: Scope) -> None:
        length = _header(scope, b"content-length")
        with_body = length not in (None, "0") or _header(scope, b"transfer-encoding") is not None
        if self._settings.keys and not self._is_open(scope) and not self._settings.allows(_key(scope)):
            raise Problem(
                401,
                "unauthorized",
                "expected a known key in the header Authorization (Bearer) or X-API-Key",
                headers={"WWW-Authenticate": "Bearer"},
                close=with_body,
            )
        coding = _header(scope, b"content-encoding")
        if coding is not None and coding.strip().lower() != "identity":
            detail = "expected a body without Content-Encoding; images are small already"
            raise Problem(415, "content_encoding", detail, close=with_body)
        if length is not None and (not length.isdecimal() or len(length) > 18):
            raise Problem(400, "content_length", "Content-Length: expected a number of bytes", close=True)
        if length is not None and int(length) > self._most(scope):
            raise self._too_large(scope)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        return scope["method"] in ("GET", "HEAD") and any(
            path == one or (one.endswith("/") and one != "/" and path.startswith(one)) for one in self._open
        )

    def _most(self, scope: Scope) -> int:
        """Bytes that the body may have: none where no key is asked for, or everybody could fill the memory."""
        return 0 if self._is_open(scope) else self._settings.max_bytes

    async def _read(self, scope: Scope, receive: Receive, held: list[int]) -> bytes:
        """The whole body. `held[0]`: how many of its bytes count as held, also where this raises."""
        pieces: list[bytes] = []
        most = self._most(scope)
        try:
            async with asyncio.timeout(self._settings.pace):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    piece = message.get("body", b"")
                    if held[0] + len(piece) > most:
                        raise self._too_large(scope)
                    held[0] += len(piece)
                    self._held += len(piece)
                    if max(len(pieces), scope.get(CHUNKS, 0)) > MAX_CHUNKS:
                        raise Problem(413, "too_many_chunks", "expected a body in fewer, larger chunks", close=True)
                    if self._held > self._settings.max_held:
                        raise Problem(503, "overloaded", "too many bodies at once; try again later", close=True)
                    if piece:
                        pieces.append(piece)
                    if not message.get("more_body", False):
                        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except TimeoutError as error:
            detail = f"expected the whole body within {self._settings.pace:g} seconds, found a part of it"
            raise Problem(408, "too_slow", detail, close=True) from error

    def _too_large(self, scope: Scope) -> Problem:
        detail = f"expected a body of at most {self._most(scope)} bytes, found more"
        return Problem(413, "body_too_large", detail, close=True)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, then whatever comes: the client that goes away."""
    given = False

    async def replayed() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _refuse(problem: Problem, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    note(code=problem.code)
    body = problem.body(request_id, inference=scope["path"].startswith("/v2"))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    if problem.close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": problem.close})
    if problem.close:
        # A connection that is closed with bytes unread is reset, and its client never sees why. One that waits for
        # "100 Continue" sends nothing.
        if _header(scope, b"expect") is None:
            await _throw_away(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _throw_away(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _request_id(scope: Scope) -> str:
    """The client's own, where it is one that a log may hold; else a new one."""
    given = _header(scope, b"x-request-id")
    return given if given is not None and _ID.fullmatch(given) else uuid.uuid4().hex


def _key(scope: Scope) -> str | None:
    given = _header(scope, b"authorization")
    if given is not None:
        scheme, _, key = given.partition(" ")
        return key.strip() if scheme.lower() == "bearer" else None
    return _header(scope, b"x-api-key")


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None
