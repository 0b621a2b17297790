"""Width: the rule, and which channels a narrow block takes from the full one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidual

from graftsdk.errors import InputError, UnsupportedOp
from graftsdk.models import Branch, Trunk
from graftsdk.models.narrow import Channels, check_width, narrow_block, narrow_channels

SIZE = (75, 75)


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [
        (768, 1.0, 768),
        (80, 1.0, 80),
        (768, 0.25, 192),
        (192, 0.5, 96),
        (80, 0.25, 16),  # 1.25 + 0.5 -> 1
        (96, 0.25, 32),  # 1.5 + 0.5 -> 2: a half goes up
        (40, 0.25, 16),  # at least 16
        (448, 0.3, 128),  # 8.4 + 0.5 -> 8
        (8, 0.5, 8),  # what has fewer than 16 keeps them
        (16, 0.001, 16),
        (28, 0.95, 28),  # never more than there are
    ],
)
def test_rule(channels: int, width: float, expected: int) -> None:
    assert narrow_channels(channels, width) == expected


@pytest.mark.parametrize("width", [0, 0.0, -0.5, 1.01, float("nan"), float("inf"), True, "0.5", None])
def test_width_out_of_range(width: object) -> None:
    with pytest.raises(InputError, match="width: expected a number from 0.001 to 1"):
        check_width(width)  # type: ignore[arg-type]


def trained(trunk: Trunk) -> Trunk:
    """Different BatchNorm values in every channel, so that a wrong slice shows."""
    generator = torch.Generator().manual_seed(9)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.fill_(7)
    return trunk


def assert_cut(narrow: nn.Module, full: nn.Module, conv: str, norm: str, rows: list[int], columns: list[int]) -> None:
    weight = full.get_submodule(conv).weight[rows][:, columns]  # type: ignore[index]
    assert torch.equal(narrow.get_submodule(conv).weight, weight)  # type: ignore[arg-type]
    for name, tensor in full.get_submodule(norm).state_dict().items():
        expected = tensor if tensor.ndim == 0 else tensor[rows]
        assert torch.equal(narrow.get_submodule(norm).state_dict()[name], expected)


def test_inception_block_keeps_first_channels_of_every_piece() -> None:
    trunk = trained(Trunk.create("inception_v3", SIZE))
    branch = Branch.create(trunk, "hat", tap=0, until=2, width=0.5)
    first, second = branch.get_submodule("Mixed_5b"), branch.get_submodule("Mixed_5c")
    full_first, full_second = trunk.blocks[0], trunk.blocks[1]
    whole = list(range(192))
    # Mixed_5b: 192 -> 64 + 64 + 96 + 32; its first layers read the full tap
    assert_cut(first, full_first, "branch1x1.conv", "branch1x1.bn", list(range(32)), whole)
    assert_cut(first, full_first, "branch_pool.conv", "branch_pool.bn", list(range(16)), whole)
    assert_cut(first, full_first, "branch5x5_1.conv", "branch5x5_1.bn", list(range(32)), whole)  # 48 -> 24 -> 32
    assert_cut(first, full_first, "branch5x5_2.conv", "branch5x5_2.bn", list(range(32)), list(range(32)))
    assert_cut(first, full_first, "branch3x3dbl_3.conv", "branch3x3dbl_3.bn", list(range(48)), list(range(48)))
    # what Mixed_5c reads: the first channels of each of the four pieces
    columns = [*range(32), *range(64, 96), *range(128, 176), *range(224, 240)]
    assert_cut(second, full_second, "branch1x1.conv", "branch1x1.bn", list(range(32)), columns)
    assert_cut(second, full_second, "branch3x3dbl_1.conv", "branch3x3dbl_1.bn", list(range(32)), columns)
    assert branch.pool.features == 32 + 32 + 48 + 32  # pool_features 64 -> 32


def test_residual_block_gets_a_projection_that_selects() -> None:
    trunk = trained(Trunk.create("resnet18", SIZE))
    branch = Branch.create(trunk, "hat", tap=1, until=4, width=0.25)
    block, full = branch.get_submodule("layer1.1"), trunk.blocks[1]
    few = list(range(16))
    assert_cut(block, full, "conv1", "bn1", few, list(range(64)))
    assert_cut(block, full, "conv2", "bn2", few, few)
    projection = block.get_submodule("projection").weight
    assert torch.equal(projection[:, :, 0, 0], torch.eye(64)[:16])  # type: ignore[index]
    x = trunk.tap(torch.randn(2, 3, *SIZE), 1)
    inner = nn.functional.relu(block.get_submodule("bn1")(block.get_submodule("conv1")(x)))
    inner = block.get_submodule("bn2")(block.get_submodule("conv2")(inner))
    assert torch.equal(block(x), nn.functional.relu(inner + x[:, :16]))
    # downsample: a shortcut with layers of its own needs no projection
    strided, full_strided = branch.get_submodule("layer2.0"), trunk.blocks[2]
    assert_cut(strided, full_strided, "downsample.0", "downsample.1", list(range(32)), few)
    projections = [name for name, _ in branch.named_parameters() if "projection" in name]
    assert projections == ["layer1.1.projection.weight"]


def test_inverted_residual_with_squeeze_and_excitation() -> None:
    trunk = trained(Trunk.create("mobilenet_v3_large", SIZE))
    branch = Branch.create(trunk, "hat", tap=4, until=6, width=0.5)
    block, full = branch.get_submodule("features.5"), trunk.blocks[4]
    assert isinstance(full, InvertedResidual)
    # 40 -> 120 -> depthwise 5x5 -> squeeze 32 -> 40; at 0.5: 64, 16 and 16 (40 * 0.5 / 16 = 1.25), shortcut 40 -> 16
    expanded, out = list(range(64)), list(range(16))
    assert narrow_channels(120, 0.5) == 64
    assert_cut(block, full, "block.0.0", "block.0.1", expanded, list(range(40)))
    assert_cut(block, full, "block.1.0", "block.1.1", expanded, [0])
    assert block.get_submodule("block.1.0").groups == 64
    for name, rows, columns in (("block.2.fc1", list(range(16)), expanded), ("block.2.fc2", expanded, list(range(16)))):
        layer, whole = block.get_submodule(name), full.get_submodule(name)
        assert torch.equal(layer.weight, whole.weight[rows][:, columns])  # type: ignore[arg-type,index]
        assert torch.equal(layer.bias, whole.bias[rows])  # type: ignore[arg-type,index]
    assert_cut(block, full, "block.3.0", "block.3.1", out, expanded)
    assert torch.equal(block.get_submodule("projection").weight[:, :, 0, 0], torch.eye(40)[:16])  # type: ignore[index]


def test_width_1_is_a_plain_copy() -> None:
    trunk = Trunk.create("resnet18", SIZE)
    branch = Branch.create(trunk, "hat", tap=6)
    for name in ("layer4.0", "layer4.1"):
        assert type(branch.get_submodule(name)) is type(trunk.get_submodule(name))
        for key, tensor in branch.get_submodule(name).state_dict().items():
            whole = trunk.get_submodule(name).state_dict()[key]
            assert torch.equal(tensor, whole)
            assert tensor.data_ptr() != whole.data_ptr()


def test_branch_width_is_relative_to_a_narrow_trunk() -> None:
    trunk = Trunk.create("resnet18", SIZE, width=0.5)
    branch = Branch.create(trunk, "hat", tap=6, width=0.5)
    assert trunk.channels(8) == 256
    assert branch.pool.features == 128
    assert branch.get_submodule("layer4.0.conv1").weight.shape == (128, 128, 3, 3)  # reads the trunk's full tap 6


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Reshaping(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class OtherAxis(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], 2)


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (Grouped(), "found 4 groups of 32 -> 32 channels"),
        (Reshaping(), "found call_method flatten"),
        (Normalised(), "found GroupNorm"),
        (OtherAxis(), "found call_function"),
        (nn.Linear(3, 4), "found Linear"),
    ],
)
def test_what_cannot_be_narrowed_is_refused(block: nn.Module, found: str) -> None:
    with pytest.raises(UnsupportedOp, match=f"{found}.*use width=1"):
        narrow_block(block, Channels.all(32), 0.5)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.relu(self.conv(x)))


def test_one_layer_called_twice() -> None:
    narrow, channels = narrow_block(Twice(), Channels.first(16, 32), 0.5)
    assert channels == Channels.first(16, 32)
    assert narrow(torch.zeros(1, 16, 2, 2)).shape == (1, 16, 2, 2)
    with pytest.raises(UnsupportedOp, match="found call_module conv"):  # its two inputs have other channels
        narrow_block(Twice(), Channels.all(32), 0.5)
