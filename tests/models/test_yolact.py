"""YOLACT's network: priors, shapes, weights, and the checkpoint with its document."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import original_yolact
import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from graftsdk.errors import InputError, PlanCorrupt, PlanError, PlanVersionError
from graftsdk.models import Backbone, Branch, Trunk, Yolact, backbone, register_backbone
from graftsdk.models.yolact_layers import pyramid_taps
from graftsdk.plan.documents import Provenance, read_document
from graftsdk.plan.segmenter_document import SegmenterDocument
from graftsdk.plan.strict_json import dump_json, load_json

SIZE = (64, 96)
GOLDEN_DOCUMENT = (
    '{"arch":"resnet18","aspect_ratios":[1.0,0.5,2.0],"channels":8,"classes":["person","trolley"],'
    '"family":"yolact","input_size":[64,96],"kind":"segmenter","metrics":{"mask_ap50":0.5},"norm":false,"prototypes":4,'
    '"provenance":{"author":"","data":[],"licence":"CC0-1.0"},"scales":[2.0,4.0,8.0,16.0,32.0],'
    '"square_priors":false,"version":1,"width":0.25}'
)
# Of all weights of `small()`: the same on every machine and with every version of torch and NumPy.
GOLDEN_WEIGHTS = "604e2798624d0e6a7d6a2da1d46c92fdc00a6224609af8a6c6f9e8b36831280a"


def small(arch: str = "resnet18", **options: Any) -> Yolact:
    return Yolact.create(arch, SIZE, **{"width": 0.25, "channels": 8, "prototypes": 4, **options})


def on_meta(arch: str, size: tuple[int, int], **options: Any) -> Yolact:
    scales = options.pop("scales", (24.0, 48.0, 96.0, 192.0, 384.0))
    return Yolact(SegmenterDocument(arch, 1.0, size, scales, **options))


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """What `times` padded layers of stride 2 leave."""
    for _ in range(times):
        size = (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
    return size


@pytest.mark.parametrize(("arch", "millions"), [("resnet50", 31.2), ("resnet101", 50.2)])
def test_size_of_the_original(arch: str, millions: float) -> None:
    model = on_meta(arch, (550, 550), classes=tuple(f"class {i}" for i in range(80)))
    assert abs(sum(parameter.numel() for parameter in model.parameters()) / 1e6 - millions) < 0.05
    with torch.no_grad():
        found = model(torch.empty(2, 3, 550, 550, device="meta"))
    assert [tuple(each.shape) for each in found[:4]] == [
        (2, 19248, 4),
        (2, 19248, 81),
        (2, 19248, 32),
        (2, 138, 138, 32),
    ]
    assert found.semantic is None
    assert tuple(model.train()(torch.empty(2, 3, 550, 550, device="meta")).semantic.shape) == (2, 80, 69, 69)


@pytest.mark.parametrize(
    ("input_size", "size", "cells", "scales", "square"),
    [
        ((550, 550), None, [(69, 69), (35, 35), (18, 18), (9, 9), (5, 5)], (24, 48, 96, 192, 384), True),
        ((550, 550), None, [(69, 69), (35, 35), (18, 18), (9, 9), (5, 5)], (32, 64, 128, 256, 512), False),
        ((360, 640), None, [(45, 80), (23, 40), (12, 20), (6, 10), (3, 5)], (16, 32, 64, 128, 256), True),
        ((360, 640), (137, 75), [(18, 10), (9, 5), (5, 3), (3, 2), (2, 1)], (16, 32, 64, 128, 256), False),
    ],
)
def test_priors_by_three_loops(
    input_size: tuple[int, int],
    size: tuple[int, int] | None,
    cells: list[tuple[int, int]],
    scales: tuple[float, ...],
    square: bool,
) -> None:
    model = on_meta("resnet50", input_size, scales=scales, square_priors=square)
    expected = torch.tensor(original_yolact.priors(cells, scales, input_size, square=square))
    found = model.priors(size)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_priors_of_the_original() -> None:
    model = on_meta("resnet101", (550, 550))
    found = model.priors()
    assert found.shape == (19248, 4)
    assert [round(float(side) * 550, 2) for side in found[:3, 2]] == [24, 16.97, 33.94]
    assert torch.equal(found[:, 2], found[:, 3])
    assert found[0, :2].tolist() == pytest.approx([0.5 / 69, 0.5 / 69])
    assert found[3, :2].tolist() == pytest.approx([1.5 / 69, 0.5 / 69])  # along the row first
    assert float(found[-1, 2]) == pytest.approx(384 * math.sqrt(2) / 550)


@pytest.mark.parametrize(
    ("side", "scales"), [(550, (24, 48, 96, 192, 384)), (275, (12, 24, 48, 96, 192)), (1100, (48, 96, 192, 384, 768))]
)
def test_scales_follow_the_shorter_side(side: int, scales: tuple[float, ...]) -> None:
    assert Yolact.create("resnet18", (side, side + 80), width=0.25, channels=8).scales == pytest.approx(scales)


@pytest.mark.parametrize(
    ("arch", "width", "channels"),
    [
        ("resnet18", 0.5, 64),
        ("mobilenet_v3_large", 0.5, 64),
        ("mobilenet_v3_small", 0.5, 64),
    ],
)
def test_any_size_passes(arch: str, width: float, channels: int) -> None:
    model = Yolact.create(arch, SIZE, ("person", "dog"), width, channels, prototypes=6)
    for size in ((64, 97), (33, 131)):
        check_outputs(model.eval(), size)


def check_outputs(model: Yolact, size: tuple[int, int]) -> None:
    levels = [halved(size, times) for times in (3, 4, 5, 6, 7)]
    count = 3 * sum(rows * columns for rows, columns in levels)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model(x)
        alone = model(x[1:])
        assert not model.training
        semantic = model.train()(x).semantic
    rows, columns = levels[0]
    assert found.loc.shape == (2, count, 4)
    assert found.conf.shape == (2, count, 3)
    assert found.mask.shape == (2, count, 6)
    assert found.proto.shape == (2, 2 * rows, 2 * columns, 6)
    assert found.semantic is None
    assert semantic is not None
    assert semantic.shape == (2, 2, rows, columns)
    assert model.priors(size).shape == (count, 4)
    for whole, one in zip(found[:4], alone[:4], strict=True):
        assert torch.isfinite(whole).all()
        assert float(whole.std()) > 1e-4
        # Another batch may add in another order, and some hundred layers pass it on.
        assert float((whole[1:] - one).abs().max()) <= 1e-3 * float(one.abs().max())
    assert float(found.mask.abs().max()) <= 1
    assert float(found.proto.min()) >= 0


@pytest.mark.parametrize(
    ("arch", "taps"),
    [
        ("resnet18", (4, 6, 8)),
        ("resnet50", (7, 13, 16)),
        ("resnet101", (7, 30, 33)),
        ("mobilenet_v3_large", (6, 12, 16)),
        ("mobilenet_v3_small", (3, 8, 12)),
        ("inception_v3", (3, 8, 11)),
    ],
)
def test_where_backbones_are_tapped(arch: str, taps: tuple[int, ...]) -> None:
    assert pyramid_taps(backbone(arch)) == taps


def test_a_backbone_without_a_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftsdk.models.backbones._REGISTRY", {})
    stem = ("conv1", "bn1", "relu", "maxpool")
    build = partial(models.resnet18, weights=None)
    register_backbone(Backbone("shallow", build, stem, ("layer1.0", "layer1.1", "layer2.0", "layer2.1"), True))
    with pytest.raises(InputError, match=r"blocks at strides 8, 16 and 32, found 'shallow' without \[16, 32\]"):
        Yolact.create("shallow", SIZE)


def test_weights_are_golden_and_leave_the_generators_alone() -> None:
    before = torch.get_rng_state()
    digest = hashlib.sha256()
    for name, tensor in sorted(small().state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert torch.equal(torch.get_rng_state(), before)
    assert digest.hexdigest() == GOLDEN_WEIGHTS
    assert not torch.equal(small(seed=1).head.shared.weight, small().head.shared.weight)


def test_layers_outside_the_backbone_are_xavier_uniform() -> None:
    model = small(channels=256, prototypes=32)
    for name in ("fpn.smooth.0", "fpn.lateral.2", "proto.last", "head.conf"):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        area = layer.kernel_size[0] ** 2
        bound = math.sqrt(6 / ((layer.in_channels + layer.out_channels) * area))
        weight = layer.weight.detach()
        assert float(weight.abs().max()) == pytest.approx(bound, rel=0.01)
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_a_backbone_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = models.resnet18(weights=None).state_dict()
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(tensors, path)
    found = Yolact.create("resnet18", SIZE, channels=8, weights=path).backbone.state_dict()
    assert found.keys() == {name for name in tensors if not name.startswith("fc.")}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())
    with pytest.raises(InputError, match="width: expected 1 together with weights"):
        small(weights=path)
    with pytest.raises(PlanCorrupt, match=r"expected the tensor 'layer1\.0\.bn3\.bias'"):
        Yolact.create("resnet50", SIZE, weights=path)
    small().save(tmp_path / "own.safetensors")
    with pytest.raises(InputError, match="found the graftsdk checkpoint .*own.safetensors"):
        Yolact.create("resnet18", SIZE, weights=tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"arch": "vgg16"}, InputError, "arch: expected one of .*, found 'vgg16'"),
        ({"input_size": (31, 64)}, InputError, "input_size.0.: expected an integer from 32"),
        ({"input_size": 550}, InputError, "segmenter: expected input_size"),
        ({"input_size": (64, 64, 3), "scales": "abc"}, InputError, "scales"),
        ({"classes": "person"}, InputError, "found the text 'person'"),
        ({"classes": ()}, InputError, "classes: expected a list of 1 to 255"),
        ({"classes": ("dog", "Dog")}, InputError, "classes: expected different names"),
        ({"width": 0}, InputError, "width: expected a number from 0.001"),
        ({"width": 1.5}, InputError, "width"),
        ({"channels": 4}, InputError, "channels: expected an integer from 8 to 1024"),
        ({"channels": 64.0}, InputError, "channels"),
        ({"prototypes": 0}, InputError, "prototypes: expected an integer from 1 to 256"),
        ({"scales": (1, 2, 3)}, InputError, "scales: expected a list of 5 to 5"),
        ({"scales": (1, 2, 3, 4, math.nan)}, InputError, "scales"),
        ({"aspect_ratios": ()}, InputError, "aspect_ratios: expected a list of 1 to 16"),
        ({"aspect_ratios": (1, -1)}, InputError, "aspect_ratios"),
        ({"square_priors": 1}, InputError, "square_priors: expected true or false"),
        ({"seed": -1}, InputError, "seed"),
        ({"weights": "none.safetensors", "width": 1.0}, PlanError, "none.safetensors: expected a readable file"),
    ],
)
def test_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Yolact.create(**{"arch": "resnet18", "input_size": SIZE, "width": 0.25, "channels": 8, **options})


def test_a_segmenter_comes_back(tmp_path: Path) -> None:
    model = small("mobilenet_v3_small", width=0.5, classes=("person", "Kinderwagen für zwei"), aspect_ratios=(1, 3))
    model.metrics = {"mask_ap50": 0.25}
    model.provenance = Provenance("CC0-1.0", "Jörg", ("ab" * 32,))
    model.save(tmp_path / "s.safetensors")
    again = Yolact.load(tmp_path / "s.safetensors")
    assert again.document() == model.document() == again.skeleton().document()
    assert again.metrics == {"mask_ap50": 0.25}
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(again.priors(), model.priors())
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        assert all(torch.equal(one, two) for one, two in zip(model(x)[:4], again(x)[:4], strict=True))


def document() -> SegmenterDocument:
    return SegmenterDocument(
        arch="resnet18",
        width=0.25,
        input_size=SIZE,
        scales=(2.0, 4.0, 8.0, 16.0, 32.0),
        classes=("person", "trolley"),
        channels=8,
        prototypes=4,
        square_priors=False,
        metrics={"mask_ap50": 0.5},
        provenance=Provenance("CC0-1.0"),
    )


def test_document_is_golden() -> None:
    assert document().to_json() == GOLDEN_DOCUMENT
    assert read_document(GOLDEN_DOCUMENT, "file") == document()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kind": "detector"}, PlanCorrupt, "expected 'trunk', 'branch' or 'segmenter', found 'detector'"),
        ({"version": 2}, PlanVersionError, "expected document version 1, found 2"),
        ({"family": "yolo"}, PlanCorrupt, "family: expected one of yolact"),
        ({"arch": "../x"}, PlanCorrupt, "arch"),
        ({"width": 2}, PlanCorrupt, "width: expected a number from 0.001 to 1"),
        ({"channels": 2000}, PlanCorrupt, "channels: expected an integer from 8 to 1024"),
        ({"prototypes": 257}, PlanCorrupt, "prototypes"),
        ({"classes": ["a"] * 256}, PlanCorrupt, "classes: expected a list of 1 to 255"),
        ({"classes": ["a", "A"]}, PlanCorrupt, "classes: expected different names"),
        ({"classes": ["a\u202eb"]}, PlanCorrupt, "classes"),
        ({"input_size": [64]}, PlanCorrupt, "input_size: expected a list of 2 to 2"),
        ({"input_size": [64, 100000]}, PlanCorrupt, "input_size.1.: expected an integer from 32 to 4096"),
        ({"scales": [1, 2, 3, 4]}, PlanCorrupt, "scales"),
        ({"scales": [0, 2, 3, 4, 5]}, PlanCorrupt, "scales"),
        ({"aspect_ratios": [0]}, PlanCorrupt, "aspect_ratios"),
        ({"square_priors": "no"}, PlanCorrupt, "square_priors: expected true or false"),
        ({"metrics": {"ap": "high"}}, PlanCorrupt, "metrics"),
        ({"provenance": None}, PlanCorrupt, "provenance"),
        ({"temperature": 1}, PlanCorrupt, "unknown field 'temperature'"),
    ],
)
def test_document_is_strict(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_document(dump_json(load_json(GOLDEN_DOCUMENT, "file") | change), "file")


@pytest.mark.parametrize("field", sorted(load_json(GOLDEN_DOCUMENT, "file").keys() - {"kind"}))
def test_document_lacks_nothing(field: str) -> None:
    fields = load_json(GOLDEN_DOCUMENT, "file")
    del fields[field]
    with pytest.raises(PlanCorrupt, match=f"field '{field}' is missing"):
        read_document(dump_json(fields), "file")


def write(path: Path, found: SegmenterDocument, tensors: dict[str, torch.Tensor]) -> Path:
    safetensors.torch.save_file(tensors, path, metadata={"graftsdk": found.to_json()})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "vgg16"}, "arch: expected one of"),
        ({"width": 0.5}, r"expected shape \[32, 3, 7, 7\], found \[16, 3, 7, 7\]"),
        ({"channels": 16}, r"fpn.lateral.0.weight: expected shape \[16, 32, 1, 1\]"),
        ({"prototypes": 8}, r"proto.last.weight: expected shape \[8, 8, 1, 1\]"),
        ({"classes": ("person",)}, r"head.conf.weight: expected shape \[6, 8, 3, 3\]"),
    ],
)
def test_weights_that_are_not_the_documents(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    tensors = small(classes=("person", "trolley")).state_dict()
    Yolact.load(write(tmp_path / "good.safetensors", document(), tensors))
    with pytest.raises(PlanCorrupt, match=f"bad.safetensors: .*{message}"):
        Yolact.load(write(tmp_path / "bad.safetensors", replace(document(), **change), tensors))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("semantic.bias", None, "expected the tensor 'semantic.bias'"),
        ("more", torch.zeros(1), "expected only the tensors of its architecture, found 'more'"),
        ("semantic.bias", torch.tensor([0.0, math.nan]), "semantic.bias: expected finite values"),
        ("semantic.bias", torch.zeros(2, dtype=torch.float64), "semantic.bias: expected torch.float32"),
    ],
)
def test_damaged_weights(name: str, value: torch.Tensor | None, message: str, tmp_path: Path) -> None:
    tensors = small(classes=("person", "trolley")).state_dict()
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    with pytest.raises(PlanCorrupt, match=message):
        Yolact.load(write(tmp_path / "bad.safetensors", document(), tensors))


def test_nothing_that_no_reader_takes_is_written(tmp_path: Path) -> None:
    model = small()
    model.metrics = {"mask_ap50": math.nan}
    with pytest.raises(InputError, match="cannot be saved"):
        model.save(tmp_path / "s.safetensors")
    model.metrics = {}
    with torch.no_grad():
        model.state_dict()["semantic.bias"].fill_(math.inf)
    with pytest.raises(InputError, match="semantic.bias: expected finite values"):
        model.save(tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())


def test_each_kind_of_checkpoint_says_where_it_belongs(tmp_path: Path) -> None:
    trunk = Trunk.create("resnet18", (64, 64), width=0.25)
    trunk.save(tmp_path / "trunk.safetensors")
    Branch.create(trunk, "hat", tap=8).save(tmp_path / "hat.safetensors")
    small().save(tmp_path / "segmenter.safetensors")
    with pytest.raises(PlanCorrupt, match="expected a segmenter, found a trunk .resnet18.; it is for --trunk"):
        Yolact.load(tmp_path / "trunk.safetensors")
    with pytest.raises(PlanCorrupt, match="expected a segmenter, found the branch 'hat'; it is for --branches"):
        Yolact.load(tmp_path / "hat.safetensors")
    belongs = "found a segmenter .yolact, resnet18.; it is for --segmenter or Yolact.load"
    with pytest.raises(PlanCorrupt, match=f"expected a trunk, {belongs}"):
        Trunk.load(tmp_path / "segmenter.safetensors")
    with pytest.raises(PlanCorrupt, match=f"expected a branch, {belongs}"):
        Branch.load(tmp_path / "segmenter.safetensors")
