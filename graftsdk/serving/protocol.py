"""uvicorn's HTTP protocol with a pace and sizes: heads that come too slowly or never end, bodies in tiny chunks."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from graftsdk.serving.limits import CHUNKS
from graftsdk.serving.problems import MEDIA_TYPE, Problem

__all__ = ["MAX_HEAD", "paced"]

MAX_HEAD = 64 * 1024  # bytes of a request's line and headers


def paced(seconds: float, connections: int) -> type[HttpToolsProtocol]:
    """A protocol that closes a connection whose request has no whole head `seconds` after its beginning.

    More than `connections` at once are refused with a problem document.

    uvicorn itself waits for heads for ever, takes them however long, and tells nobody of chunks.
    """

    class PacedProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _came = 0  # bytes since the last whole head

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > connections:
                self._refuse(Problem(503, "overloaded", "too many connections at once; try again later"))
            else:
                self._arm()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._disarm()
                return
            self._came += len(data)
            if self._came > MAX_HEAD and not self.transport.is_closing():
                self._refuse(Problem(431, "head_too_large", f"expected at most {MAX_HEAD} bytes of headers"))
            elif self._timer is None:
                self._arm()

        def on_chunk_header(self) -> None:
            scope = cast(dict[str, Any], self.scope)
            scope[CHUNKS] = scope.get(CHUNKS, 0) + 1

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._refuse(Problem(400, "malformed_request", "expected a request in HTTP/1.1, found something else"))

        def _arm(self) -> None:
            self._timer = self.loop.call_later(seconds, self._late)

        def _disarm(self) -> None:
            self._came = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                self._refuse(Problem(408, "too_slow", f"expected a whole request within {seconds:g} seconds"))

        def _refuse(self, problem: Problem) -> None:
            body = problem.body("")
            head = (
                f"HTTP/1.1 {problem.status} {problem.document('')['title']}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n"
            )
            head += "".join(f"{name.lower()}: {value}\r\n" for name, value in problem.headers.items()) + "\r\n"
            self.transport.write(head.encode() + body)
            self.transport.close()

    return PacedProtocol
