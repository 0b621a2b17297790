"""Exported parts against torch, for every backbone; what they hold; that they never depend on chance."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from graftsdk.engines import open_engine
from graftsdk.engines.layout import graphs_of, partition
from graftsdk.errors import InputError, UnsupportedOp, ValidationFailed
from graftsdk.export import export_plan, tracing
from graftsdk.export.opening import open_part
from graftsdk.export.parts import branch_part, trunk_part
from graftsdk.graft import joints_of
from graftsdk.models import Branch, FewCellsWarning, Pooling, Trunk, register_pooling
from graftsdk.plan import Part, load_plan
from graftsdk.plan.onnx_part import model_from_part
from graftsdk.preprocess import golden_crops

TREES = {
    # arch: size, width, branches
    "inception_v3": (
        (75, 75),
        1.0,
        [{"tap": 6, "until": 8, "pooling": "bilinear"}, {"tap": 9, "width": 0.5}, {"tap": 11}],
    ),
    "resnet18": (
        (64, 64),
        0.25,
        [{"tap": 0, "width": 0.5}, {"tap": 5, "until": 6, "pooling": "bilinear", "width": 0.5}, {"tap": 8}],
    ),
    "resnet50": ((64, 48), 0.25, [{"tap": 13, "width": 0.5}, {"tap": 15}]),
    "mobilenet_v3_large": (
        (64, 64),
        1.0,
        [{"tap": 13, "width": 0.5}, {"tap": 15, "pooling": "bilinear"}],
    ),
}


def settle(module: nn.Module, seed: int) -> None:
    """BatchNorm statistics, gamma and beta as after a training, so that folding has something to fold."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor, mean: float, std: float) -> torch.Tensor:
        return mean + std * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.copy_(noise(layer.running_mean, 0.0, 0.2))
                layer.running_var.copy_(noise(layer.running_var, 1.0, 0.2).abs() + 0.1)
                layer.weight.copy_(layer.weight * noise(layer.weight, 1.0, 0.2))
                layer.bias.copy_(noise(layer.bias, 0.0, 0.2))


def crops(count: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3, *size)).astype(np.float32)


def run(part: Part, name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    with open_part(part) as engine:
        return engine.run({name: value})


def make(trunk: Trunk, label: str = "child", **options: object) -> Branch:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewCellsWarning)
        return Branch.create(trunk, label, **options)


@pytest.mark.parametrize("arch", TREES)
def test_parts_equal_torch(arch: str) -> None:
    size, width, options = TREES[arch]
    trunk = Trunk.create(arch, size, width=width, seed=1)
    settle(trunk, 0)
    part, document = trunk_part(trunk)
    assert "BatchNormalization" not in {node.op_type for node in model_from_part(part).graph}
    assert document.exported is not None and len(document.exported.macs) == document.blocks + 1
    branches = [make(trunk, seed=seed, **option) for seed, option in enumerate(options)]
    for count in (1, 3):
        batch = crops(count, size)
        found = run(part, "crops", batch)
        with torch.inference_mode():
            taps = trunk.taps(torch.from_numpy(batch))
        for k, tap in enumerate(taps):
            assert found[f"tap_{k}"].shape == tap.shape
            assert np.abs(found[f"tap_{k}"] - tap.numpy()).max() <= 1e-4 * tap.abs().max(), (count, k)
    for branch in branches:
        settle(branch, branch.tap)
        branch.temperature = 2.5
        scion = branch_part(branch)
        assert "BatchNormalization" not in {node.op_type for node in model_from_part(scion).graph}
        for count in (1, 3):
            tap = taps[branch.tap][:count]
            scores = run(scion, "tap", tap.numpy())["scores"]
            with torch.inference_mode():
                expected = torch.softmax(branch(tap) / 2.5, 1).numpy()
            assert np.abs(scores - expected).max() <= 1e-5, (branch.tap, count)


def test_no_rows_give_no_rows(trunk: Trunk, branches: dict[str, Branch]) -> None:
    assert run(trunk_part(trunk)[0], "crops", crops(0, (64, 64)))["tap_5"].shape == (0, *trunk.tap_shape(5))
    for branch in branches.values():
        empty = np.zeros((0, *trunk.tap_shape(branch.tap)), np.float32)
        assert run(branch_part(branch), "tap", empty)["scores"].shape == (0, len(branch.classes))


def test_shapes_but_the_batch_are_fixed(branches: dict[str, Branch]) -> None:
    for branch in branches.values():
        nodes = Counter(node.op_type for node in model_from_part(branch_part(branch)).graph)
        assert not {"Shape", "Identity", "Constant", "Expand", "CastLike"} & set(nodes), nodes


def test_a_score_is_the_same_to_the_bit_in_any_batch_and_layout(tmp_path: Path, trunk: Trunk) -> None:
    # Residual shortcuts at the tap (5, 7), projections (6), bilinear sums: each once differed in the last bit.
    branches = [make(trunk, f"label {tap}", tap=tap, seed=tap) for tap in (1, 5, 6, 7)]
    branches.append(make(trunk, "bilinear", tap=3, until=5, pooling="bilinear"))
    export_plan(tmp_path / "engine.plan", trunk, branches)
    batch = golden_crops(trunk.crop, count=8)
    found = []
    with load_plan(tmp_path / "engine.plan") as plan:
        for layout in ("merged", "split"):
            graphs = graphs_of(plan, partition(joints_of(plan.manifest), layout))
            with open_engine(graphs, device="cpu", cache=False) as engine:
                names = sorted(name for name in engine.outputs if name.endswith("/scores"))
                for size in (8, 1):
                    parts = [engine.run({"crops": batch[at : at + size]}, names) for at in range(0, 8, size)]
                    found.append({name: np.concatenate([part[name] for part in parts]) for name in names})
    for other in found[1:]:
        for name, scores in found[0].items():
            np.testing.assert_array_equal(other[name], scores)


def test_a_graph_does_not_depend_on_weights(branches: dict[str, Branch]) -> None:
    child = copy.deepcopy(branches["child"])
    part = branch_part(child)
    with torch.no_grad():
        for tensor in child.parameters():
            tensor.zero_()
    child.temperature = 3.0
    empty = branch_part(child)
    assert empty.digest != part.digest
    assert list(empty.tensors) == list(part.tensors)
    ours, theirs = (model_from_part(each).graph for each in (part, empty))
    assert [(node.op_type, node.name) for node in ours] == [(node.op_type, node.name) for node in theirs]
    assert list(ours.initializers) == list(theirs.initializers)


def test_tracing_again_gives_the_same_digest(
    monkeypatch: pytest.MonkeyPatch, trunk: Trunk, branches: dict[str, Branch]
) -> None:
    child = branches["child"]
    expected = [trunk_part(trunk)[0].digest, branch_part(child).digest]
    tracing._trunk_graph.cache_clear()
    monkeypatch.setattr(tracing, "_BRANCHES", {})
    assert [branch_part(child).digest, trunk_part(trunk)[0].digest] == expected[::-1]  # the other order


def test_the_temperature_is_inside(trunk: Trunk, branches: dict[str, Branch]) -> None:
    hat = copy.deepcopy(branches["hat"])
    tap = np.random.default_rng(0).uniform(0, 3, (3, *trunk.tap_shape(8))).astype(np.float32)
    cold = run(branch_part(hat), "tap", tap)["scores"].astype(np.float64)
    hat.temperature = 4.0
    warm = run(branch_part(hat), "tap", tap)["scores"].astype(np.float64)
    logits = np.log(cold[:, 1] / cold[:, 0]), np.log(warm[:, 1] / warm[:, 0])
    assert np.abs(logits[0]).max() > 0.01
    np.testing.assert_allclose(logits[1] * 4.0, logits[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-40, -1e-38])
def test_zero_and_denormal_weights(trunk: Trunk, value: float) -> None:
    branch = make(trunk, tap=6)
    with torch.no_grad():
        for name, tensor in (*branch.named_parameters(), *branch.named_buffers()):
            if not name.endswith("num_batches_tracked"):
                tensor.fill_(abs(value) if name.endswith("running_var") else value)
    part = branch_part(branch)
    scores = run(part, "tap", np.ones((2, *trunk.tap_shape(6)), np.float32))["scores"]
    np.testing.assert_array_equal(scores, np.full((2, 2), 0.5, np.float32))
    assert not any(array.any() for array in part.tensors.values())  # subnormal weights are stored as zero


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(trunk: Trunk, value: float) -> None:
    branch = make(trunk, "hat", tap=7)
    with torch.no_grad():
        branch.classifier.weight[0, 0] = value
    with pytest.raises(ValidationFailed, match=r"label 'hat': classifier\.weight: expected finite weights"):
        branch_part(branch)
    sick = copy.deepcopy(trunk)
    with torch.no_grad():
        sick.get_submodule("layer2.0.conv1").weight[0, 0, 0, 0] = value
    with pytest.raises(ValidationFailed, match=r"trunk: layer2\.0\.conv1\.weight: expected finite weights"):
        trunk_part(sick)


def test_batch_norm_that_overflows_is_refused_by_name(trunk: Trunk) -> None:
    branch = make(trunk, "hat", tap=7)
    norm = branch.get_submodule("layer4.1.bn2")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.fill_(3e38)
        norm.running_var.fill_(1e-30)
    with pytest.raises(ValidationFailed, match=r"label 'hat': layer4\.1\.conv2\.\w+: expected finite weights"):
        branch_part(branch)


def test_other_dtypes_are_refused(trunk: Trunk) -> None:
    with pytest.raises(InputError, match=r"label 'hat': .*: expected float32 weights, found torch\.float16"):
        branch_part(make(trunk, "hat", tap=8).half())


def test_a_trained_branch_is_left_as_it_was(trunk: Trunk) -> None:
    branch = make(trunk, tap=7).train()
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    branch_part(branch)
    assert branch.training and all(parameter.requires_grad for parameter in branch.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in branch.state_dict().items())


def test_an_operator_without_a_form_is_named(trunk: Trunk) -> None:
    class Spectrum(Pooling):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            return torch.linalg.eigvalsh(x.flatten(2) @ x.flatten(2).transpose(1, 2)), None

    register_pooling("spectrum", Spectrum)
    branch = make(trunk, "hat", tap=8, pooling="spectrum")
    with pytest.raises(UnsupportedOp, match=r"label 'hat': expected operators .*found aten\._?linalg_eig"):
        branch_part(branch)
