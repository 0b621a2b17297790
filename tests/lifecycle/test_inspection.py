from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import toys

from graftsdk.errors import PlanCorrupt, PlanError, PlanLimitError, PlanPathError, PlanTruncated
from graftsdk.lifecycle.inspection import PartFile, checkpoint_document, open_file
from graftsdk.plan import BranchDocument, Plan, TrunkDocument
from graftsdk.plan.onnx_part import write_onnx_part


def safetensors(path: Path, metadata: dict[str, str], *, length: int | None = None) -> Path:
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)
    return path


def test_plan(tmp_path: Path) -> None:
    toys.write(tmp_path / "engine.plan")
    found = open_file(tmp_path / "engine.plan")
    assert isinstance(found, Plan)
    assert found.labels == ("child", "gender", "backpack")
    found.close()


def test_part(tmp_path: Path) -> None:
    part, document = toys.branch("hat", 2)
    write_onnx_part(tmp_path / "hat.onnx", part, document)
    found = open_file(tmp_path / "hat.onnx")
    assert isinstance(found, PartFile)
    assert (found.form, found.document, found.digest) == ("part", document, part.digest)
    assert found.nbytes == (tmp_path / "hat.onnx").stat().st_size


def test_checkpoints(tmp_path: Path) -> None:
    trunk, branch = (replace(each[1], exported=None) for each in (toys.trunk(), toys.branch("hat", 2)))
    for name, document in {"trunk": trunk, "hat": branch}.items():
        path = safetensors(tmp_path / f"{name}.safetensors", {"graftsdk": document.to_json()})
        found = open_file(path)
        assert isinstance(found, PartFile)
        assert (found.form, found.document, found.digest) == ("checkpoint", document, None)
        assert isinstance(document, TrunkDocument if name == "trunk" else BranchDocument)


@pytest.mark.parametrize(
    ("metadata", "length", "error"),
    [
        ({"graftsdk": "{}"}, None, PlanCorrupt),
        ({"graftsdk": "{}"}, 5000, PlanTruncated),
        ({"graftsdk": "{}"}, 2**40, PlanLimitError),
        ({"format": "pt"}, None, PlanCorrupt),
        ({"header_sha256": "0" * 64, "graftsdk": "{}"}, None, PlanCorrupt),
    ],
)
def test_odd_headers(tmp_path: Path, metadata: dict[str, str], length: int | None, error: type[PlanError]) -> None:
    path = safetensors(tmp_path / "odd.safetensors", metadata, length=length)
    with pytest.raises(error):
        open_file(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 40, b"PK\x03\x04" * 20])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(PlanError):
        open_file(path)


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe"):
        with pytest.raises(PlanPathError):
            open_file(path)


def test_checkpoint_document_wants_a_document(tmp_path: Path) -> None:
    with pytest.raises(PlanCorrupt, match="expected a graftsdk checkpoint"):
        checkpoint_document(safetensors(tmp_path / "weights.safetensors", {"format": "pt"}))
