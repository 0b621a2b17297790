"""`paced`, uvicorn's protocol with limits: clients that send too much before an answer, or do not read theirs."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs graftsdk[serve]")
import uvicorn

from graftsdk.serving.limits import Limits
from graftsdk.serving.protocol import MAX_HEADERS, MAX_PIPELINED, paced
from graftsdk.serving.settings import ServeSettings, key_digest

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LARGE = bytes(12 * 2**20)  # more than the kernel takes for a client that does not read


class Served:
    """A server of one ASGI app in a thread: it answers with the path, "/large" with `LARGE`, "/wait" never."""

    def __init__(self, pace: float, connections: int, app: Any = None, **options: Any) -> None:
        self.refused: list[str] = []
        self.gone: list[str] = []
        config = uvicorn.Config(
            app or self.app,
            port=0,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            http=paced(pace, connections, self.refused.append),
            timeout_graceful_shutdown=1,
            **options,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        path = scope["path"]
        if path == "/wait":
            assert (await receive())["type"] == "http.disconnect"
            self.gone.append(path)
            return
        if path == "/halves":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            assert (await receive())["type"] == "http.disconnect"
            return
        body = LARGE if path == "/large" else path.encode()
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    def connect(self, buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def ask(self, sent: bytes) -> bytes:
        with self.connect() as connection:
            with suppress(ConnectionError):
                connection.sendall(sent)
            return read(connection)

    def wait_until_gone(self, path: str) -> None:
        """Until the app was told that the client of a request went away."""
        for _ in range(100):
            if self.gone == [path]:
                return
            time.sleep(0.02)
        raise AssertionError(self.gone)


def read(connection: socket.socket, until: bytes | None = None) -> bytes:
    """What comes until the end, or until these bytes are there."""
    found = bytearray()
    with suppress(ConnectionError):
        while (until is None or until not in found[-70_000:]) and (piece := connection.recv(65536)):
            found += piece
    return bytes(found)


@pytest.fixture
def serve() -> Iterator[Any]:
    made: list[Served] = []

    def make(pace: float = 5.0, connections: int = 64, **options: Any) -> Served:
        made.append(Served(pace, connections, **options))
        return made[-1]

    yield make
    for each in made:
        each.server.should_exit = True
        each.thread.join(20)


def test_a_few_requests_at_once_are_answered_in_turn(serve: Any) -> None:
    served = serve()
    with served.connect() as connection:
        for _ in range(2):
            connection.sendall(b"".join(GET % number for number in range(MAX_PIPELINED + 1)))
            found = read(connection, b"/%d" % MAX_PIPELINED)
            assert [found.index(b"\r\n\r\n/%d" % number) for number in range(MAX_PIPELINED + 1)] == sorted(
                found.index(b"\r\n\r\n/%d" % number) for number in range(MAX_PIPELINED + 1)
            )
    assert not served.refused


def test_a_great_many_requests_at_once_end_the_connection(serve: Any) -> None:
    served = serve()
    found = served.ask(GET % 1 * 20_000)
    assert found.count(b"HTTP/1.1") <= MAX_PIPELINED and served.refused == ["too_many_requests"]


def test_all_requests_of_a_client_that_went_away_are_told_so(serve: Any) -> None:
    served = serve()
    with served.connect() as connection:
        connection.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 2)
        time.sleep(0.2)
    served.wait_until_gone("/wait")


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_a_client_that_does_not_read_gives_its_place_back(serve: Any, last: bytes) -> None:
    served = serve(pace=0.3, connections=3)  # two, and the one that asks after them
    request = b"GET /large HTTP/1.1\r\nHost: a\r\n" + last + b"\r\n"
    with served.connect(4096) as one, served.connect(4096) as two:
        one.sendall(request)
        two.sendall(request)
        time.sleep(1.5)
        assert served.refused == ["too_slow"] * 2 and not served.server.server_state.connections
        assert served.ask(CLOSING).startswith(b"HTTP/1.1 200")


def test_a_client_that_reads_slowly_gets_all(serve: Any) -> None:
    served = serve(pace=1.5)
    with served.connect(65536) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        found, started = 0, time.monotonic()
        while piece := connection.recv(300_000):
            found += len(piece)
            if time.monotonic() < started + 3:
                time.sleep(0.06)
    assert found > len(LARGE) and not served.refused and time.monotonic() > started + 2


def test_a_head_behind_a_request_without_an_answer_has_its_limit_too(serve: Any) -> None:
    served = serve()
    with served.connect() as connection:
        connection.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nA: ")
        with pytest.raises(ConnectionError):
            for _ in range(64):
                connection.sendall(b"b" * 2**20)
    assert served.refused == ["head_too_large"]
    served.wait_until_gone("/wait")


def test_no_document_within_an_answer(serve: Any) -> None:
    served = serve(pace=0.5)
    with served.connect(4096) as connection:
        connection.sendall(b"GET /halves HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read(connection, b"\r\n\r\nhalf").startswith(b"HTTP/1.1 200")
        connection.sendall(b"no http at all\r\n\r\n")
        assert read(connection) == b""
    assert served.refused == ["malformed_request"]


def test_a_body_that_is_longer_than_was_said_gets_a_document(serve: Any) -> None:
    served = serve()
    found = served.ask(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcdef, and so on\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 400") and found.count(b"HTTP/1.1 ") == 1


def test_a_great_many_headers(serve: Any) -> None:
    served = serve()
    head = b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    assert served.ask(head + b"A: b\r\n" * (MAX_HEADERS - 2) + b"\r\n").startswith(b"HTTP/1.1 200")
    found = served.ask(head + b"A: b\r\n" * (MAX_HEADERS - 1) + b"\r\n")
    assert found.startswith(b"HTTP/1.1 431") and b"at most 128 headers" in found and found.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("trailer", [b"A: b\r\n" * 1000, b"A: " + b"b" * 500_000])
def test_what_follows_the_last_chunk_has_the_limits_of_a_head(serve: Any, trailer: bytes) -> None:
    served = serve()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    with served.connect() as connection, suppress(ConnectionError):
        connection.sendall(head)
        time.sleep(0.1)
        connection.sendall(trailer)
        found = read(connection)
        assert not found or found.startswith(b"HTTP/1.1 431")
    assert served.refused == ["head_too_large"]


@pytest.mark.parametrize("wrong", [b"X-API-Key: no such key\r\n", b"X-API-Key: k\r\nContent-Encoding: gzip\r\n"])
@pytest.mark.parametrize("size", [1000, 2_000_000])
def test_whoever_is_refused_before_its_body_was_read_gets_one_answer(serve: Any, wrong: bytes, size: int) -> None:
    async def app(*_: Any) -> None:
        raise AssertionError("nothing gets this far")

    settings = ServeSettings(keys=(key_digest("k"),))
    served = serve(pace=0.5, app=Limits(app, settings, told=lambda *_: None, cut=lambda: None))
    with served.connect() as connection:
        head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n" % (wrong, size)
        connection.sendall(head)
        time.sleep(0.1)  # the refusal is on its way
        connection.sendall(bytes(size))
        found = read(connection)
    assert found.startswith((b"HTTP/1.1 401", b"HTTP/1.1 415")) and found.count(b"HTTP/1.1") == 1
    assert not served.refused


def test_whoever_is_refused_without_a_body_may_ask_again(serve: Any) -> None:
    async def app(*_: Any) -> None:
        raise AssertionError("nothing gets this far")

    served = serve(app=Limits(app, ServeSettings(keys=(key_digest("k"),)), told=lambda *_: None, cut=lambda: None))
    with served.connect() as connection:
        for _ in range(2):
            connection.sendall(GET % 1)
            assert b"unauthorized" in read(connection, b"unauthorized")
            time.sleep(0.05)


def test_tls(serve: Any, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=localhost", "-days", "2", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    paths = {"ssl_certfile": str(tmp_path / "cert.pem"), "ssl_keyfile": str(tmp_path / "key.pem")}
    served = serve(pace=0.5, connections=2, **paths)
    context = ssl.create_default_context(cafile=paths["ssl_certfile"])

    def connect() -> ssl.SSLSocket:
        return context.wrap_socket(served.connect(), server_hostname="localhost")

    with connect() as connection:
        for _ in range(3):  # answers follow one another, whatever of them waits to be sent
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 7)
            assert read(connection, b"\r\n\r\n/7").count(b"HTTP/1.1 200") == 2
        connection.sendall(b"GET / HT")  # and its pace
        assert read(connection).startswith(b"HTTP/1.1 408")
    with connect() as lazy:
        lazy.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 3)  # the kernel's buffers, TLS's, asyncio's
        time.sleep(2)
        assert served.refused == ["too_slow"] * 2 and not served.server.server_state.connections
