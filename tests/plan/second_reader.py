"""A second reader of plans, written from FORMAT.md alone: the safetensors library, json and hashlib, none of ours.

It says whether a file is a plan. It does not know the manifest field by field: what it checks of it are the container,
the digests and the parts.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import safetensors

DTYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


class Refused(Exception):
    pass


def read(data: bytes) -> dict[str, Any]:
    """The manifest of a plan. Raises Refused."""
    try:
        return _read(data)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, safetensors.SafetensorError) as error:
        raise Refused(str(error)) from error


def _read(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", data[:8])
    _expect(length <= min(16 * 1024 * 1024, len(data) - 8), "header length")
    raw = data[8 : 8 + length]
    before, after = raw.split(b'"header_sha256":"')
    zeroed = before + b'"header_sha256":"' + b"0" * 64 + after[64:]
    _expect(hashlib.sha256(zeroed).hexdigest().encode() == after[:64], "header_sha256")
    header = _json(raw.decode("utf-8"))
    metadata = header.pop("__metadata__")
    _expect(set(metadata) == {"graftsdk", "header_sha256"}, "metadata")
    tensors = dict(safetensors.deserialize(data))  # covers the file, fits shapes
    manifest: dict[str, Any] = _json(metadata["graftsdk"])
    _expect(manifest["schema"] == 1, "schema")
    _expect(set(tensors) == set(manifest["tensors"]) == set(header), "names")
    for name, tensor in tensors.items():
        _expect(tensor["dtype"] in DTYPES, "dtype")
        _expect(hashlib.sha256(tensor["data"]).hexdigest() == manifest["tensors"][name], name)
    for name, part in manifest["parts"].items():
        own = {key.split("/", 1)[1]: tensors[key] for key in tensors if key.startswith(f"{name}/")}
        listed = {
            key: [tensor["dtype"], tensor["shape"], manifest["tensors"][f"{name}/{key}"]]
            for key, tensor in sorted(own.items())
        }
        text = json.dumps(
            {"graph": manifest["tensors"][name], "role": part["role"], "tensors": listed},
            separators=(",", ":"),
            ensure_ascii=False,
        )
        _expect(hashlib.sha256(text.encode()).hexdigest() == part["digest"], "part digest")
        _expect(part["digest"][:16] == name, "part name")
    return manifest


def _json(text: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _expect(len(dict(pairs)) == len(pairs), "a key twice")
        return dict(pairs)

    found: dict[str, Any] = json.loads(text, object_pairs_hook=unique)
    return found


def _expect(right: bool, what: str) -> None:
    if not right:
        raise Refused(what)
