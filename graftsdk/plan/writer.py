"""Writing a plan: header first, then every tensor, in one atomic write."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np

from graftsdk.errors import PlanCorrupt
from graftsdk.files import atomic_write
from graftsdk.plan.container import build_header
from graftsdk.plan.manifest import Manifest
from graftsdk.plan.part import Part, dtype_name
from graftsdk.plan.reader import Plan

__all__ = ["tensor_hashes", "write_plan"]

_CHUNK = 16 * 1024 * 1024

_Listed = tuple[str, str, tuple[int, ...]]


def tensor_hashes(parts: Sequence[Part]) -> dict[str, str]:
    """The manifest's `tensors` for some parts: tensor name -> SHA-256."""
    return {_name(part, key): sha256 for part in parts for key, sha256 in part.hashes.items()}


def write_plan(
    path: str | os.PathLike[str], manifest: Manifest, parts: Sequence[Part], *, base: Plan | None = None
) -> None:
    """Write a plan to `path`, whole or not at all.

    Args:
        path: the file.
        manifest: `tensors` must name every tensor of `parts`, and those of `base` that stay.
        parts: new parts.
        base: an open plan whose other tensors are copied byte by byte and hashed on the way.

    Raises:
        PlanCorrupt: the manifest is not one that can be read back, or bytes of `base` are not what its manifest says.
        PlanPathError, OSError: see `graftsdk.files.atomic_write`.
    """
    text = _checked_json(manifest)
    listed: list[_Listed] = []
    sources: dict[str, memoryview] = {}
    for part in parts:
        for name, dtype, shape, content in _tensors(part):
            if name not in sources:
                listed.append((name, dtype, shape))
                sources[name] = content
    copied = _kept(manifest, base, sources) if base is not None else {}
    for name, (dtype, shape, content) in copied.items():
        listed.append((name, dtype, shape))
        sources[name] = content
    if set(sources) != set(manifest.tensors):
        odd = sorted(set(sources) ^ set(manifest.tensors))[0]
        raise PlanCorrupt(f"tensor {odd!r} stands only in the manifest or only in the parts to be written")
    head, sections = build_header(text, listed)
    with atomic_write(path) as file, ThreadPoolExecutor(2) as pool:
        file.write(head)
        checks: list[tuple[str, Future[str]]] = []
        for section in sections:
            content = sources[section.name]
            if section.name in copied:  # hashed beside the write: a copy must not carry a flipped bit on
                checks.append((section.name, pool.submit(_sha256, content)))
            _write(file, content)
        for name, check in checks:
            if check.result() != manifest.tensors[name]:
                raise PlanCorrupt(f"the bytes of {name!r} were changed in the plan that is copied; nothing was written")


def _checked_json(manifest: Manifest) -> str:
    """The manifest as text, read back: dataclasses take any label and number, a file does not."""
    try:
        text = manifest.to_json()
    except (TypeError, ValueError) as error:
        raise PlanCorrupt(f"expected a manifest of plain finite values, found {error}; nothing was written") from error
    Manifest.from_json(text, "plan to be written")
    return text


def _name(part: Part, key: str) -> str:
    return f"{part.name}/{key}" if key else part.name


def _tensors(part: Part) -> list[tuple[str, str, tuple[int, ...], memoryview]]:
    found: list[tuple[str, str, tuple[int, ...], memoryview]] = [
        (_name(part, ""), "U8", (len(part.graph),), memoryview(part.graph))
    ]
    for key, array in part.tensors.items():
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        found.append((_name(part, key), dtype_name(array.dtype), array.shape, content.data))
    return found


def _kept(
    manifest: Manifest, base: Plan, new: Mapping[str, memoryview]
) -> dict[str, tuple[str, tuple[int, ...], memoryview]]:
    found = {}
    for part in base.manifest.parts:
        for section in base.sections(part).values():
            if section.name in manifest.tensors and section.name not in new:
                found[section.name] = (section.dtype, section.shape, base.bytes_of(section))
    return found


def _write(file: BinaryIO, content: memoryview) -> None:
    for begin in range(0, len(content), _CHUNK):
        file.write(content[begin : begin + _CHUNK])


def _sha256(content: memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
