"""The two kinds of processes of the deployment on Ray: a front, which speaks HTTP, and replicas, which compute.

The front has nothing that can take it down: no engine, no decoder, no GPU. It reads a request whole, within the limits
of the service, and gives it to a replica; where that one dies before it has answered, to another one, since an answer
changes nothing. What nobody can answer in time is refused with a problem document.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from graftsdk.serving.limits import Limits
from graftsdk.serving.problems import Problem
from graftsdk.serving.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from graftsdk.serving.service import Service

__all__ = ["Answer", "Forward", "Front", "Replica", "Request", "answer_of"]

Headers = list[tuple[bytes, bytes]]
Request = tuple[str, str, bytes, Headers, bytes]  # method, path, query, headers, body
Answer = tuple[int, Headers, bytes]

_PAUSE = 0.1  # seconds before a request is given to another replica
_OWN = (b"x-request-id", b"x-content-type-options")  # `Limits` of the front writes them


class Front:
    """The ingress. Ray asks it for its app.

    Args:
        replicas: the handle of `Replica`'s deployment. settings: of the service.
    """

    def __init__(self, replicas: Any, settings: ServeSettings) -> None:
        errors = import_module("ray.exceptions")
        serve = import_module("ray.serve.exceptions")
        self._forward = Forward(
            replicas.answer.remote,
            settings.seconds,
            lost=(errors.RayActorError, errors.ObjectLostError),  # a large answer lies beside its replica, and goes too
            full=(serve.BackPressureError,),
            absent=(serve.DeploymentUnavailableError,),
        )
        self._settings = settings

    def __serve_build_asgi_app__(self) -> Any:
        """The app: limits and keys of the service before everything, so that nobody else's bodies get to a replica."""
        from graftsdk.serving.page import OPEN_PATHS

        return Limits(self._forward, self._settings, told=lambda *_: None, cut=lambda: None, open_paths=OPEN_PATHS)


class Forward:
    """An ASGI app that has each request answered elsewhere, by another one where the first is lost.

    Args:
        call: what answers. seconds: in which it has to.
        lost: what `call` raises where the one that worked on it is gone. full: where nobody has room.
        absent: where there is nobody.
    """

    def __init__(
        self,
        call: Callable[[Request], Awaitable[Answer]],
        seconds: float,
        *,
        lost: tuple[type[Exception], ...],
        full: tuple[type[Exception], ...],
        absent: tuple[type[Exception], ...],
    ) -> None:
        self._call = call
        self._seconds = seconds
        self._lost, self._full, self._absent = lost, full, absent

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Raises Problem, which `Limits` answers."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body = (await receive()).get("body", b"")
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"] if name != b"x-request-id"]
        headers.append((b"x-request-id", scope["state"]["request_id"].encode()))
        request = (scope["method"], scope["path"], bytes(scope["query_string"]), headers, body)
        status, found, text = await self._answer(request)
        told = [(name, value) for name, value in found if name.lower() not in _OWN]
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": text, "more_body": False})

    async def _answer(self, request: Request) -> Answer:
        until = time.monotonic() + self._seconds
        while True:
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    return await self._call(request)
            except self._full as error:
                raise Problem(503, "overloaded", "every replica has enough to do; try again later") from error
            except (*self._lost, *self._absent) as error:
                if time.monotonic() + _PAUSE >= until:
                    raise Problem(503, "replica_lost", "the replica that worked on it is gone; try again") from error
                await asyncio.sleep(_PAUSE)
            except TimeoutError as error:
                raise Problem(503, "overloaded", "expected an answer in time, found none; try again later") from error


class Replica:
    """One process with a predictor, its batcher, and everything behind them.

    Args:
        plan: its path. options: those of `Predictor`. settings: of the service.
    """

    _service: Service
    _app: FastAPI

    async def __init__(self, plan: str, options: Mapping[str, Any], settings: ServeSettings) -> None:  # type: ignore[misc]
        from graftsdk.serving.app import create_app
        from graftsdk.serving.opening import open_service

        self._service = await asyncio.to_thread(open_service, plan, settings, options)
        self._app = create_app(self._service)
        await self._service.start()

    async def answer(self, request: Request) -> Answer:
        """What the service's app says to a request."""
        return await answer_of(self._app, request)

    async def check_health(self) -> None:
        """Raises where it does not serve; Ray puts another one in its place."""
        if not self._service.ready:
            raise RuntimeError("expected a service that is ready, found one that is not")

    async def __del__(self) -> None:
        """Ray ends it: what it accepted is finished first."""
        if hasattr(self, "_service"):
            await self._service.stop()


async def answer_of(app: Any, request: Request) -> Answer:
    """Status, headers and body that an ASGI app gives to a request."""
    method, path, query, headers, body = request
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8"),
        "query_string": query,
        "root_path": "",
        "headers": list(headers),
        "client": None,
        "server": None,
    }
    given = False
    status, found, pieces = 0, Headers(), list[bytes]()

    async def receive() -> Mapping[str, Any]:
        nonlocal given
        if given:  # a client that goes away cancels this call
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status, found
        if message["type"] == "http.response.start":
            status, found = message["status"], [(bytes(name), bytes(value)) for name, value in message["headers"]]
        else:
            pieces.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, found, b"".join(pieces)


async def _lifespan(receive: Callable[[], Awaitable[Mapping[str, Any]]], send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
