"""Checkpoints: safetensors files with one JSON document in the metadata key `graftsdk`.

The file is opened and read once. Its raw header is checked before safetensors sees it, because safetensors accepts a
tensor name or a metadata key twice; nothing is built before document, keys, shapes, dtypes and values have passed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import TypeAlias

import safetensors
import safetensors.torch
import torch

from graftsdk.errors import InputError, PlanCorrupt, PlanLimitError, PlanPathError, PlanTruncated
from graftsdk.files import atomic_write
from graftsdk.plan.documents import DOCUMENT_KEY, BranchDocument, SegmenterDocument, TrunkDocument, read_document
from graftsdk.plan.strict_json import load_json

__all__ = [
    "Document",
    "another_kind",
    "check_tensors",
    "read_checkpoint",
    "read_regular",
    "read_weights",
    "write_checkpoint",
]

Document: TypeAlias = TrunkDocument | BranchDocument | SegmenterDocument

MAX_HEADER_BYTES = 16 * 2**20
MAX_FILE_BYTES = 4 * 2**30  # the largest own branch, bilinear over 2048 channels with 64 classes, has 1.1 GB
_COUNTER = "num_batches_tracked"


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[Document, dict[str, torch.Tensor]]:
    """The document and the tensors of a trunk, branch or segmenter checkpoint.

    Raises:
        PlanPathError: no readable regular file.
        PlanTruncated, PlanLimitError, PlanCorrupt, PlanVersionError: see the module's text.
    """
    metadata, tensors = read_weights(path)
    if DOCUMENT_KEY not in metadata:
        raise PlanCorrupt(
            f"{path}: expected a graftsdk checkpoint, found safetensors without the metadata key {DOCUMENT_KEY!r}; "
            f"torchvision's weights are read by Trunk.create(weights=...)"
        )
    document = read_document(metadata[DOCUMENT_KEY], str(path))
    if not isinstance(document, SegmenterDocument) and document.exported is not None:
        raise PlanCorrupt(f"{path}: expected a checkpoint's document, found an exported part's (field 'exported')")
    return document, tensors


def another_kind(path: str | os.PathLike[str], expected: str, found: Document) -> PlanCorrupt:
    """The error for a checkpoint that is not the `expected` kind; says what it is and where it belongs."""
    if isinstance(found, BranchDocument):
        what = f"the branch {found.label!r}; it is for --branches or Branch.load"
    elif isinstance(found, TrunkDocument):
        what = f"a trunk ({found.arch}); it is for --trunk or Trunk.load"
    else:
        what = f"a segmenter ({found.family}, {found.arch}); it is for --segmenter or Yolact.load"
    return PlanCorrupt(f"{path}: expected a {expected}, found {what}")


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of any safetensors file, its header checked; the tensors are the caller's own.

    Raises:
        PlanPathError, PlanTruncated, PlanLimitError, PlanCorrupt.
    """
    data = read_regular(path)
    metadata = _check_header(data, str(path))
    try:
        return metadata, safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:  # KeyError: a dtype unknown here
        raise PlanCorrupt(f"{path}: expected valid safetensors, found {error!s:.200}") from error


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a regular file of at most 4 GiB.

    Raises:
        PlanPathError: missing, not readable or no regular file.
        PlanLimitError: larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block the open
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error  # ValueError: a NUL in the path
        raise PlanPathError(f"{path}: expected a readable file, found: {why}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise PlanPathError(f"{path}: expected a regular file, found a folder, pipe or device")
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > MAX_FILE_BYTES:
            raise PlanLimitError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, found {found.st_size}")
        return file.read(found.st_size)


def _check_header(data: bytes, where: str) -> dict[str, str]:
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") and data[8:9] != b"{":
        raise PlanCorrupt(
            f"{where}: expected safetensors, found a pickle or zip archive (a .pth file?), which is never read; "
            f"graftsdk import makes a checkpoint of torchvision's or YOLACT's weights"
        )
    if len(data) < 8:
        raise PlanTruncated(f"{where}: expected safetensors, found a file of {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES and data[8:9] != b"{":
        raise PlanCorrupt(f"{where}: expected a safetensors checkpoint, found another kind of file")
    if length > MAX_HEADER_BYTES:
        raise PlanLimitError(f"{where}: expected a header of at most {MAX_HEADER_BYTES} bytes, found {length}")
    if length > len(data) - 8:
        raise PlanTruncated(f"{where}: expected a header of {length} bytes, found {len(data) - 8}; copy the file again")
    header = load_json(data[8 : 8 + length], f"{where}: header")  # refuses a name twice
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise PlanCorrupt(f"{where}: expected metadata of texts, found another type")
    end = max((_end(entry, f"{where}: tensor {name!r:.80}") for name, entry in header.items()), default=0)
    if end > len(data) - 8 - length:
        raise PlanTruncated(
            f"{where}: expected {end} bytes of tensors, found {len(data) - 8 - length}; copy the file again"
        )
    return dict(metadata)


def _end(entry: object, where: str) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(item) is int for item in offsets):
        raise PlanCorrupt(f"{where}: expected two data_offsets, found {offsets!r:.80}")
    return int(offsets[1])


def write_checkpoint(path: str | os.PathLike[str], document: Document, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        InputError: the document or a tensor is one that no reader would take: NaN, another dtype, a bad threshold.
        PlanPathError: `path` cannot be written.
    """
    try:
        text = document.to_json()
        read_document(text, str(path))
        check_tensors(tensors, tensors, str(path))
    except ValueError as error:  # json's on NaN, or a PlanError leaf
        raise InputError(f"cannot be saved: {error}") from error
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(own, metadata={DOCUMENT_KEY: text}))


def check_tensors(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], where: str) -> None:
    """Compare `tensors` with a structure's state dict: same keys, shapes and dtypes, all values finite.

    Raises:
        PlanCorrupt: they differ; names the key.
    """
    for name in sorted(expected.keys() - tensors.keys()):
        raise PlanCorrupt(f"{where}: expected the tensor {name!r}, found none of that name")
    for name in sorted(tensors.keys() - expected.keys()):
        raise PlanCorrupt(f"{where}: expected only the tensors of its architecture, found {name!r:.200}")
    for name, like in expected.items():
        tensor, dtype = tensors[name], torch.int64 if name.split(".")[-1] == _COUNTER else torch.float32
        if tensor.shape != like.shape:
            raise PlanCorrupt(f"{where}: {name}: expected shape {list(like.shape)}, found {list(tensor.shape)}")
        if tensor.dtype != dtype:
            raise PlanCorrupt(f"{where}: {name}: expected {dtype}, found {tensor.dtype}; convert it first")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise PlanCorrupt(f"{where}: {name}: expected finite values, found NaN or infinity")
