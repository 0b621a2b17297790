"""Only the heads that are asked for are in the graph: the others neither move nor decay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from graftsdk.models import Trunk
from graftsdk.plan import CropSpec
from graftsdk.training.trunk.network import (
    DynamicGraph,
    dynamic_loss,
    low_precision_blocks,
    new_optimizer,
    set_momentum,
)
from graftsdk.training.trunk.options import TrunkOptions

CROP = CropSpec((64, 32))


@pytest.fixture
def graph():
    return DynamicGraph(Trunk.create("resnet18", width=0.1, crop=CROP), [2, 3, 2], seed=0).train()


def step(graph, optimizer, tasks, batch=2):
    crops = torch.randn(batch * len(tasks), 3, 64, 32, generator=torch.Generator().manual_seed(0))
    logits = graph(crops, [(task, batch) for task in tasks])
    loss = dynamic_loss(logits, [torch.zeros(batch, dtype=torch.int64) for _ in tasks], 0.05)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_idle_heads_neither_move_nor_decay(graph, optimizer):
    found = new_optimizer(graph, TrunkOptions(steps=1, optimizer=optimizer, weight_decay=0.5, learning_rate=0.1))
    step(graph, found, [0, 1, 2])  # all have momentum now
    before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    for _ in range(3):
        step(graph, found, [1])
    after = graph.state_dict()
    idle = [name for name in before if name.startswith(("heads.0.", "heads.2."))]
    assert len(idle) == 4 and all(torch.equal(before[name], after[name]) for name in idle)
    assert graph.heads[0].weight.grad is None and graph.heads[1].weight.grad is not None
    moved = [name for name in before if name.startswith(("heads.1.", "trunk."))]
    assert moved and not any(torch.equal(before[name], after[name]) for name in moved)


def test_with_gradients_of_zero_they_would_move(graph):
    """What the test above stands on: momentum and decay act where a gradient is 0, not where it is None."""
    found = new_optimizer(graph, TrunkOptions(steps=1, weight_decay=0.5, learning_rate=0.1))
    step(graph, found, [0])
    before = graph.heads[0].weight.clone()
    graph.heads[0].weight.grad = torch.zeros_like(before)
    found.step()
    assert not torch.equal(before, graph.heads[0].weight)


def test_nothing_decays_but_weights_of_convolutions_and_heads(graph):
    found = new_optimizer(graph, TrunkOptions(steps=1, weight_decay=0.5))
    decaying = {id(each) for group in found.param_groups if group["weight_decay"] for each in group["params"]}
    wanted = {id(module.weight) for module in graph.modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    assert decaying == wanted
    assert sum(len(group["params"]) for group in found.param_groups) == len(list(graph.parameters()))


def test_joined_sub_batches_answer_as_each_alone(graph):
    graph.eval()
    crops = torch.randn(5, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    parts = [(2, 1), (1, 3), (2, 1)]
    with torch.no_grad():
        joined = graph(crops, parts)
        alone = [graph(some, [part])[0] for some, part in zip(torch.split(crops, [1, 3, 1]), parts, strict=True)]
    assert [tuple(each.shape) for each in joined] == [(1, 2), (3, 3), (1, 2)]
    for one, other in zip(joined, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_losses_of_two_and_three_classes_start_at_one():
    loss = dynamic_loss([torch.zeros(4, 2), torch.zeros(4, 3)], [torch.zeros(4, dtype=torch.int64)] * 2, 0.05)
    assert loss.item() == pytest.approx(1.0)


def test_the_loss_is_the_mean_over_sub_batches():
    one, other = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    wanted = []
    for logits, target in ((one, 1), (other, 0)):
        log = torch.log_softmax(logits, 1)[0]
        smooth = 0.9 * log[target] + 0.1 * log.mean()
        wanted.append(-smooth.item() / math.log(len(log)))
    found = dynamic_loss([one, other], [torch.tensor([1]), torch.tensor([0])], 0.1)
    assert found.item() == pytest.approx(sum(wanted) / 2)


def test_momentum_of_batchnorm(graph):
    assert (TrunkOptions(steps=1).momentum(1), TrunkOptions(steps=1).momentum(4)) == (0.01, 0.1)
    assert TrunkOptions(steps=1, norm_momentum=0.05).momentum(1) == 0.05
    set_momentum(graph, 0.01)
    assert {module.momentum for module in graph.modules() if isinstance(module, nn.BatchNorm2d)} == {0.01}


@pytest.mark.parametrize(
    "arch, size, wanted",
    [
        ("resnet18", (96, 48), 8),
        ("resnet18", (64, 32), 6),  # block 6 is the first of the last stage, whose maps are 2x1
        ("resnet18", (32, 16), 4),
        ("resnet18", (64, 64), 8),
        ("inception_v3", (160, 80), 8),
        ("inception_v3", (256, 128), 11),
    ],
)
def test_low_precision_ends_where_maps_are_one_column_wide(arch, size, wanted):
    assert low_precision_blocks(Trunk.create(arch, width=0.1, crop=CropSpec(size))) == wanted


@pytest.mark.parametrize("low, dtypes", [(-1, ("float32",) * 3), (7, ("bfloat16", "float32", "float32"))])
def test_later_blocks_run_in_float32(low, dtypes):
    trunk = Trunk.create("resnet18", width=0.1, crop=CropSpec((64, 32)))
    graph, found = DynamicGraph(trunk, [2], 0).eval(), []
    for name in trunk.backbone.blocks[-2:]:
        first = trunk.get_submodule(name).conv1
        first.register_forward_hook(lambda _, args, result: found.append(str(result.dtype).removeprefix("torch.")))
    crops = torch.rand(2, 3, 64, 32)
    features = graph.features(crops, low)
    assert (*found, str(features.dtype).removeprefix("torch.")) == dtypes
    torch.testing.assert_close(features, trunk(crops).mean(dim=(2, 3)), rtol=0.05, atol=0.05)
