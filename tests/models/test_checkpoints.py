"""Checkpoints: round trips, golden bytes, and everything that a file can lie about."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graftsdk.errors import (
    GraftError,
    InputError,
    PlanCorrupt,
    PlanLimitError,
    PlanPathError,
    PlanTruncated,
    PlanVersionError,
)
from graftsdk.models import Branch, Trunk, import_torchvision
from graftsdk.models.checkpoints import read_checkpoint, write_checkpoint
from graftsdk.models.pth import check_torch, state_dict
from graftsdk.plan.cropspec import CropSpec
from graftsdk.plan.documents import Provenance, TrunkDocument

SIZE = (64, 64)


def small(width: float = 0.25) -> Trunk:
    return Trunk.create("resnet18", SIZE, width=width, seed=2)


@pytest.mark.parametrize(
    ("arch", "size", "width"),
    [
        ("resnet18", SIZE, 1.0),
        ("resnet18", (64, 96), 0.25),
        ("resnet50", SIZE, 0.25),
        ("mobilenet_v3_large", SIZE, 0.25),
        ("inception_v3", (75, 75), 0.25),
    ],
)
def test_trunk_comes_back(arch: str, size: tuple[int, int], width: float, tmp_path: Path) -> None:
    trunk = Trunk.create(arch, size, width=width, seed=4)
    trunk.provenance = Provenance("CC0-1.0", "Jörg", ("ab" * 32,))
    trunk.save(tmp_path / "t.safetensors")
    again = Trunk.load(tmp_path / "t.safetensors")
    assert again.document() == trunk.document()
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert all(torch.equal(one, two) for one, two in zip(trunk.taps(x), again.taps(x), strict=True))


@pytest.mark.parametrize(
    ("arch", "tap", "until", "pooling", "width", "trunk_width"),
    [
        ("resnet18", 1, None, "gap", 0.25, 1.0),  # with a projection
        ("resnet18", 6, 8, "bilinear", 1.0, 0.25),
        ("resnet18", 8, 8, "gap", 1.0, 0.25),
        ("resnet18", 8, 8, "bilinear", 1.0, 0.25),
        ("resnet18", 2, 2, "gap", 0.5, 0.25),
        ("mobilenet_v3_large", 2, 6, "bilinear", 0.5, 1.0),
        ("inception_v3", 3, 5, "bilinear", 0.25, 0.5),
    ],
)
@pytest.mark.filterwarnings("ignore::graftsdk.models.FewCellsWarning")
def test_branch_comes_back(
    arch: str, tap: int, until: int | None, pooling: str, width: float, trunk_width: float, tmp_path: Path
) -> None:
    trunk = Trunk.create(arch, (75, 75), width=trunk_width)
    branch = Branch.create(trunk, "gender", ("female", "male"), tap=tap, until=until, pooling=pooling, width=width)
    branch.thresholds, branch.temperature = {"male": 0.6}, 1.7
    branch.metrics, branch.histogram = {"auc": 0.9}, {"male": (1,) * 20}
    branch.provenance = Provenance(licence="MIT")
    branch.save(tmp_path / "b.safetensors")
    again = Branch.load(tmp_path / "b.safetensors")
    assert again.document() == branch.document()
    assert (again.thresholds, again.temperature) == ({"male": 0.6}, 1.7)
    x = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        assert torch.equal(branch(trunk.tap(x, tap)), again(trunk.tap(x, tap)))
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_golden_bytes(tmp_path: Path) -> None:
    document = TrunkDocument("toy", 0.5, CropSpec((64, 32)), ("a" * 64, "b" * 64))
    tensors = {"bn.num_batches_tracked": torch.tensor(3), "conv.weight": torch.tensor([[1.5, -2.0]])}
    write_checkpoint(tmp_path / "c.safetensors", document, tensors)
    text = json.dumps(document.to_json())
    header = (
        '{"__metadata__":{"graftsdk":' + text + "},"
        '"bn.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        '"conv.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}}'
    ).encode()
    header += b" " * (-len(header) % 8)
    data = bytes.fromhex("0300000000000000" + "0000c03f" + "000000c0")
    assert (tmp_path / "c.safetensors").read_bytes() == struct.pack("<Q", len(header)) + header + data
    found, read = read_checkpoint(tmp_path / "c.safetensors")
    assert found == document
    assert torch.equal(read["conv.weight"], tensors["conv.weight"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("thresholds", {"maybe": 0.5}, "found 'maybe'"),
        ("thresholds", {"yes": 1.5}, "thresholds"),
        ("thresholds", {"yes": float("nan")}, "cannot be saved"),
        ("temperature", 0.0, "temperature"),
        ("histogram", {"yes": (1, 2)}, "histogram"),
        ("label", " hat", "outer blanks"),
    ],
)
def test_what_no_reader_would_take_is_not_saved(name: str, value: Any, message: str, tmp_path: Path) -> None:
    branch = Branch.create(small(), "hat", tap=8)
    setattr(branch, name, value)
    with pytest.raises(InputError, match=message):
        branch.save(tmp_path / "b.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_float32_are_not_saved(tmp_path: Path) -> None:
    trunk = small()
    trunk.half()
    with pytest.raises(InputError, match="expected torch.float32, found torch.float16"):
        trunk.save(tmp_path / "t.safetensors")
    branch = Branch.create(small(), "hat", tap=8)
    branch.classifier.bias.data[0] = float("inf")
    with pytest.raises(InputError, match="classifier.bias: expected finite"):
        branch.save(tmp_path / "b.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    small().save(folder / "trunk.safetensors")
    Branch.create(small(), "hat", tap=7).save(folder / "branch.safetensors")
    return folder


def pack(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def unpack(raw: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def edit(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A file whose header and document went through `change`."""

    def apply(raw: bytes) -> bytes:
        header, data = unpack(raw)
        document = json.loads(header["__metadata__"]["graftsdk"])
        change(header, document)
        if "graftsdk" in header.get("__metadata__", {}):
            header["__metadata__"]["graftsdk"] = json.dumps(document)
        return pack(json.dumps(header).encode(), data)

    return apply


def insert(text: bytes, before: bytes) -> Callable[[bytes], bytes]:
    def apply(raw: bytes) -> bytes:
        length = int.from_bytes(raw[:8], "little")
        return pack(raw[8 : 8 + length].replace(before, text + before, 1), raw[8 + length :])

    return apply


ENTRY = b'"bn1.bias":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},'

ATTACKS: list[tuple[str, Callable[[bytes], bytes], type[GraftError], str]] = [
    ("empty", lambda raw: b"", PlanTruncated, "a file of 0 bytes"),
    ("header cut", lambda raw: raw[:100], PlanTruncated, "expected a header of"),
    ("data cut", lambda raw: raw[:-1], PlanTruncated, "bytes of tensors"),
    ("data added", lambda raw: raw + b"\0", PlanCorrupt, "valid safetensors"),
    ("huge header", lambda raw: struct.pack("<Q", 2**24 + 1) + raw[8:], PlanLimitError, "header of at most 16777216"),
    ("no JSON", lambda raw: pack(b"not json", b""), PlanCorrupt, "strict JSON"),
    ("a list", lambda raw: pack(b"[]", b""), PlanCorrupt, "JSON object"),
    ("tensor twice", insert(ENTRY, b'"bn1.bias"'), PlanCorrupt, "'bn1.bias' twice"),
    ("metadata twice", insert(b'"graftsdk":"{}",', b'"graftsdk"'), PlanCorrupt, "'graftsdk' twice"),
    ("metadata object twice", insert(b'"__metadata__":{},', b'"__metadata__"'), PlanCorrupt, "twice"),
    ("no document", edit(lambda h, d: h.pop("__metadata__")), PlanCorrupt, "without the metadata key 'graftsdk'"),
    ("metadata no text", edit(lambda h, d: h["__metadata__"].update(x=1)), PlanCorrupt, "metadata of texts"),
    ("offsets", edit(lambda h, d: h["bn1.bias"].update(data_offsets=[0.5, 64])), PlanCorrupt, "two data_offsets"),
    ("overlap", edit(lambda h, d: h["bn1.bias"].update(data_offsets=[4, 68])), PlanCorrupt, "valid safetensors"),
    ("dtype", edit(lambda h, d: h["bn1.bias"].update(dtype="I32")), PlanCorrupt, "bn1.bias: expected torch.float32"),
    ("unknown dtype", edit(lambda h, d: h["bn1.bias"].update(dtype="Q7")), PlanCorrupt, "valid safetensors"),
    ("shape", edit(lambda h, d: h["bn1.bias"].update(shape=[4, 4])), PlanCorrupt, r"bn1.bias: expected shape \[16\]"),
    ("renamed", edit(lambda h, d: h.update(other=h.pop("bn1.bias"))), PlanCorrupt, "expected the tensor 'bn1.bias'"),
    ("not finite", lambda raw: raw[:-4] + b"\0\0\xc0\x7f", PlanCorrupt, "expected finite values"),
    ("weight changed", lambda raw: raw[:-4] + b"\0\0\x80\x3f", PlanCorrupt, "expected fingerprint"),
    ("crop changed", edit(lambda h, d: d["crop"].update(fill=9)), PlanCorrupt, "fingerprint .* at tap 0"),
    ("fingerprint", edit(lambda h, d: d["fingerprints"].__setitem__(5, "0" * 64)), PlanCorrupt, "at tap 5"),
    ("too few", edit(lambda h, d: d["fingerprints"].pop()), PlanCorrupt, "expected 9 fingerprints, found 8"),
    ("width", edit(lambda h, d: d.update(width=0.5)), PlanCorrupt, "expected shape"),
    ("width 0", edit(lambda h, d: d.update(width=0)), PlanCorrupt, "width"),
    ("arch", edit(lambda h, d: d.update(arch="vgg16")), PlanCorrupt, "expected one of inception_v3"),
    ("version", edit(lambda h, d: d.update(version=2)), PlanVersionError, "document version 1, found 2"),
    ("field", edit(lambda h, d: d.update(module="os")), PlanCorrupt, "unknown field 'module'"),
    (
        "exported",
        edit(lambda h, d: d.update(exported={"macs": [0] * 9, "parameters": [0] * 9})),
        PlanCorrupt,
        "exported",
    ),
]


@pytest.mark.parametrize(("attack", "error", "message"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_a_file_that_lies(
    saved: Path, tmp_path: Path, attack: Callable[[bytes], bytes], error: type[GraftError], message: str
) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(attack((saved / "trunk.safetensors").read_bytes()))
    with pytest.raises(error, match=message):
        Trunk.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, d: d.update(until=9), "until: expected at most 8"),
        (lambda h, d: d.update(tap=6), "expected the tensor 'layer4.0"),
        (lambda h, d: d.update(width=0.25), "expected the tensor 'layer4.1.projection.weight'"),
        (lambda h, d: d.update(pooling="max9"), "pooling: expected one of"),
        (lambda h, d: d.update(pooling="bilinear"), "classifier.weight: expected shape"),
        (lambda h, d: d.update(classes=["a", "b", "c"]), "classifier.weight: expected shape"),
        (lambda h, d: d["crop"].update(size=[8, 8]) or d.update(pooling="bilinear"), "least square input"),
    ],
)
def test_a_branch_that_lies(saved: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "b.safetensors"
    path.write_bytes(edit(change)((saved / "branch.safetensors").read_bytes()))
    with pytest.raises(PlanCorrupt, match=message):
        Branch.load(path)


def test_kinds_are_not_mixed_up(saved: Path) -> None:
    with pytest.raises(PlanCorrupt, match="expected a trunk, found the branch 'hat'"):
        Trunk.load(saved / "branch.safetensors")
    with pytest.raises(PlanCorrupt, match="expected a branch, found a trunk"):
        Branch.load(saved / "trunk.safetensors")


def test_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.safetensors", tmp_path, tmp_path / "pipe", "a\0b"):
        with pytest.raises(PlanPathError):
            Trunk.load(path)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "trunk.safetensors"
    buffer = io.BytesIO()
    torch.save({"conv1.weight": Bomb(mark)}, buffer, _use_new_zipfile_serialization=zipped)
    path.write_bytes(buffer.getvalue())
    for load in (Trunk.load, Branch.load, lambda at: Trunk.create("resnet18", SIZE, weights=at)):
        with pytest.raises(PlanCorrupt, match="found a pickle or zip archive"):
            load(path)
    with pytest.raises(PlanCorrupt, match="weights_only=True"):
        import_torchvision(path, "resnet18", tmp_path / "out.safetensors", (0.5,) * 3, (0.5,) * 3)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["trunk.safetensors"]


@pytest.mark.parametrize("wrap", [dict, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": t}])
def test_where_a_pth_holds_its_state_dict(wrap: Callable[[Any], Any]) -> None:
    assert list(state_dict(wrap({"conv1.weight": torch.zeros(2)}), "w.pth")) == ["conv1.weight"]


def test_import_torchvision(tmp_path: Path) -> None:
    trunk = Trunk.create("resnet18", SIZE, seed=8)
    tensors = dict(trunk.state_dict()) | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save({"state_dict": tensors}, tmp_path / "w.pth")
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    made = import_torchvision(tmp_path / "w.pth", "resnet18", tmp_path / "t.safetensors", mean, std, SIZE)
    again = Trunk.load(tmp_path / "t.safetensors")
    assert again.document() == made.document()
    assert again.crop == CropSpec(SIZE, mean, std)
    assert all(torch.equal(tensor, trunk.state_dict()[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a state dict, found list"),
        ({}, "expected a state dict"),
        ({"conv1.weight": "text"}, "expected names with dense tensors"),
        ({3: torch.zeros(1)}, "expected names with dense tensors"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "expected the tensor 'bn1.bias'"),
    ],
)
def test_import_refuses(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(PlanCorrupt, match=message):
        import_torchvision(tmp_path / "w.pth", "resnet18", tmp_path / "t.safetensors", (0.5,) * 3, (0.5,) * 3, SIZE)
    assert not (tmp_path / "t.safetensors").exists()


def test_import_needs_torch_2_10() -> None:
    check_torch("2.10.0+cpu")
    check_torch("3.0")
    with pytest.raises(ImportError, match="torch >= 2.10 to read a .pth, found 2.9.1"):
        check_torch("2.9.1")
