"""Requests that nobody should send: each gets a problem document, and the service answers the next one as before."""

from __future__ import annotations

import encodings
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from requests_and_problems import check_problem, encoded

from graftsdk.serving.service import Service

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(autouse=True)
def _serves_as_before(client: Any, jpeg: bytes) -> Iterator[None]:
    before = client.post("/v1/predict", content=jpeg, headers=JPEG).json()["persons"]
    yield
    assert client.post("/v1/predict", content=jpeg, headers=JPEG).json()["persons"] == before


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "text/html",
        "application/json",
        "application/x-www-form-urlencoded",
        "application/x-pickle",
        "application/python-pickle",
        "application/zip",
        "application/xml",
        "image/tiff",
        "image/svg+xml",
        "image/gif",
        "image/jpegx",
        "video/mp4",
        "multipart/mixed",
    ],
)
def test_other_kinds_of_content(client: Any, jpeg: bytes, kind: str) -> None:
    for path in ("/v1/predict", "/v1/crops"):
        check_problem(client.post(path, content=jpeg, headers={"content-type": kind}), 415, "content_type")


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/crops"])
def test_no_body(client: Any, path: str) -> None:
    check_problem(client.post(path, headers=JPEG), 400, "empty_body")
    check_problem(client.post(path, files={"image": ("a.jpg", b"")}), 400, "empty_body")


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "gzip, gzip"])
def test_packed_bodies_are_not_unpacked(client: Any, jpeg: bytes, name: str) -> None:
    answer = client.post("/v1/predict", content=jpeg, headers={**JPEG, "content-encoding": name})
    check_problem(answer, 415, "content_encoding")


@pytest.mark.parametrize(
    "query",
    ["labels=nope", "labels=", "labels=child,child", "labels=child,,gender", "labels=%00", "labels=" + "a" * 5000]
    + ["profile=night", "profile=", "masks=png", "label=child", "labels=child&labels=gender", "url=http://a/b.jpg"],
)
def test_parameters(client: Any, jpeg: bytes, query: str) -> None:
    check_problem(client.post(f"/v1/predict?{query}", content=jpeg, headers=JPEG), 422)


def test_nothing_is_fetched(client: Any) -> None:
    for text in (b"http://127.0.0.1/a.jpg", b"file:///etc/passwd", b"/etc/passwd"):
        check_problem(client.post("/v1/predict", content=text, headers=JPEG), 422, "decode_error")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods(client: Any, method: str) -> None:
    answer = client.request(method, "/v1/predict")
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def _png(width: int, height: int) -> bytes:
    """A PNG of zeros that says it has this size; its pixels are a few bytes packed."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(2**16)) for _ in range(16)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1_000_000, 16), (16, 1_000_000), (30_000, 30_000), (16_385, 20), (2**31 - 1, 1)])
def test_bombs_are_told_by_their_head(client: Any, size: tuple[int, int]) -> None:
    data = _png(*size)
    answer = client.post("/v1/predict", content=data, headers={"content-type": "image/png"})
    assert answer.status_code in (413, 422)
    check_problem(answer, answer.status_code)
    crops = client.post("/v1/crops", content=data, headers={"content-type": "image/png"}).json()
    assert crops["crops"][0]["error"]["status"] == answer.status_code


def test_a_damaged_image(client: Any, jpeg: bytes) -> None:
    for data in (jpeg[: len(jpeg) // 2], jpeg[:2], b"\x00" * 100, b"GIF89a" + bytes(100), encoded((8, 8), "PNG")):
        check_problem(client.post("/v1/predict", content=data, headers=JPEG), 422)


def test_too_many_bytes(client: Any, service: Service) -> None:
    most = service.settings.max_bytes
    check_problem(client.post("/v1/predict", content=bytes(most + 1), headers=JPEG), 413, "body_too_large")
    check_problem(client.post("/v1/predict", content=bytes(most), headers=JPEG), 422, "decode_error")


def test_bytes_are_counted_while_they_come(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftsdk.serving.limits._LINGER", 0.01)  # the test client sends no end

    def pieces() -> Iterator[bytes]:  # without a length
        for _ in range(1000):
            yield bytes(2**16)

    check_problem(client.post("/v1/predict", content=pieces(), headers=JPEG), 413, "body_too_large")


@pytest.mark.parametrize("length", ["-1", "a", "1e3", "9" * 30])
def test_lengths_that_are_none(client: Any, length: str) -> None:
    answer = client.post("/v1/predict", content=b"", headers={**JPEG, "content-length": length})
    assert answer.status_code in (400, 413)
    check_problem(answer, answer.status_code)


def test_forms(client: Any, jpeg: bytes, service: Service) -> None:
    file = ("image", ("a.jpg", jpeg))
    most = service.settings.max_parts
    check_problem(client.post("/v1/predict", files=[file, file]), 413, "too_many_parts")
    check_problem(client.post("/v1/crops", files=[file] * (most + 1)), 413, "too_many_parts")
    check_problem(client.post("/v1/crops", files=[file] * (most + 10)), 400, "malformed_form")
    assert len(client.post("/v1/crops", files=[file] * most).json()["crops"]) == most
    check_problem(client.post("/v1/predict", files=[file], data={"labels": "child"}), 400, "malformed_form")
    many = {f"field{number}": "x" for number in range(1000)}
    check_problem(client.post("/v1/predict", files=[file], data=many), 400, "malformed_form")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=", b"----\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"no form at all"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc',
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 10000 + b"\r\nabc\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n\x00\xff: b\r\n\r\nabc\r\n--x--\r\n"),
        ("multipart/form-data; boundary=" + "x" * 5000, b"--x\r\n"),
    ],
)
def test_broken_forms(client: Any, kind: str, body: bytes) -> None:
    for path in ("/v1/predict", "/v1/crops"):
        answer = client.post(path, content=body, headers={"content-type": kind})
        assert answer.status_code in (400, 413, 422), answer.text
        check_problem(answer, answer.status_code)


def test_a_file_in_a_form_never_touches_a_disk(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    data = io.BytesIO(encoded((700, 700), "BMP"))  # 1.4 MiB: more than starlette keeps in memory by itself
    assert client.post("/v1/predict?masks=none", files={"image": ("a.bmp", data)}).status_code == 200


def test_names_of_charsets_are_not_looked_up(client: Any, jpeg: bytes) -> None:
    """Python remembers every name that is no charset."""
    before = len(encodings._cache)  # type: ignore[attr-defined]
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + jpeg + b"\r\n--b--\r\n"
    for number in range(20):
        kind = f"multipart/form-data; boundary=b; charset={'c' * 500}{number}"
        assert client.post("/v1/predict", content=body, headers={"content-type": kind}).status_code == 200
    assert len(encodings._cache) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("boundary", ['a"b', "a\\b", "b" * 71, "\xe9", "a;b"])
def test_boundaries_that_none_is(client: Any, jpeg: bytes, boundary: str) -> None:
    quoted = boundary.replace("\\", "\\\\").replace('"', '\\"')
    line = boundary.encode("latin-1")
    head = b'\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    kind = f'multipart/form-data; boundary="{quoted}"'.encode("latin-1")
    answer = client.post(
        "/v1/predict", content=b"--" + line + head + jpeg + b"\r\n--" + line + b"--\r\n", headers={"content-type": kind}
    )
    check_problem(answer, 400, "malformed_form")
