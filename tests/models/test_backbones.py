"""Backbones against torchvision's own forward, and the registry."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from graftsdk.errors import ImageTooSmall, InputError
from graftsdk.models import Backbone, Trunk, backbone, register_backbone, registered_backbones
from graftsdk.models.structure import least_size, least_square

ARCHS = {
    # arch: torchvision's network, least square input used here, B, what is left of its forward after tap B
    "inception_v3": (
        partial(models.inception_v3, weights=None, aux_logits=False, transform_input=False, init_weights=False),
        75,
        11,
    ),
    "resnet18": (partial(models.resnet18, weights=None), 64, 8),
    "resnet50": (partial(models.resnet50, weights=None), 64, 16),
    "resnet101": (partial(models.resnet101, weights=None), 64, 33),
    "mobilenet_v3_large": (partial(models.mobilenet_v3_large, weights=None), 64, 16),
    "mobilenet_v3_small": (partial(models.mobilenet_v3_small, weights=None), 64, 12),
}


def crops(count: int, size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    coarse = torch.randn(count, 3, 6, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size, mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 3, *size, generator=generator)


@pytest.mark.parametrize("arch", ARCHS)
def test_scores_and_blocks_are_torchvisions(arch: str) -> None:
    build, side, count = ARCHS[arch]
    trunk = Trunk.create(arch, (side, side + 10), seed=3)
    network = build().eval()
    own = trunk.state_dict()
    missing, unexpected = network.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(name.startswith(("fc.", "classifier.")) for name in missing)
    x = crops(2, (side, side + 10))
    names = backbone(arch).blocks
    with torch.no_grad():
        taps = trunk.taps(x)
        expected = create_feature_extractor(network, list(names))(x)
        classes = network(x)
        for k, name in enumerate(names, start=1):
            assert torch.equal(taps[k], expected[name])
            assert tuple(taps[k].shape[1:]) == trunk.tap_shape(k)
        head = network.fc if hasattr(network, "fc") else network.classifier
        assert torch.equal(head(torch.flatten(nn.functional.adaptive_avg_pool2d(trunk(x), 1), 1)), classes)
    assert len(trunk.blocks) == count == len(taps) - 1
    assert torch.equal(trunk.tap(x, 1), taps[1])
    assert not trunk.training


@pytest.mark.parametrize("arch", sorted(ARCHS.keys() - {"inception_v3"}))
def test_damped_layers_close_every_residual_branch(arch: str) -> None:
    expected = set()
    for name, module in ARCHS[arch][0]().named_modules():
        if isinstance(module, BasicBlock):
            expected.add(f"{name}.bn2")
        elif isinstance(module, Bottleneck):
            expected.add(f"{name}.bn3")
        elif isinstance(module, InvertedResidual) and module.use_res_connect:
            expected.add(f"{name}.block.{len(module.block) - 1}.1")
    assert set(backbone(arch).damped) == expected


@pytest.mark.parametrize("arch", ["inception_v3", "resnet18", "mobilenet_v3_large", "mobilenet_v3_small"])
def test_signs_of_taps(arch: str) -> None:
    trunk = Trunk.create(arch, (75, 75), width=0.25)
    with torch.no_grad():
        least = min(float(tap.min()) for tap in trunk.taps(crops(2, (75, 75)))[1:])
    assert (least >= 0) == backbone(arch).nonnegative


def test_least_inputs_of_inception_v3() -> None:
    found = backbone("inception_v3")
    assert least_size(found) == (75, 75)
    # 8n+19 up to 5d, 16n+27 for 6a..6e, 32n+43 for 7a..7c
    table = [(1, 1, 27), (4, 2, 59), (8, 100, 187), (9, 2, 107)]
    assert [least_square(found, until, cells) for until, cells, _ in table] == [side for *_, side in table]
    assert Trunk.create("inception_v3", (75, 80), width=0.25).tap_shape(11) == (512, 1, 1)
    for size in ((74, 299), (299, 74)):
        with pytest.raises(ImageTooSmall, match=rf"at least 75x75 \(HxW\), found {size[0]}x{size[1]}"):
            Trunk.create("inception_v3", size, width=0.25)


def test_registry() -> None:
    assert registered_backbones()[:1] <= ("inception_v3",)
    with pytest.raises(
        InputError, match="expected one of inception_v3, mobilenet_v3_large, mobilenet_v3_small, resnet101, resnet18"
    ):
        backbone("vgg16")
    known = backbone("resnet18")
    assert register_backbone(known) is known
    with pytest.raises(InputError, match="registered already"):
        register_backbone(Backbone("resnet18", known.build, known.stem, known.blocks[:2], True))
    with pytest.raises(InputError, match="backbone name"):
        register_backbone(Backbone("Res Net", known.build, known.stem, known.blocks, True))
    with pytest.raises(InputError, match="each module once"):
        register_backbone(Backbone("twice", known.build, known.stem, known.blocks + known.blocks[:1], True))
    with pytest.raises(InputError, match="1 to 256 blocks"):
        register_backbone(Backbone("none", known.build, known.stem, (), True))


def test_a_name_that_the_network_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftsdk.models.backbones._REGISTRY", {})
    register_backbone(Backbone("wrong", partial(models.resnet18, weights=None), ("conv1",), ("layer9.0",), True))
    with pytest.raises(InputError, match="layer9"):
        Trunk.create("wrong", (64, 64))
