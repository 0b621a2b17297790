"""The bytes of a plan file: safetensors, read and written with more checks than the format asks for.

FORMAT.md is the normative text. Reading: length, cap, header digest, strict JSON, sections that cover the file
exactly; only then anything is built from it. Nothing of a tensor's content is looked at here.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graftsdk.errors import PlanCorrupt, PlanLimitError, PlanTruncated
from graftsdk.plan.strict_json import Fields, load_json

__all__ = ["DTYPE_SIZES", "HEADER_CAP", "METADATA_KEY", "Header", "Section", "build_header", "parse_header"]

HEADER_CAP = 16 * 1024 * 1024
METADATA_KEY = "graftsdk"
DIGEST_KEY = "header_sha256"
_DIGEST_MARK = b'"header_sha256":"'
_MAX_DIMENSIONS = 16

# Bytes of one element, by the format's own names of dtypes.
DTYPE_SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
# safetensors writes tensors by descending alignment, then by name; its own order of dtypes, ascending.
_ORDER = {
    name: rank
    for rank, name in enumerate(("BOOL", "U8", "I8", "I16", "U16", "F16", "I32", "U32", "F32", "F64", "I64", "U64"))
}


@dataclass(frozen=True)
class Section:
    """Where one tensor lies: `offset` counts from the start of the file, `size` in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """A checked header: the manifest's JSON, its own digest, and the tensors by name."""

    manifest: str
    digest: str
    sections: Mapping[str, Section]


def build_header(manifest: str, tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[bytes, list[Section]]:
    """The first bytes of a plan (length and header), and where each tensor (name, dtype, shape) then lies.

    Raises:
        PlanLimitError: the header would be larger than a reader accepts.
    """
    ordered = sorted(tensors, key=lambda item: (-_ORDER[item[1]], item[0]))
    entries: dict[str, Any] = {"__metadata__": {METADATA_KEY: manifest, DIGEST_KEY: "0" * 64}}
    begin = 0
    for name, dtype, shape in ordered:
        end = begin + DTYPE_SIZES[dtype] * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_CAP:
        raise PlanLimitError(f"expected a header of at most {HEADER_CAP} bytes, found {len(header)}; split the plan")
    digest = hashlib.sha256(header).hexdigest().encode()
    at = header.index(_DIGEST_MARK) + len(_DIGEST_MARK)
    header = header[:at] + digest + header[at + 64 :]
    start = 8 + len(header)
    sections = [
        Section(name, dtype, shape, start + entries[name]["data_offsets"][0], DTYPE_SIZES[dtype] * math.prod(shape))
        for name, dtype, shape in ordered
    ]
    return struct.pack("<Q", len(header)) + header, sections


def parse_header(data: memoryview, where: str) -> Header:
    """The checked header of a plan's bytes.

    Raises:
        PlanTruncated: the file ends before what its header announces.
        PlanLimitError: the header is larger than 16 MiB.
        PlanCorrupt: anything else that contradicts itself; no gap, overlap or trailing byte is accepted.
    """
    if len(data) < 8:
        raise PlanTruncated(f"{where}: expected a plan, found {len(data)} bytes")
    (length,) = struct.unpack("<Q", data[:8])
    if length > HEADER_CAP and bytes(data[8:9]) != b"{":
        raise PlanCorrupt(f"{where}: expected a plan, found another kind of file; graftsdk-export makes plans")
    if length > HEADER_CAP:
        raise PlanLimitError(f"{where}: expected a header of at most {HEADER_CAP} bytes, found {length}")
    if length > len(data) - 8:
        raise PlanTruncated(f"{where}: expected a header of {length} bytes, the file ends after {len(data) - 8}")
    raw = bytes(data[8 : 8 + length])
    digest = _check_digest(raw, where)
    if raw[:1] != b"{":  # what stands before it would be read by some readers and refused by others
        raise PlanCorrupt(f"{where}: expected a header that begins with '{{', found {raw[:1]!r}")
    entries = load_json(raw, f"{where} header")
    metadata = Fields(entries.pop("__metadata__", None), f"{where} header metadata")
    manifest = metadata.raw(METADATA_KEY)
    if metadata.raw(DIGEST_KEY) != digest:
        raise PlanCorrupt(f"{where}: expected header_sha256 to be 64 hex digits and nothing else")
    metadata.done()
    if not isinstance(manifest, str):
        raise PlanCorrupt(f"{where}: expected the manifest as text, found {type(manifest).__name__}")
    start = 8 + length
    sections = [_section(name, value, start, where) for name, value in entries.items()]
    _check_cover(sections, start, len(data), where)
    return Header(manifest, digest, {section.name: section for section in sections})


def _check_digest(raw: bytes, where: str) -> str:
    parts = raw.split(_DIGEST_MARK)
    if len(parts) != 2 or len(parts[1]) < 64:
        found = "a safetensors file that is none, such as a checkpoint" if len(parts) == 1 else "a damaged header"
        raise PlanCorrupt(f"{where}: expected a plan, found {found}; graftsdk-export makes plans")
    stated = parts[1][:64]
    found = hashlib.sha256(parts[0] + _DIGEST_MARK + b"0" * 64 + parts[1][64:]).hexdigest()
    if found.encode() != stated:
        raise PlanCorrupt(f"{where}: the header was changed: its SHA-256 is {found[:16]}…, not {stated[:16]!r}")
    return found


def _section(name: str, value: Any, start: int, where: str) -> Section:
    fields = Fields(value, f"{where} tensor {name[:80]!r}")
    dtype = fields.choice("dtype", tuple(DTYPE_SIZES))
    shape = fields.integers("shape", 0, 2**40, count=(0, _MAX_DIMENSIONS))
    begin, end = fields.integers("data_offsets", 0, 2**60, count=(2, 2))
    fields.done()
    if end - begin != DTYPE_SIZES[dtype] * math.prod(shape):
        raise PlanCorrupt(f"{where}: tensor {name[:80]!r} has {end - begin} bytes, its shape and dtype say otherwise")
    if (start + begin) % DTYPE_SIZES[dtype]:  # arrays are views of the file
        raise PlanCorrupt(f"{where}: tensor {name[:80]!r} begins at byte {start + begin}, which its dtype cannot")
    return Section(name, dtype, shape, start + begin, end - begin)


def _check_cover(sections: list[Section], start: int, size: int, where: str) -> None:
    at = start
    for section in sorted(sections, key=lambda item: (item.offset, item.size)):
        if section.offset != at:
            raise PlanCorrupt(f"{where}: tensor {section.name[:80]!r} begins at byte {section.offset}, expected {at}")
        at += section.size
    if at > size:
        raise PlanTruncated(f"{where}: expected {at} bytes, the file ends after {size}")
    if at < size:
        raise PlanCorrupt(f"{where}: expected {at} bytes, found {size - at} more")
