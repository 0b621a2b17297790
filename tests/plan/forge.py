"""Plans that lie: taken apart, changed and put together again with every digest repaired."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import toys

MARK = b'"header_sha256":"'


def good(folder: Path, labels: tuple[str, ...] = ("child", "gender")) -> bytes:
    """The bytes of a plan with which nothing is wrong."""
    path = folder / "good.plan"
    toys.write(path, labels)
    return path.read_bytes()


def split(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, manifest and tensors of a plan."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["graftsdk"]), data[8 + length :]


def seal(header: bytes) -> bytes:
    """Length and header, padded, with the digest that belongs to it."""
    header += b" " * (-len(header) % 8)
    if header.count(MARK) == 1:
        at = header.index(MARK) + len(MARK)
        header = header[:at] + b"0" * 64 + header[at + 64 :]
        header = header[:at] + hashlib.sha256(header).hexdigest().encode() + header[at + 64 :]
    return struct.pack("<Q", len(header)) + header


def join(header: dict[str, Any], manifest: dict[str, Any] | str | None, body: bytes) -> bytes:
    """A plan of these; `manifest` None leaves the one in the header."""
    header = copy.deepcopy(header)
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else dump(manifest)
        header["__metadata__"]["graftsdk"] = text
    header["__metadata__"]["header_sha256"] = "0" * 64
    return seal(dump(header).encode("utf-8", "surrogatepass")) + body


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def with_manifest(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The plan with a changed manifest."""
    header, manifest, body = split(data)
    change(manifest)
    return join(header, manifest, body)


def with_manifest_text(data: bytes, change: Callable[[str], str]) -> bytes:
    header, manifest, body = split(data)
    return join(header, change(dump(manifest)), body)


def with_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The plan with changed tensor entries."""
    header, _, body = split(data)
    change(header)
    return join(header, None, body)


def with_header_text(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    header, _, body = split(data)
    return seal(change(dump(header).encode())) + body
