"""uvicorn's HTTP protocol with limits: on heads, on requests before their answers, on clients that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from graftsdk.serving.limits import CHUNKS
from graftsdk.serving.problems import MEDIA_TYPE, Problem

__all__ = ["MAX_HEAD", "MAX_HEADERS", "MAX_PIPELINED", "paced"]

MAX_HEAD = 64 * 1024  # bytes of a request's line and headers, or of what else is between two pieces of a body
MAX_HEADERS = 128  # of a request; as Python objects they take more memory than they have bytes
MAX_PIPELINED = 8  # requests that wait behind one that is not answered yet
_TAKEN = 64 * 1024  # bytes of answers that a client has to take in `seconds`, or all


def paced(
    seconds: float, connections: int, refused: Callable[[str], None] = lambda code: None
) -> type[HttpToolsProtocol]:
    """A protocol that closes a connection whose request has no whole head `seconds` after its beginning.

    So it does where the client takes its answers too slowly or sends too many requests before them. More than
    `connections` at once are refused with a problem document.

    uvicorn itself waits for heads and for readers for ever, takes heads however long and requests however many, and
    tells nobody of chunks.

    Args:
        refused: called with the code of the problem for which a connection is closed here.
    """

    class PacedProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None  # until then a head has to be whole
        _unread: asyncio.TimerHandle | None = None  # until then the client has to take some of its answer
        _came = 0  # bytes since the last head or piece of a body that was whole
        _running: RequestResponseCycle | None = None  # the one that is being answered; `cycle` is the newest

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # `pause_writing` is called as soon as anything waits to be sent, also by what then closes the connection.
            # asyncio's TLS takes "as much as this" for too much, its TCP "more than this".
            transport.set_write_buffer_limits(high=1 if self.scheme == "https" else 0, low=0)
            if len(self.connections) > connections:
                self._refuse(Problem(503, "overloaded", "too many connections at once; try again later"))
            else:
                self._arm()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():  # TLS hands over what it has
                return
            self._came += len(data)  # the callbacks set it back to 0
            super().data_received(data)
            if self.transport.is_closing():
                return
            if self._came > MAX_HEAD:
                self._refuse(Problem(431, "head_too_large", f"expected at most {MAX_HEAD} bytes of headers"))
            elif self.cycle is not None and not self.cycle.response_complete:
                self._disarm()
            elif self._timer is None:
                self._arm()

        def on_header(self, name: bytes, value: bytes) -> None:
            super().on_header(name, value)
            if len(self.headers) > MAX_HEADERS:
                self._stop(Problem(431, "head_too_large", f"expected at most {MAX_HEADERS} headers"))

        def on_headers_complete(self) -> None:
            if len(self.pipeline) >= MAX_PIPELINED:
                detail = f"expected at most {MAX_PIPELINED} requests on a connection before they are answered"
                self._stop(Problem(400, "too_many_requests", detail))
            super().on_headers_complete()
            if not self.pipeline:
                self._running = self.cycle
            self._came = 0

        def on_chunk_header(self) -> None:
            scope = cast(dict[str, Any], self.scope)
            scope[CHUNKS] = scope.get(CHUNKS, 0) + 1

        def on_body(self, body: bytes) -> None:
            super().on_body(body)
            self._came = 0

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._came = 0

        def on_response_complete(self) -> None:
            if self.pipeline:
                self._running = self.pipeline[-1][0]  # it is next
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._await_reader()

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._unread is not None:
                self._unread.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            self.pipeline.clear()
            if self._running is not None and not self._running.response_complete:  # uvicorn tells the newest alone
                self._running.disconnected = True
                self._running.message_event.set()
            super().connection_lost(exc)
            self.resume_writing()

        def send_400_response(self, msg: str) -> None:
            self._refuse(Problem(400, "malformed_request", "expected a request in HTTP/1.1, found something else"))

        def _arm(self) -> None:
            self._timer = self.loop.call_later(seconds, self._late)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            self._refuse(Problem(408, "too_slow", f"expected a whole request within {seconds:g} seconds"))

        def _await_reader(self) -> None:
            self._unread = self.loop.call_later(seconds, self._check_reader, self.transport.get_write_buffer_size())

        def _check_reader(self, before: int) -> None:
            if self.transport.get_write_buffer_size() > before - _TAKEN:
                refused("too_slow")
                self.transport.abort()
            else:
                self._await_reader()

        def _stop(self, problem: Problem) -> None:
            """Refuse from within a callback, and have the parser leave the rest of what came."""
            self._refuse(problem)
            raise ConnectionAbortedError(problem.code)

        def _refuse(self, problem: Problem) -> None:
            """End the connection, with a document where no answer has begun that it would be taken for a part of."""
            if self.transport.is_closing():
                return
            refused(problem.code)
            running = self._running
            if running is None or running.response_complete or not running.response_started:
                self._write(problem)
            self.transport.close()

        def _write(self, problem: Problem) -> None:
            body = problem.body("")
            head = (
                f"HTTP/1.1 {problem.status} {problem.document('')['title']}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n"
            )
            head += "".join(f"{name.lower()}: {value}\r\n" for name, value in problem.headers.items()) + "\r\n"
            self.transport.write(head.encode() + body)

    return PacedProtocol
