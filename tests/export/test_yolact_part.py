"""YOLACT's checkpoints as parts: against torch, in any batch, with their priors, into plans and files of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftsdk.errors import InputError, PlanCorrupt, ValidationFailed
from graftsdk.export import export_plan
from graftsdk.export.opening import open_part
from graftsdk.export.segmenter import check_segmenter, read_segmenter, write_segmenter
from graftsdk.export.yolact import check_outputs
from graftsdk.models import Branch, Trunk, Yolact
from graftsdk.plan import Provenance, load_plan
from graftsdk.segment import open_adapter

SIZE = (72, 100)  # odd levels: 9x13, 5x7, 3x4
NAMES = ["loc", "conf", "mask", "priors", "proto"]


@pytest.fixture(scope="module")
def network() -> Yolact:
    model = Yolact.create("resnet18", SIZE, ("bag", "person"), width=0.1, channels=16, prototypes=8, seed=3)
    model.provenance = Provenance("CC0-1.0", "Someone", ("ab" * 32,))
    return model


@pytest.fixture(scope="module")
def source(network: Yolact):
    return read_segmenter(network)


def test_what_is_said_of_it(network: Yolact, source) -> None:
    info = source.info
    assert (info.family, info.input, info.input_size, list(info.outputs)) == ("yolact", "images", SIZE, NAMES)
    assert (info.person_class, info.score_threshold, info.iou_threshold) == (1, 0.15, 0.5)
    assert source.provenance == network.provenance and source.classes == network.classes


@pytest.mark.parametrize("stated, taken", [(0.62, 0.62), (1.0, 1.0), (0.0, None), (-1.0, None), (7.0, None)])
def test_the_score_that_validation_data_say(stated: float, taken: float | None) -> None:
    model = Yolact.create("resnet18", SIZE, width=0.1, channels=16, prototypes=8, seed=3)
    model.metrics = {"score_threshold": stated}
    assert model.document().score_threshold == taken


def test_export_takes_the_score_that_validation_data_say() -> None:
    model = Yolact.create("resnet18", SIZE, width=0.1, channels=16, prototypes=8, seed=3)
    model.metrics = {"score_threshold": 0.62}
    assert read_segmenter(model).info.score_threshold == 0.62
    assert read_segmenter(model, score_threshold=0.4).info.score_threshold == 0.4


def test_outputs_are_those_of_torch_and_the_same_in_any_batch(network: Yolact, source) -> None:
    # BatchNorm is folded and sums are in another order: 1e-6 of an output's greatest value was measured.
    images = np.random.default_rng(1).standard_normal((3, 3, *SIZE)).astype(np.float32)
    with open_part(source.part) as engine, torch.inference_mode():
        found = engine.run({"images": images}, NAMES)
        alone = engine.run({"images": images[2:]}, NAMES)
        expected = network(torch.from_numpy(images))
    np.testing.assert_array_equal(found["priors"], network.priors().numpy())
    conf = torch.softmax(expected.conf, -1)
    for name, tensor in (("loc", expected.loc), ("conf", conf), ("mask", expected.mask), ("proto", expected.proto)):
        truth = tensor.numpy()
        assert found[name].shape == truth.shape
        assert np.abs(found[name] - truth).max() <= 1e-5 * np.abs(truth).max(), name
        np.testing.assert_array_equal(alone[name][0], found[name][2], err_msg=name)


def test_another_network_is_no_match(network: Yolact, source) -> None:
    other = Yolact.create("resnet18", SIZE, ("bag", "person"), width=0.1, channels=16, prototypes=8, seed=4)
    with open_part(source.part) as engine:
        assert check_outputs(network, engine, "s") < 1e-5
        with pytest.raises(ValidationFailed, match="s: expected 'loc' within 0.001 of torch, found "):
            check_outputs(other, engine, "s")


def test_a_file_of_its_own_is_read_again(source, tmp_path: Path) -> None:
    write_segmenter(tmp_path / "s.onnx", source)
    again = read_segmenter(tmp_path / "s.onnx")
    check_segmenter(again)
    assert (again.part.digest, again.info) == (source.part.digest, source.info)
    assert (again.classes, again.module) == (source.classes, None)
    assert (again.provenance.licence, again.provenance.author) == ("CC0-1.0", "Someone")


def test_from_a_checkpoint_into_a_plan(network: Yolact, source, tmp_path: Path) -> None:
    network.save(tmp_path / "s.safetensors")
    trunk = Trunk.create("resnet18", (64, 64), width=0.1)
    branch = Branch.create(trunk, "hat", tap=8)
    report = export_plan(
        tmp_path / "e.plan", trunk, [branch], tmp_path / "s.safetensors", parts=tmp_path / "parts", score_threshold=0.3
    )
    assert [path.name for path in report.parts] == ["trunk.onnx", "hat.onnx", "segmenter.onnx"]
    with load_plan(tmp_path / "e.plan") as plan:
        info = plan.manifest.segmenter
        assert info is not None and info.part == source.part.name and info.score_threshold == 0.3
        assert plan.manifest.parts[info.part].provenance == network.provenance
        assert open_adapter(info).prepare(np.zeros((10, 20, 3), np.uint8))[0].shape == (1, 3, *SIZE)


def test_what_is_no_segmenter(tmp_path: Path) -> None:
    trunk = Trunk.create("resnet18", (64, 64), width=0.1)
    trunk.save(tmp_path / "t.safetensors")
    with pytest.raises(PlanCorrupt, match=r"t\.safetensors: expected a segmenter, found"):
        read_segmenter(tmp_path / "t.safetensors")
    with pytest.raises(InputError, match="segmenter: expected a path or a Yolact, found Trunk"):
        read_segmenter(trunk)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a class named 'person', found dog; .*--person-class"):
        read_segmenter(Yolact.create("resnet18", SIZE, ("dog",), width=0.1, channels=16))
