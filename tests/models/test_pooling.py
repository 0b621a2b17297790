"""The engine form of bilinear pooling against its definition, and the registry of poolings."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from graftsdk.errors import ImageTooSmall, InputError
from graftsdk.models import Branch, FewCellsWarning, Pooling, Trunk, register_pooling
from graftsdk.models.pooling import EPS, BilinearPooling, GlobalAveragePooling, pooling


def direct(x: torch.Tensor) -> torch.Tensor:
    """z = vec(y) / ||vec(y)||, y = sqrt(B + eps), B = X X^T / P, in the words of the definition."""
    rows = []
    for image in x:
        flat = image.reshape(image.shape[0], -1)
        y = torch.sqrt(flat @ flat.T / flat.shape[1] + EPS).reshape(-1)
        rows.append(y / y.norm())
    return torch.stack(rows)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 1, 2), (8, 3, 5), (48, 17, 17), (64, 2, 1)])
def test_bilinear_is_its_definition(channels: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(channels)
    x = torch.relu(torch.randn(3, channels, height, width, generator=generator, dtype=torch.float64))
    x[1] = 0.0  # a crop that is all background behind ReLU
    features, scale = BilinearPooling(channels, nonnegative=True)(x)
    assert (features / scale - direct(x)).abs().max() < 1e-12
    assert features.shape == (3, channels**2)
    assert scale.shape == (3, 1)


def test_gap() -> None:
    x = torch.randn(2, 5, 3, 4)
    features, scale = GlobalAveragePooling(5, nonnegative=False)(x)
    assert scale is None
    assert torch.allclose(features, x.reshape(2, 5, 12).mean(2))


@pytest.mark.filterwarnings("ignore::graftsdk.models.FewCellsWarning")
@pytest.mark.parametrize(("arch", "features"), [("resnet18", 128**2), ("mobilenet_v3_large", 240**2)])
def test_all_background_is_finite(arch: str, features: int) -> None:
    trunk = Trunk.create(arch, (64, 64), width=0.25)
    branch = Branch.create(trunk, "hat", tap=len(trunk.blocks), pooling="bilinear")
    assert branch.pool.features == features
    taps = torch.zeros(2, *trunk.tap_shape(len(trunk.blocks)), requires_grad=True)
    logits = branch(taps)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert taps.grad is not None
    assert torch.isfinite(taps.grad).all()


def test_signed_features_are_reduced_first() -> None:
    pool = BilinearPooling(300, nonnegative=False)
    assert pool.features == 256**2
    assert [name for name, _ in pool.named_parameters()] == ["reduce.weight", "reduce.bias"]
    x = torch.randn(2, 300, 2, 3)
    features, scale = pool(x)
    expected = direct(torch.relu(nn.functional.conv2d(x, pool.reduce.weight, pool.reduce.bias)))  # type: ignore[union-attr]
    assert torch.allclose(features / scale, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "until", "least"),
    [((75, 75), 9, 107), ((106, 106), 11, 107), ((106, 75), 10, 107)],
)
def test_one_cell_is_refused(size: tuple[int, int], until: int, least: int) -> None:
    trunk = Trunk.create("inception_v3", size, width=0.25)
    with pytest.raises(
        ImageTooSmall, match=rf"at least 2 cells at until={until}.*found 1 .*least square input is {least}x"
    ):
        Branch.create(trunk, "hat", tap=9 if until > 9 else until, until=until, pooling="bilinear")


def test_few_cells_warn() -> None:
    trunk = Trunk.create("inception_v3", (75, 107), width=0.25)
    with pytest.warns(FewCellsWarning, match=r"15 cells at until=8 \(inception_v3\).*below 100"):
        Branch.create(trunk, "hat", tap=8, until=8, pooling="bilinear")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Branch.create(trunk, "hat", tap=8, until=8, pooling="gap")


def test_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftsdk.models.pooling._REGISTRY", {"gap": GlobalAveragePooling})

    class Strongest(Pooling):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            return x.amax((2, 3)), None

    assert register_pooling("max", Strongest) is pooling("max") is Strongest
    trunk = Trunk.create("resnet18", (64, 64), width=0.25)
    tap = torch.rand(2, *trunk.tap_shape(8))
    branch = Branch.create(trunk, "hat", tap=8, pooling="max")
    assert torch.allclose(branch(tap), tap.amax((2, 3)) @ branch.classifier.weight.T, atol=1e-6)
    with pytest.raises(InputError, match="expected one of gap, max, found 'min'"):
        pooling("min")
    with pytest.raises(InputError, match="registered already"):
        register_pooling("max", GlobalAveragePooling)
    with pytest.raises(InputError, match="expected a subclass of Pooling"):
        register_pooling("linear", nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pooling name"):
        register_pooling("no name", Strongest)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_a_branch_with_projection_and_bilinear_pooling_exports_with_dynamic_batch() -> None:
    trunk = Trunk.create("resnet18", (64, 64))
    branch = Branch.create(trunk, "hat", tap=1, until=3, pooling="bilinear", width=0.25)
    tap = torch.relu(torch.randn(3, *trunk.tap_shape(1)))
    batch = {0: torch.export.Dim("n", min=1)}
    program = torch.onnx.export(
        branch, (tap[:2],), input_names=["tap"], opset_version=18, dynamo=True, dynamic_shapes=(batch,), verbose=False
    )
    assert program is not None
    assert program.model.opset_imports[""] == 18
    assert "Einsum" not in {node.op_type for node in program.model.graph}
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (found,) = session.run(None, {"tap": tap[:count].numpy()})
        assert np.abs(found - branch(tap[:count]).detach().numpy()).max() < 1e-5
