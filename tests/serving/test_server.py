"""`graftsdk serve` as a process of its own: signals, slow clients, clients that go away, tritonclient, curl."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from requests_and_problems import encoded

from graftsdk.cli import serve
from graftsdk.errors import InputError
from graftsdk.predictor import Predictor

pytest.importorskip("httptools", reason="needs graftsdk[serve]")
COMMAND = [sys.executable, "-m", "graftsdk.cli.main", "serve"]


class Process:
    """A running service: its address, its process, and what it said."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        host, port = address.rpartition("//")[2].rsplit(":", 1)
        self.address, self.host, self.port = address, host, int(port)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=20)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def serving(plan: Path, *options: str) -> Iterator[Process]:
    command = [*COMMAND, str(plan), "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if " serves " in line:
                    break
            else:
                raise AssertionError("".join(said))
            yield Process(process, line.split()[0])
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.stderr.close()  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def server(toy_path: Path) -> Iterator[Process]:
    with serving(toy_path, "--pace", "0.5", "--max-bytes", "300000", "--threads", "1") as process:
        yield process


def read_all(connection: socket.socket) -> bytes:
    pieces = []
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def test_tritonclient_works_as_it_is(server: Process, toy_path: Path) -> None:
    triton = pytest.importorskip("tritonclient.http")
    crops = toys.crops(3)
    with Predictor(toy_path, threads=1) as predictor:
        wanted = predictor.run(crops)
    client = triton.InferenceServerClient(f"{server.host}:{server.port}")
    try:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("graftsdk")
        assert client.is_model_ready("graftsdk", "1") and not client.is_model_ready("other")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("graftsdk")["inputs"][0]["shape"] == [-1, 3, 32, 32]
        for binary in (True, False):
            given = triton.InferInput("crops", list(crops.shape), "FP32")
            given.set_data_from_numpy(crops, binary_data=binary)
            found = client.infer("graftsdk", [given], request_id="7")
            assert found.get_response()["id"] == "7"
            for label, scores in wanted.items():
                np.testing.assert_array_equal(found.as_numpy(label), scores)
            asked = [triton.InferRequestedOutput("gender", binary_data=binary)]
            only = client.infer("graftsdk", [given], outputs=asked, model_version="1")
            np.testing.assert_array_equal(only.as_numpy("gender"), wanted["gender"])
            assert only.as_numpy("child") is None
        with pytest.raises(triton.InferenceServerException, match="expected the model"):
            client.infer("other", [given])
    finally:
        client.close()


def test_curl(server: Process, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    (tmp_path / "a.jpg").write_bytes(encoded((48, 64)))
    (tmp_path / "large").write_bytes(bytes(5_000_000))

    def curl(*words: str) -> Any:
        command = ["curl", "-sS", "--max-time", "20", *words]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout)

    predict = f"{server.address}/v1/predict?labels=child"
    raw = curl("--data-binary", "@a.jpg", "-H", "Content-Type: image/jpeg", predict)
    assert raw["persons"] == curl("-F", "image=@a.jpg", predict)["persons"]
    assert curl("--data-binary", "@large", "-H", "Content-Type: image/jpeg", predict)["code"] == "body_too_large"


def test_a_body_that_is_too_slow_is_cut(server: Process) -> None:
    with server.connect() as connection:
        head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head + b"abc")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408") and b'"too_slow"' in answer


@pytest.mark.parametrize(
    ("before", "sent"),
    [(b"", b""), (b"", b"GET / HTTP/1.1\r\nHost:"), (b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /li")],
)
def test_a_head_that_never_ends_is_cut(server: Process, before: bytes, sent: bytes) -> None:
    with server.connect() as connection:
        if before:
            connection.sendall(before)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(sent)
        answer = read_all(connection)
    assert b"HTTP/1.1 408" in answer and b"application/problem+json" in answer


def test_a_head_that_is_too_large(server: Process) -> None:
    with server.connect() as connection:
        with suppress(ConnectionError):
            connection.sendall(b"GET /live HTTP/1.1\r\n" + b"A: " + b"b" * 200_000)
        answer = read_all(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 431")


def test_no_http_at_all(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400") and b'"malformed_request"' in answer


def test_a_great_many_chunks(server: Process) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        with suppress(ConnectionError):
            connection.sendall(head)
            for _ in range(40):
                connection.sendall(b"1\r\na\r\n" * 1000)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413") and b'"too_many_chunks"' in answer


def test_half_a_body_and_gone_leaves_nothing(server: Process) -> None:
    before = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(b"POST /v1/crops HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
    assert server.ask("GET", "/ready")[0] == 200
    for _ in range(100):
        if len(os.listdir(f"/proc/{server.process.pid}/fd")) <= before + 1:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("connections of clients that went away are still open")


def test_sigterm_ends_it_with_0_after_what_it_accepted(toy_path: Path) -> None:
    with serving(toy_path, "--threads", "1", "--grace", "10") as process:
        picture = encoded((900, 900), "PNG")
        idle = process.connect()
        idle.sendall(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        with process.connect() as connection:
            head = "POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
            head += f"Content-Length: {len(picture)}\r\n\r\n"
            connection.sendall(head.encode() + picture[:-10])  # accepted, and not yet whole
            time.sleep(0.3)
            process.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(picture[-10:])
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 200") and b'"persons"' in answer
        assert process.process.wait(20) == 0
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            process.connect()


def test_what_is_not_answered_within_the_grace_is_cut_and_told(toy_path: Path) -> None:
    with (
        serving(toy_path, "--threads", "1", "--grace", "0.3", "--pace", "30") as process,
        process.connect() as connection,
    ):
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        time.sleep(0.3)
        assert process.stop(signal.SIGINT) == 1  # Ctrl-C
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 503") and b'"stopping"' in answer


def test_what_ends_a_connection_is_in_the_metrics(server: Process) -> None:
    def refused() -> float:
        text = server.ask("GET", "/metrics")[2].decode()
        found = re.search(r'graftsdk_refused_total{reason="malformed_request"} (\S+)', text)
        return float(found[1]) if found else 0.0

    before = refused()
    test_no_http_at_all(server)
    assert refused() == before + 1


def test_a_service_for_everybody(toy_path: Path, tmp_path: Path) -> None:
    with serving(toy_path, "--host", "0.0.0.0", "--insecure", "--threads", "1") as process:
        assert process.ask("GET", "/v1/plan")[0] == 200


def test_whoever_sets_keys_is_not_served_without(toy_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTSDK_API_KEYS", "k" * 16)
    test_what_it_does_not_start_with(toy_path, ["--insecure"], monkeypatch)


@pytest.mark.parametrize(
    ("limits", "set_to", "possible"),
    [
        ((1024, 2**20), (1024 + 2048 + 256, 2**20), 1024),
        ((1024, resource.RLIM_INFINITY), (1024 + 2048 + 256, resource.RLIM_INFINITY), 1024),
        ((1024, 2048), (2048, 2048), 1024),
        ((256, 1024), (1024, 1024), 768),
        ((100, 100), (100, 100), 1),
        ((65536, 65536), None, 1024),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, 1024),
    ],
)
def test_connections_leave_files_for_the_rest(
    limits: Any, set_to: Any, possible: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from graftsdk.serving.run import _possible

    set_limits: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: set_limits.append(given))
    assert _possible(1024) == possible
    assert set_limits == ([set_to] if set_to else []) and bool(caplog.records) == (possible < 1024)


@pytest.mark.parametrize(
    "options", [["--host", "0.0.0.0"], ["--ssl-certfile", "a"], ["--port", "99999"], ["--keys", "/nowhere"]]
)
def test_what_it_does_not_start_with(toy_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftsdk.serving.opening.open_service", lambda *_, **__: pytest.fail("it started"))
    parser = argparse.ArgumentParser()
    serve.configure(parser)
    with pytest.raises(InputError, match="expected"):
        serve.run(parser.parse_args([str(toy_path), *options]))


def test_a_plan_that_cannot_compute_is_one_line(toy_path: Path) -> None:
    script = """
import sys
from graftsdk.batching import Batcher
from graftsdk.cli.main import main
from graftsdk.errors import EngineError
async def failing(*_, **__):
    raise EngineError("expected an engine that runs, found a broken one")
Batcher.arun = failing
sys.exit(main(["serve", sys.argv[1], "--port", "0"]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(toy_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "error: expected an engine that runs, found a broken one" in done.stderr.splitlines()[-1]
