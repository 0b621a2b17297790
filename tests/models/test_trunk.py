"""Making trunks, their fingerprints, random weights and costs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from graftsdk.errors import InputError, PlanCorrupt
from graftsdk.models import Branch, Trunk, branch_cost, trunk_cost
from graftsdk.models.fingerprint import fingerprint_chain
from graftsdk.models.random_weights import RandomBits
from graftsdk.plan.cropspec import CropSpec
from graftsdk.plan.strict_json import dump_json

SIZE = (64, 64)
# The same on every machine and with every version of torch and NumPy: see graftsdk/models/random_weights.py.
GOLDEN_BITS = [
    0.43334338068962097,
    1.3759889602661133,
    0.9550032615661621,
    -0.9519102573394775,
    -0.692244291305542,
    1.2940269708633423,
]
GOLDEN_FINGERPRINT = "8aa7e790674206fa398bb7173345a82557e13c045bef17694279811013a71947"


def small(seed: int = 0, **options: object) -> Trunk:
    return Trunk.create("resnet18", SIZE, width=0.25, seed=seed, **options)  # type: ignore[arg-type]


def crops(count: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randn(count, 3, 6, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size, mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 3, *size, generator=generator)


def test_seeds_and_global_generators() -> None:
    before = torch.get_rng_state()
    assert small(1).fingerprint(8) == small(1).fingerprint(8)
    assert small(1).fingerprint(0) != small(2).fingerprint(0)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InputError, match="seed: expected an integer"):
        small(-1)


def test_random_bits_are_golden() -> None:
    plain = RandomBits(7).uniform((2, 3), 1.0, centred=False)
    centred = RandomBits(7).uniform((2, 3), 1.0, centred=True)
    assert plain.flatten().tolist() == GOLDEN_BITS
    assert torch.allclose(centred, plain - plain.mean(1, keepdim=True), atol=1e-6)
    wide = RandomBits(0).uniform((400, 400), 0.5, centred=False)
    assert abs(float(wide.std()) - 0.5) < 0.002
    assert abs(float(wide.mean())) < 0.005


@pytest.mark.parametrize(
    ("arch", "width", "size"),
    [
        ("inception_v3", 1.0, (75, 75)),
        ("inception_v3", 0.25, (107, 107)),
        ("resnet18", 1.0, SIZE),
        ("resnet18", 0.25, SIZE),
        ("resnet50", 0.25, SIZE),
        ("mobilenet_v3_large", 1.0, SIZE),
        ("mobilenet_v3_large", 0.25, SIZE),
        ("mobilenet_v3_small", 1.0, SIZE),
        ("mobilenet_v3_small", 0.5, SIZE),
        ("resnet101", 0.25, SIZE),
    ],
)
def test_random_trunks_are_well_scaled_and_their_scores_vary(arch: str, width: float, size: tuple[int, int]) -> None:
    trunk = Trunk.create(arch, size, width=width)
    x = crops(4, size)
    with torch.no_grad():
        taps = trunk.taps(x)
        for tap in taps:
            assert 0.3 < float(tap.std()) < 8
        branch = Branch.create(trunk, "hat", tap=len(trunk.blocks))
        scores = branch(taps[-1]).softmax(1)[:, 1]
    assert float(scores.max() - scores.min()) > 0.02
    assert float(scores.min()) > 1e-3
    assert float(scores.max()) < 1 - 1e-3


def test_fingerprint_is_its_definition() -> None:
    crop = CropSpec((64, 32), fill=7)
    stem = {"weight": torch.tensor([[1.5, -2.0]]), "bias": torch.tensor([0.25])}
    block = {"running_mean": torch.tensor([3.0]), "num_batches_tracked": torch.tensor(258)}

    def text(value: str) -> bytes:
        return len(value.encode()).to_bytes(8, "little") + value.encode()

    zero = text("graftsdk trunk fingerprint 1")
    zero += text(dump_json({"arch": "toy", "width": 0.5, "crop": crop.to_dict()})) + text("conv")
    zero += text('{"dtype":"float32","name":"bias","shape":[1]}') + bytes.fromhex("0000803e")
    zero += text('{"dtype":"float32","name":"weight","shape":[1,2]}') + bytes.fromhex("0000c03f000000c0")
    first = hashlib.sha256(zero).digest()
    one = first + text("layer1.0")
    one += text('{"dtype":"int64","name":"num_batches_tracked","shape":[]}') + (258).to_bytes(8, "little")
    one += text('{"dtype":"float32","name":"running_mean","shape":[1]}') + bytes.fromhex("00004040")
    expected = (first.hex(), hashlib.sha256(one).hexdigest())
    assert fingerprint_chain("toy", 0.5, crop, [("conv", stem)], [("layer1.0", block)]) == expected


def test_fingerprint_is_golden() -> None:
    assert small(1).fingerprint(8) == GOLDEN_FINGERPRINT


def test_fingerprint_moves_with_everything_before_the_tap_only() -> None:
    trunk = small()
    names = trunk.backbone.blocks
    before = trunk.document().fingerprints
    assert len(set(before)) == 9
    assert [trunk.fingerprint(k) for k in range(9)] == list(before)
    for key, tensor in trunk.state_dict().items():
        old = tensor.clone()
        tensor.add_(1)
        first = next((k for k, name in enumerate(names, start=1) if key.startswith(f"{name}.")), 0)
        after = trunk.document().fingerprints
        assert [now != then for now, then in zip(after, before, strict=True)] == [k >= first for k in range(9)]
        tensor.copy_(old)
    assert trunk.document().fingerprints == before
    assert small(crop=CropSpec(SIZE, fill=1)).fingerprint(0) != before[0]


def test_fingerprints_of_inception_v3_are_quick() -> None:
    trunk = Trunk.create("inception_v3", (75, 75))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        trunk.document()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


def test_crop_and_input_size() -> None:
    crop = CropSpec((96, 64), background="keep")
    assert Trunk.create("resnet18", width=0.25, crop=crop).input_size == (96, 64)
    assert Trunk.create("resnet18", (96, 64), width=0.25, crop=crop).crop is crop
    assert Trunk.create("resnet18", (96, 64), width=0.25).crop == CropSpec((96, 64))
    with pytest.raises(InputError, match=r"input_size: expected crop.size \(96, 64\)"):
        Trunk.create("resnet18", (64, 64), width=0.25, crop=crop)


def test_taps_out_of_range() -> None:
    trunk = small()
    for k in (-1, 9, 1.0, True, None):
        for call in (trunk.channels, trunk.tap_shape, trunk.fingerprint):
            with pytest.raises(InputError, match=r"tap: expected an integer from 0 to 8 \(resnet18\)"):
                call(k)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="tap: expected"):
            trunk.tap(torch.zeros(1, 3, *SIZE), k)  # type: ignore[arg-type]


def test_torchvision_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = models.resnet18(weights=None).eval()
    tensors = network.state_dict()
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(tensors, path)
    trunk = Trunk.create("resnet18", SIZE, weights=path)
    x = crops(2)
    with torch.no_grad():
        assert torch.equal(network.fc(trunk(x).mean((2, 3))), network(x))
    assert trunk.crop == CropSpec(SIZE)
    old = {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}  # from before torch 0.4.1
    safetensors.torch.save_file(old, path)
    assert Trunk.create("resnet18", SIZE, weights=path).fingerprint(8) == trunk.fingerprint(8)
    with pytest.raises(InputError, match="width: expected 1 together with weights"):
        Trunk.create("resnet18", SIZE, width=0.5, weights=path)
    with pytest.raises(PlanCorrupt, match=r"expected the tensor 'layer1.0.conv3.weight'|expected the tensor 'layer1"):
        Trunk.create("resnet50", SIZE, weights=path)
    trunk.save(tmp_path / "own.safetensors")
    with pytest.raises(InputError, match="found the graftsdk checkpoint .*read it with load"):
        Trunk.create("resnet18", SIZE, weights=tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer2.0.bn1.bias"), "expected the tensor 'layer2.0.bn1.bias', found none"),
        (lambda t: t.update(extra=torch.zeros(1)), "found 'extra'"),
        (
            lambda t: t.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}),
            r"conv1.weight: expected shape \[64, 3, 7, 7\]",
        ),
        (lambda t: t.update({"conv1.weight": t["conv1.weight"].half()}), "conv1.weight: expected torch.float32"),
        (lambda t: t.update({"bn1.running_var": torch.full((64,), float("nan"))}), "bn1.running_var: expected finite"),
    ],
)
def test_torchvision_weights_that_do_not_fit(change: object, message: str, tmp_path: Path) -> None:
    tensors = dict(Trunk.create("resnet18", SIZE).state_dict())
    change(tensors)  # type: ignore[operator]
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(PlanCorrupt, match=message):
        Trunk.create("resnet18", SIZE, weights=tmp_path / "w.safetensors")


def test_torchvision_inception_wants_half(tmp_path: Path) -> None:
    tensors = dict(Trunk.create("inception_v3", (75, 75)).state_dict())
    tensors |= {"fc.weight": torch.zeros(1000, 2048), "AuxLogits.conv0.conv.weight": torch.zeros(128, 768, 1, 1)}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    trunk = Trunk.create("inception_v3", (75, 75), weights=tmp_path / "w.safetensors")
    assert (trunk.crop.mean, trunk.crop.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    crop = CropSpec((75, 75))
    assert Trunk.create("inception_v3", weights=tmp_path / "w.safetensors", crop=crop).crop == crop


def test_costs_of_inception_v3() -> None:
    trunk = Trunk.create("inception_v3")
    macs, parameters = trunk_cost(trunk)
    table = [1340.8, 1653.1, 1991.8, 2339.9, 2741.8, 3115.9, 3603.6, 4091.3, 4709.2, 5000.2, 5322.7, 5711.2]
    assert [round(value / 1e6, 1) for value in macs] == table
    own = [172672, 255904, 277472, 285152, 1153280, 1297408, 1691008, 1691008, 2141952, 1698304, 5044608, 6076800]
    assert [after - before for before, after in zip((0, *parameters), parameters, strict=False)] == own
    assert parameters[11] == 21_785_568
    child = Branch.create(trunk, "child", tap=6, until=8, pooling="bilinear")
    blocks, outer, classifier = 1105.6, 170.5, 1.2
    child_macs, child_parameters = branch_cost(child)
    assert abs(child_macs / 1e6 - (blocks + outer + classifier)) < 0.1
    assert child_parameters == 1691008 + 2141952 + 2 * 768**2 + 2
    assert branch_cost(Branch.create(trunk, "hat", tap=11)) == (2 * 2048, 2 * 2048 + 2)
