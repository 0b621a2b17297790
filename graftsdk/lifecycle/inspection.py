"""What a file of ours is: a plan, an exported part, or a checkpoint of which only the document is read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from graftsdk.errors import PlanCorrupt, PlanLimitError, PlanPathError, PlanTruncated
from graftsdk.plan import BranchDocument, Plan, SegmenterDocument, TrunkDocument, open_plan
from graftsdk.plan.container import HEADER_CAP
from graftsdk.plan.documents import DOCUMENT_KEY, read_document
from graftsdk.plan.onnx_part import read_onnx_part
from graftsdk.plan.strict_json import load_json

__all__ = ["PartFile", "checkpoint_document", "is_onnx", "open_file"]

_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class PartFile:
    """A trunk, branch or segmenter in a file of its own.

    Attributes:
        path: the file. form: "checkpoint" or "part". document: what it says of itself.
        digest: of a part, 64 hex digits; None for a checkpoint. nbytes: size of the file.
    """

    path: Path
    form: str
    document: TrunkDocument | BranchDocument | SegmenterDocument
    digest: str | None
    nbytes: int


def open_file(path: _Path) -> Plan | PartFile:
    """The plan, opened, or what an exported part (.onnx) or a checkpoint (.safetensors) says of itself.

    Raises:
        PlanError: the file is missing, damaged, or none of the three; torch is never needed to find out.
    """
    where = Path(path)
    if is_onnx(where):
        part, document = read_onnx_part(where)
        return PartFile(where, "part", document, part.digest, where.stat().st_size)
    if DOCUMENT_KEY in (metadata := _metadata(where)) and "header_sha256" not in metadata:
        return PartFile(where, "checkpoint", checkpoint_document(where), None, where.stat().st_size)
    return open_plan(where)


def is_onnx(path: _Path) -> bool:
    """Whether the file's name says that it is an ONNX part."""
    return Path(path).suffix.lower() == ".onnx"


def checkpoint_document(path: _Path) -> TrunkDocument | BranchDocument | SegmenterDocument:
    """The document of a checkpoint; its weights are not read.

    Raises:
        PlanPathError: no regular file. PlanTruncated, PlanLimitError, PlanCorrupt, PlanVersionError: see there.
    """
    text = _metadata(Path(path)).get(DOCUMENT_KEY)
    if not isinstance(text, str):
        raise PlanCorrupt(
            f"{path}: expected a graftsdk checkpoint (.safetensors with the metadata key {DOCUMENT_KEY!r}), found "
            f"another file; Trunk.save, Branch.save and Yolact.save write them"
        )
    return read_document(text, str(path))


def _metadata(path: Path) -> dict[str, object]:
    """The metadata of a safetensors file; empty for a file that does not begin like one, which `open_plan` judges."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block
    except OSError as error:
        raise PlanPathError(f"{path}: expected a plan, part or checkpoint, found: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PlanPathError(f"{path}: expected a regular file, found a folder, pipe or device")
    with os.fdopen(descriptor, "rb") as file:
        head = file.read(9)
        length = int.from_bytes(head[:8], "little")
        if head[8:] != b"{":
            return {}
        if length > HEADER_CAP:
            raise PlanLimitError(f"{path}: expected a header of at most {HEADER_CAP} bytes, found {length}")
        header = head[8:] + file.read(length - 1)
    if len(header) < length:
        raise PlanTruncated(f"{path}: expected a header of {length} bytes, the file ends after {len(header)}")
    metadata = load_json(header, f"{path} header").get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}
