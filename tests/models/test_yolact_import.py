"""The original's checkpoints: the mapping proved on state dicts in its own layout, and files that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import original_yolact
import pytest
import torch

from graftsdk.errors import GraftError, InputError, PlanCorrupt, PlanLimitError, PlanPathError, UnsupportedOp
from graftsdk.models import Yolact, import_yolact
from graftsdk.models.yolact_import import _original
from graftsdk.plan.segmenter_document import SegmenterDocument
from graftsdk.segment.demo import demo_segmenter

Tensors = dict[str, torch.Tensor]
LOC = "prediction_layers.0.bbox_layer.weight"
CONF = "prediction_layers.0.conf_layer.weight"


@pytest.mark.parametrize("arch", ["resnet50", "resnet101"])
def test_every_key_and_shape_is_the_originals(arch: str) -> None:
    scales = (24.0, 48.0, 96.0, 192.0, 384.0)
    names = tuple(f"class {i}" for i in range(80))
    own = Yolact(SegmenterDocument(arch, 1.0, (550, 550), scales, names)).state_dict()
    found = {_original(name): tuple(tensor.shape) for name, tensor in own.items()}
    assert found == original_yolact.shapes(arch)
    assert len(found) == len(own)


def test_the_forward_pass_is_the_originals(tmp_path: Path) -> None:
    """In float64, where the order of additions leaves 1e-12 of a value: a layer in another's place changes all of it.

    The size is small, odd and not square: cells 10 x 13, 5 x 7, 3 x 4, 2 x 2, 1 x 1.
    """
    state = original_yolact.filled(classes=3)
    torch.save(state, tmp_path / "original.pth")
    written = import_yolact(tmp_path / "original.pth", tmp_path / "s.safetensors", ["a", "b", "c"])
    model = Yolact.load(tmp_path / "s.safetensors").double()
    assert model.document() == written.document()
    x = torch.randn(1, 3, 74, 102, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        expected = original_yolact.forward({name: tensor.double() for name, tensor in state.items()}, x)
        found = model(x)._asdict()
        # The head that only the loss reads is run in train mode, where BatchNorm would not do the same.
        found["semantic"] = model.semantic(model.fpn(model.backbone(x))[0])
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert float(values.std()) > 1e-3
        assert float((found[name] - values).abs().max()) < 1e-9 * float(values.abs().max()), name
    assert found["loc"].shape == (1, 3 * (10 * 13 + 5 * 7 + 3 * 4 + 2 * 2 + 1), 4)


def hollow_file(path: Path, change: Callable[[Tensors], Any] = lambda tensors: None, classes: int = 80) -> Path:
    tensors = original_yolact.hollow(classes=classes)
    change(tensors)
    torch.save(tensors, path)
    return path


def test_a_file_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old torch's format, the backbone twice, downsampling layers that nothing reads, no counters."""

    def age(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith("backbone.layers.")]:
            tensors[name.replace("layers.0", "layer1").replace("layers.1", "layer2")] = tensors[name]
        for name in [name for name in tensors if name.endswith("num_batches_tracked")]:
            del tensors[name]
        for index in (2, 3):
            tensors[f"fpn.downsample_layers.{index}.weight"] = torch.zeros(256, 256, 3, 3)
            tensors[f"fpn.downsample_layers.{index}.bias"] = torch.zeros(256)

    monkeypatch.setattr(Yolact, "save", lambda self, path: None)  # 120 MB that nobody reads
    tensors = original_yolact.hollow()
    age(tensors)
    torch.save(tensors, tmp_path / "v1.pth", _use_new_zipfile_serialization=False)
    model = import_yolact(tmp_path / "v1.pth", tmp_path / "s.safetensors", size=700)
    found = model.document()
    assert (found.arch, found.width, found.channels, found.prototypes) == ("resnet50", 1.0, 256, 32)
    assert (found.input_size, found.scales) == ((700, 700), (30, 61, 122, 244, 488))
    assert (found.aspect_ratios, found.square_priors) == ((1, 0.5, 2), True)
    assert len(found.classes) == 80
    assert [found.classes[i] for i in (0, 1, 15, 24, 39, 56, 79)] == [
        "person",
        "bicycle",
        "cat",
        "backpack",
        "bottle",
        "chair",
        "toothbrush",
    ]
    assert set(model.state_dict()) == set(model.skeleton().state_dict())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("options", "scales"),
    [
        ({}, (24, 48, 96, 192, 384)),
        ({"size": 400}, (17, 34, 69, 139, 279)),
        ({"scales": (32, 64, 128, 256, 512), "square_priors": False}, (32, 64, 128, 256, 512)),
    ],
)
def test_sizes_and_scales(
    options: dict[str, Any], scales: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Yolact, "save", lambda self, path: None)  # 120 MB that nobody reads
    source = hollow_file(tmp_path / "w.pth", classes=1)
    found = import_yolact(source, tmp_path / "s.safetensors", ["person"], **options).document()
    assert found.input_size == (options.get("size", 550),) * 2
    assert found.scales == pytest.approx(scales)
    assert found.square_priors == options.get("square_priors", True)


def drop(*names: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(names)]:
            del tensors[name]

    return change


def put(name: str, tensor: torch.Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: tensor})


def only(**tensors: torch.Tensor) -> Callable[[Tensors], None]:
    def change(found: Tensors) -> None:
        found.clear()
        found.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (drop("fpn.lat_layers.1.bias"), PlanCorrupt, "expected the tensor 'fpn.lat_layers.1.bias', found none"),
        (drop("semantic_seg_conv"), PlanCorrupt, "expected the tensor 'semantic_seg_conv.bias'"),
        (drop("backbone.layers.2.5."), PlanCorrupt, "expected 6 or 23 blocks backbone.layers.2.*, found 5"),
        (drop("backbone."), PlanCorrupt, "ResNet-50 or ResNet-101.*, found 0"),
        (drop("proto_net"), PlanCorrupt, "expected the state dict of YOLACT"),
        (put("backbone.fc.weight", torch.zeros(1)), PlanCorrupt, "found 'backbone.fc.weight'"),
        (put("prediction_layers.1.bbox_layer.weight", torch.zeros(1)), PlanCorrupt, "'prediction_layers.1.bbox_layer"),
        (put("proto_net.10.bias", torch.zeros(64)), PlanCorrupt, r"proto_net.10.bias: expected shape \[32\], found"),
        (put("proto_net.10.bias", torch.zeros(32).half()), PlanCorrupt, "proto_net.10.bias: expected torch.float32"),
        (
            put("fpn.pred_layers.0.bias", torch.full((256,), torch.nan)),
            PlanCorrupt,
            "fpn.pred_layers.0.bias: expected finite values",
        ),
        (put(LOC, torch.zeros(20, 256, 3, 3)), PlanCorrupt, "expected 12 rows, 3 aspect ratios, found 20"),
        (put(LOC, torch.zeros(())), PlanCorrupt, "expected 12 rows, 3 aspect ratios, found 0"),
        (put(CONF, torch.zeros(82, 256, 3, 3)), PlanCorrupt, "expected 3 rows for the background"),
        (put(CONF, torch.zeros(3, 256, 3, 3)), PlanCorrupt, "found 3 rows"),
        (put(LOC, torch.zeros(36, 256, 3, 3)), UnsupportedOp, r"expected YOLACT, found YOLACT\+\+"),
        (
            put("backbone.layers.1.0.conv2.conv_offset_mask.weight", torch.zeros(27, 128, 3, 3)),
            UnsupportedOp,
            r"found YOLACT\+\+, whose deformable",
        ),
        (put("maskiou_net.0.weight", torch.zeros(8, 1, 3, 3)), UnsupportedOp, r"found YOLACT\+\+"),
        (put("backbone._preconv.0.weight", torch.zeros(32, 3, 3, 3)), UnsupportedOp, "found Darknet-53"),
        (
            only(conv1__weight=torch.zeros(64, 3, 7, 7), fc__bias=torch.zeros(1000)),
            PlanCorrupt,
            "found tensors like 'conv1.weight', 'fc.bias'; torchvision's weights are for graftsdk import torchvision",
        ),
        (only(**{"model__0__conv__weight": torch.zeros(1)}), PlanCorrupt, "found tensors like 'model.0.conv.weight'"),
        (put("x", torch.zeros(()).expand(2**20, 2**20)), PlanLimitError, "bytes of tensors"),
        (put("x", torch.empty(3, device="meta")), PlanCorrupt, "expected names with dense tensors, found 'x'"),
    ],
)
def test_other_weights_are_refused(
    change: Callable[[Tensors], None], error: type[GraftError], message: str, tmp_path: Path
) -> None:
    source = hollow_file(tmp_path / "w.pth", change)
    with pytest.raises(error, match=f"w.pth: .*{message}"):
        import_yolact(source, tmp_path / "s.safetensors")
    assert [item.name for item in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (20, {}, "expected the names of the 20 classes of .*w.pth, found none; only those of COCO, 80"),
        (80, {"classes": ["person"]}, "expected the names of the 80 classes of .*, found 1"),
        (2, {"classes": ["a", "b", "c"]}, "expected the names of the 2 classes of .*, found 3"),
        (1, {"classes": "person"}, "expected a list of names, found the text 'person'"),
        (2, {"classes": ["a", "A"]}, "classes: expected different names"),
        (1, {"classes": ["person"], "size": 16}, "input_size"),
        (1, {"classes": ["person"], "size": 550.0}, "input_size"),
        (1, {"classes": ["person"], "scales": (1, 2)}, "scales: expected a list of 5"),
    ],
)
def test_wrong_arguments(classes: int, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = hollow_file(tmp_path / "w.pth", classes=classes)
    with pytest.raises(InputError, match=message):
        import_yolact(source, tmp_path / "s.safetensors", **options)
    assert not (tmp_path / "s.safetensors").exists()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(zipped: bool, tmp_path: Path) -> None:
    content = {**original_yolact.hollow(), "backbone.bn1.bias": Bomb(tmp_path / "mark")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(PlanCorrupt, match="weights_only=True"):
        import_yolact(tmp_path / "w.pth", tmp_path / "s.safetensors")
    assert [item.name for item in tmp_path.iterdir()] == ["w.pth"]


def test_a_checkpoint_of_ours_is_no_pth(tmp_path: Path) -> None:
    with pytest.raises(PlanCorrupt, match="found a safetensors file: it needs no import"):
        import_yolact(demo_segmenter(), tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    whole = hollow_file(tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    for name in ("text.pth", "list.pth", "half.pth"):
        with pytest.raises(PlanCorrupt, match=f"{name}: expected a"):
            import_yolact(tmp_path / name, tmp_path / "s.safetensors")
    for name in ("none.pth", "."):
        with pytest.raises(PlanPathError):
            import_yolact(tmp_path / name, tmp_path / "s.safetensors")
    assert not (tmp_path / "s.safetensors").exists()
