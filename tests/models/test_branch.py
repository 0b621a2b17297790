"""Making branches: arguments, names of weights, and that the trunk stays as it is."""

from __future__ import annotations

import pytest
import torch

from graftsdk.errors import InputError
from graftsdk.models import Branch, Trunk

SIZE = (64, 64)


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return Trunk.create("resnet18", SIZE, width=0.25)


def test_defaults_and_document(trunk: Trunk) -> None:
    branch = Branch.create(trunk, label="child", tap=6, seed=1)
    assert (branch.label, branch.classes, branch.tap, branch.until) == ("child", ("no", "yes"), 6, 8)
    assert (branch.pooling, branch.width, branch.thresholds, branch.temperature) == ("gap", 1.0, {}, 1.0)
    assert branch.trunk_fingerprint == trunk.fingerprint(6)
    assert not branch.training
    document = branch.document()
    assert (document.arch, document.trunk_width, document.crop) == ("resnet18", 0.25, trunk.crop)
    assert branch(trunk.tap(torch.randn(3, 3, *SIZE), 6)).shape == (3, 2)


@pytest.mark.parametrize(("tap", "until", "own"), [(8, None, 0), (3, 3, 0), (0, 0, 0), (0, 8, 8), (5, 7, 2)])
def test_own_blocks(trunk: Trunk, tap: int, until: int | None, own: int) -> None:
    branch = Branch.create(trunk, "age", ("youth", "middle", "other"), tap=tap, until=until)
    last = 8 if until is None else until
    names = trunk.backbone.blocks[tap:last]
    assert len(names) == own
    expected = (
        {key for key in trunk.state_dict() if key.startswith(tuple(f"{name}." for name in names))} if own else set()
    )
    assert set(branch.state_dict()) == expected | {"classifier.weight", "classifier.bias"}
    x = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        pooled = trunk.tap(x, last).mean((2, 3))
        logits = branch(trunk.tap(x, tap))
    assert torch.equal(logits, torch.nn.functional.linear(pooled, branch.classifier.weight, branch.classifier.bias))
    assert logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tap": 7, "until": 6}, "tap: expected at most until = 6, found 7"),
        ({"tap": 9}, "tap: expected an integer from 0 to 8"),
        ({"tap": -1}, "tap: expected an integer from 0 to 8"),
        ({"tap": 1, "until": 9}, "until: expected an integer from 0 to 8"),
        ({"label": ""}, "label and class names"),
        ({"label": 5}, "expected a text as label"),
        ({"classes": "no"}, "a list of texts as classes, found 'hat' and 'no'"),
        ({"label": "a\u202eb"}, "hidden characters"),
        ({"classes": ("yes",)}, "2 to 64 classes, found 1"),
        ({"classes": ("Yes", "yes")}, "different names"),
        ({"classes": tuple(map(str, range(65)))}, "2 to 64 classes, found 65"),
        ({"pooling": "max9"}, "pooling: expected one of"),
        ({"width": 0}, "width: expected a number"),
        ({"init": "zeros"}, "init: expected 'trunk' or 'random'"),
        ({"seed": 1.5}, "seed: expected an integer"),
    ],
)
def test_refusals(trunk: Trunk, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Branch.create(trunk, **({"label": "hat", "tap": 6} | options))  # type: ignore[arg-type]


def test_init_and_seed(trunk: Trunk) -> None:
    def key(branch: Branch, name: str) -> torch.Tensor:
        return branch.state_dict()[name]

    one, two = Branch.create(trunk, "hat", tap=6, seed=1), Branch.create(trunk, "hat", tap=6, seed=2)
    assert torch.equal(key(one, "layer4.0.conv1.weight"), trunk.state_dict()["layer4.0.conv1.weight"])
    assert not torch.equal(key(one, "classifier.weight"), key(two, "classifier.weight"))
    fresh = [Branch.create(trunk, "hat", tap=6, init="random", seed=seed, width=0.5) for seed in (1, 1, 2)]
    first, again, other = (key(branch, "layer4.0.conv1.weight") for branch in fresh)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert key(fresh[0], "layer4.1.bn2.weight").unique().tolist() == [0.5]


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_training_a_branch_leaves_the_trunk(width: float) -> None:
    trunk = Trunk.create("resnet18", SIZE, width=0.5)
    trunk.requires_grad_(False)
    before = trunk.document().fingerprints
    branch = Branch.create(trunk, "hat", tap=4, pooling="gap", width=width)
    assert all(parameter.requires_grad for parameter in branch.parameters())
    branch.train()
    optimiser = torch.optim.SGD(branch.parameters(), lr=1.0)
    weights = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    with torch.no_grad():
        taps = trunk.tap(100 * torch.randn(4, 3, *SIZE) + 50, 4)  # a wildly shifted batch
    torch.nn.functional.cross_entropy(branch(taps), torch.tensor([0, 1, 0, 1])).backward()
    optimiser.step()
    moved = [name for name, tensor in branch.state_dict().items() if not torch.equal(tensor, weights[name])]
    assert "layer3.0.bn1.running_mean" in moved
    assert "layer3.0.conv1.weight" in moved
    assert trunk.document().fingerprints == before
    assert branch.trunk_fingerprint == before[4]


def test_no_tensor_is_shared() -> None:
    trunk = Trunk.create("mobilenet_v3_large", SIZE, width=0.25)
    owned = {tensor.data_ptr() for tensor in trunk.state_dict().values() if tensor.numel()}
    for width in (1.0, 0.5):
        branch = Branch.create(trunk, "hat", tap=4, width=width)
        assert not owned & {tensor.data_ptr() for tensor in branch.state_dict().values()}
