"""Whole trainings of a tiny trunk: they learn, go on after any end, and refuse what cannot be."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from training.crops.drawn_labels import drawn_set

from graftsdk.errors import InputError, NonFiniteOutput, PlanPathError
from graftsdk.models import Branch, Trunk
from graftsdk.plan import CropSpec
from graftsdk.training.crops.augment import NO_AUGMENTATION, Augmentation
from graftsdk.training.crops.packed import pack_crops
from graftsdk.training.labels import open_label
from graftsdk.training.run import spread_rows
from graftsdk.training.training_state import read_state, state_path
from graftsdk.training.trunk import train as trunk_train
from graftsdk.training.trunk.judge import label_logits, mean_auc
from graftsdk.training.trunk.options import TrunkNetwork, TrunkOptions
from graftsdk.training.trunk.train import _Run, train_trunk

CROP = CropSpec((32, 16))
NETWORK = TrunkNetwork("resnet18", 0.1, CROP)
OPTIONS = TrunkOptions(
    **{"batch": 8, "tasks": 2, "steps": 8, "eval_epochs": 100, "workers": 0, "threads": 1, "precision": "float32"},
    **{"ema": 0.5, "norm_images": 16, "learning_rate": 0.003},
)
COUNTS = {"train": 6, "val": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three labels; the third has three classes, in an order that graft.toml says."""
    folder = tmp_path_factory.mktemp("root")
    drawn_set(folder, "bag", COUNTS)
    drawn_set(folder, "hat é", COUNTS, seed=1)
    drawn_set(folder, "age", COUNTS, seed=2)
    for split in COUNTS:
        (folder / "age" / split / "no").rename(folder / "age" / split / "old")
        (folder / "age" / split / "yes").rename(folder / "age" / split / "young")
    drawn_set(folder, "x", COUNTS, seed=3)
    for split in COUNTS:
        (folder / "x" / split / "yes").rename(folder / "age" / split / "middle")
    for path in sorted((folder / "x").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "x").rmdir()
    (folder / "graft.toml").write_text('[labels.age]\nclasses = ["young", "middle", "old"]\n')
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(root, cache):
    def run(output, options=OPTIONS, labels=None, **more):
        return train_trunk(
            root, labels, output, options, **{"trunk": NETWORK, "cache": cache, "progress": False} | more
        )

    return run


@pytest.fixture(scope="module")
def whole(root, cache, tmp_path_factory):
    """An uninterrupted training: its report."""
    output = tmp_path_factory.mktemp("whole") / "x.safetensors"
    return train_trunk(root, None, output, OPTIONS, trunk=NETWORK, cache=cache, progress=False)


def weights(path):
    return safetensors.torch.load_file(path)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(output):
    with open(output.with_name("x.curve.csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_what_lies_there_afterwards(whole, cache):
    trunk = Trunk.load(whole.path)
    assert (trunk.arch, trunk.width, trunk.crop) == ("resnet18", 0.1, CROP)
    assert len(trunk.provenance.data) == 3
    assert {label: list(classes) for label, classes in whole.auc.items()} == {
        "age": ["young", "middle", "old"],
        "bag": ["yes"],
        "hat é": ["yes"],
    }
    assert all(0 <= value <= 1 for classes in whole.auc.values() for value in classes.values())
    assert [row["step"] for row in rows(whole.path) if row["auc"]] == ["8"]
    assert float(rows(whole.path)[-1]["auc"]) == pytest.approx(whole.mean_auc, abs=1e-5)
    progress, lasting, averaged, tensors = read_state(state_path(whole.path))
    assert progress.finished and progress.step == averaged == whole.steps == 8
    assert lasting["labels"] == ["age", "bag", "hat é"]
    assert {name for name in tensors if name.startswith("model.heads.") and name.endswith("bias")} == {
        f"model.heads.{task}.bias" for task in range(3)
    }
    assert not [name for folder in (cache, whole.path.parent) for name in os.listdir(folder) if name.endswith(".tmp")]


def test_it_learns(train, tmp_path):
    options = replace(OPTIONS, steps=40, batch=16, augmentation=NO_AUGMENTATION, ema=0.9, norm_images=40)
    report = train(tmp_path / "x.safetensors", options, labels=["bag", "hat é"])
    losses = [float(row["loss"]) for row in rows(report.path) if row["loss"]]
    assert losses[-1] < 0.9 and report.mean_auc > 0.9


def test_statistics_are_measured_on_the_averaged_weights(train, tmp_path, root, cache):
    """Mean over batches of a batch's mean and (unbiased) variance, before the first BatchNorm."""
    options = replace(OPTIONS, steps=2, norm_images=1000)
    report = train(tmp_path / "x.safetensors", options, labels=["bag", "hat é"])
    trunk = Trunk.load(report.path)
    averaged = weights(state_path(report.path))
    assert torch.equal(trunk.conv1.weight, averaged["ema.trunk.conv1.weight"])
    assert not torch.equal(trunk.bn1.running_mean, averaged["ema.trunk.bn1.running_mean"])
    sets = [pack_crops(open_label(root, label), "train", CROP, cache) for label in ("bag", "hat é")]
    pixels = torch.from_numpy(np.concatenate([crops.pixels for crops in sets])).float() / 255
    mean, std = torch.tensor(CROP.mean), torch.tensor(CROP.std)
    found = trunk.conv1(((pixels - mean) / std).permute(0, 3, 1, 2))
    assert torch.allclose(trunk.bn1.running_mean, found.mean(dim=(0, 2, 3)), atol=1e-4)  # batches of equal size
    assert trunk.bn1.num_batches_tracked == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_goes_on_after_a_signal(train, whole, tmp_path, monkeypatch, number):
    output = tmp_path / "x.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(_Run, "_step", stopping(5, number))
        with pytest.raises(KeyboardInterrupt):
            train(output)
    assert read_state(state_path(output))[0].step == 5 and not output.exists()
    with pytest.raises(InputError, match="the state of an unfinished training; resume it, or delete it"):
        train(output)
    assert train(output, resume=True).auc == whole.auc
    assert same(weights(output), weights(whole.path))
    assert same(weights(state_path(output)), weights(state_path(whole.path)))


@pytest.mark.parametrize("evaluations", [100.0, 0.6])
def test_a_signal_outside_of_steps_is_heard_too(train, whole, tmp_path, monkeypatch, evaluations):
    """While BatchNorm is measured at the end; while some crops are judged on the way, after step 3 of 8."""
    output, options = tmp_path / "x.safetensors", replace(OPTIONS, eval_epochs=evaluations)
    name = "mixed_draws" if evaluations > 1 else "judge"
    former = getattr(trunk_train, name)

    def asked(*values):
        signal.raise_signal(signal.SIGINT)
        return former(*values)

    with monkeypatch.context() as patch:
        patch.setattr(trunk_train, name, asked)
        with pytest.raises(KeyboardInterrupt):
            train(output, options)
    assert read_state(state_path(output))[0].step == (8 if evaluations > 1 else 3)
    train(output, options, resume=True)
    assert same(weights(output), weights(whole.path))


def stopping(at, number=signal.SIGINT):
    """A step that asks for an end once `at` steps are taken."""
    step = _Run._step

    def run(self, batch):
        values = step(self, batch)
        if self._progress.step == at:
            signal.raise_signal(number)
        return values

    return run


KILLED = """
import sys
from graftsdk.plan import CropSpec
from graftsdk.training.trunk.options import TrunkNetwork, TrunkOptions
from graftsdk.training.trunk.train import train_trunk
options = TrunkOptions(
    batch=8, tasks=2, steps=100000, eval_epochs=100000, workers=1, threads=1, precision="float32", ema=0.5,
    norm_images=16, learning_rate=0.003, save_seconds=0.0,
)
network = TrunkNetwork("resnet18", 0.1, CropSpec((32, 16)))
train_trunk(sys.argv[1], None, sys.argv[2], options, trunk=network, cache=sys.argv[3], progress=False)
"""


def test_a_training_goes_on_after_a_kill(train, root, cache, tmp_path, monkeypatch):
    """SIGKILL at some moment, then on to step n: the weights of a training that nothing interrupted before n.

    The killed one has its crops augmented by a worker, the others do it themselves: they are the same.
    """
    output, other = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, root, output, cache], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
        if state_path(output).exists() and read_state(state_path(output))[0].step >= 2:
            break
    process.kill()
    process.wait()
    step = read_state(state_path(output))[0].step
    assert step >= 2
    long = replace(OPTIONS, steps=100000, eval_epochs=100000)
    monkeypatch.setattr(_Run, "_step", stopping(step + 3))
    for path, resume in ((output, True), (other, False)):
        with pytest.raises(KeyboardInterrupt):
            train(path, long, resume=resume)
    assert same(weights(state_path(output)), weights(state_path(other)))


def test_a_finished_training_can_be_made_longer(train, whole, tmp_path):
    """Statistics are measured on a copy: what goes on is what was averaged. Rates differ, so steps do."""
    output = tmp_path / "x.safetensors"
    constant = replace(OPTIONS, schedule="step", warmup=0, steps=2)
    train(output, constant)
    first = weights(state_path(output))
    assert train(output, constant, resume=True).steps == 2
    assert same(weights(state_path(output)), first) and len([row for row in rows(output) if row["auc"]]) == 1
    assert train(output, replace(constant, steps=3), resume=True).steps == 3
    assert [row["step"] for row in rows(output) if row["auc"]] == ["2", "3"]


def nan_from(at):
    losses = _Run._losses

    def run(self, batch):
        found = losses(self, batch)
        return [each * (float("nan") if self._progress.step >= at else 1.0) for each in found]

    return run


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_loss_that_is_not_finite(train, tmp_path, monkeypatch, evaluated):
    output = tmp_path / "x.safetensors"
    epochs = 0.6 if evaluated else 100.0  # of 5 steps
    monkeypatch.setattr(_Run, "_losses", nan_from(5))
    with pytest.raises(NonFiniteOutput, match=r"loss of step 5: .*x\.safetensors, which holds the last good"):
        train(output, replace(OPTIONS, eval_epochs=epochs, save_seconds=0.0))
    progress, _, _, tensors = read_state(state_path(output))
    assert progress.step == 5
    kept = torch.equal(Trunk.load(output).conv1.weight, tensors["ema.trunk.conv1.weight"])
    assert kept is not evaluated  # the evaluation was after step 3
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_gradient_that_is_not_finite(train, tmp_path, monkeypatch):
    monkeypatch.setattr(trunk_train, "dynamic_loss", lambda logits, *_: (logits[0] * 0).sqrt().sum())
    with pytest.raises(NonFiniteOutput, match="gradient of step 0: expected finite"):
        train(tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_heads_can_be_kept_as_branches(train, root, cache, tmp_path):
    (tmp_path / "heads").mkdir()
    options = replace(OPTIONS, steps=3)
    report = train(tmp_path / "x.safetensors", options, heads=tmp_path / "heads", labels=["age", "hat é"])
    trunk = Trunk.load(report.path)
    assert sorted(os.listdir(tmp_path / "heads")) == ["age.safetensors", "hat-é.safetensors"]
    branch = Branch.load(tmp_path / "heads" / "age.safetensors")
    assert branch.classes == ("young", "middle", "old") and branch.trunk_fingerprint == trunk.fingerprint(branch.tap)
    crops = pack_crops(open_label(root, "age"), "val", CROP, cache)

    class Answers(torch.nn.Module):
        def forward(self, x, parts):
            return [branch(trunk(x))]

    logits = label_logits(Answers(), 0, crops, range(len(crops)), torch.device("cpu"))
    from graftsdk.training.evaluation import auc

    for target, name in enumerate(branch.classes):
        scores = torch.softmax(torch.from_numpy(logits), 1)[:, target].numpy()
        assert auc(crops.targets == target, scores) == pytest.approx(report.auc["age"][name])


def test_a_trunk_to_start_from(train, whole, tmp_path):
    options = replace(OPTIONS, steps=1, learning_rate=1e-9, ema=0.0)
    report = train(tmp_path / "x.safetensors", options, trunk=whole.path)
    before, after = Trunk.load(whole.path), Trunk.load(report.path)
    assert torch.allclose(before.conv1.weight, after.conv1.weight, atol=1e-7)
    assert set(before.provenance.data) <= set(after.provenance.data)
    with pytest.raises(InputError, match="expected none together with a trunk's checkpoint"):
        train(tmp_path / "y.safetensors", trunk=whole.path, weights="w.safetensors")


def test_gradients_in_bfloat16_are_those_in_float32(train, tmp_path):
    """Freed memory is full of NaN: what reads it shows."""
    found = {}
    for precision in ("float32", "bfloat16"):
        torch.full((2**18,), float("nan"), dtype=torch.bfloat16)
        options = replace(OPTIONS, precision=precision, steps=1, ema=0.0, optimizer="sgd")
        network = replace(NETWORK, crop=CropSpec((64, 32)))
        report = train(tmp_path / f"{precision}.safetensors", options, trunk=network)
        found[precision] = Trunk.load(report.path).state_dict()
    for name, tensor in found["float32"].items():
        assert torch.allclose(tensor.float(), found["bfloat16"][name].float(), rtol=0.05, atol=0.02), name


@pytest.mark.parametrize("change", [{"learning_rate": 0.03}, {"augmentation": Augmentation(flip=0.1)}, {"alpha": 1.0}])
def test_resume_refuses_another_training(train, whole, change):
    before = weights(state_path(whole.path))
    with pytest.raises(InputError, match=f"found other {next(iter(change))}"):
        train(whole.path, replace(OPTIONS, **change), resume=True)
    with pytest.raises(InputError, match="found other data, labels"):
        train(whole.path, labels=["age", "bag"], resume=True)
    with pytest.raises(InputError, match="found other start, trunk"):
        train(whole.path, trunk=replace(NETWORK, width=0.2), resume=True)
    assert same(weights(state_path(whole.path)), before)


def test_resume_refuses_another_number_of_processes(train, whole):
    """Before any other process is started."""
    pytest.importorskip("lightning_fabric")
    with pytest.raises(InputError, match="found other processes"):
        train(whole.path, replace(OPTIONS, devices=2), resume=True)


def test_refused_before_the_first_step(train, tmp_path):
    output = tmp_path / "x.safetensors"
    for labels, message in (([], "found none"), (["bag", "bag"], "different"), (["none"], "expected a folder")):
        with pytest.raises(InputError, match=message):
            train(output, labels=labels)
    with pytest.raises(PlanPathError, match="expected an existing folder"):
        train(tmp_path / "none" / "x.safetensors")
    with pytest.raises(InputError, match="heads: expected an existing folder"):
        train(output, heads=tmp_path / "none")
    with pytest.raises(InputError, match="batch: expected at least one crop for each of 3 tasks, found 2"):
        train(output, replace(OPTIONS, batch=2, tasks=3))
    assert os.listdir(tmp_path) == []


def test_a_label_whose_validation_lacks_a_class_has_no_auc():
    assert mean_auc({"a": {"yes": 0.5}, "b": {"yes": math.nan}, "c": {"x": 0.8, "y": math.nan, "z": 1.0}}) == 0.7
    assert mean_auc({"b": {"yes": math.nan}}) is None and mean_auc({}) is None


def test_rows_of_all_classes():
    assert spread_rows(5, None) == spread_rows(5, 9) == [0, 1, 2, 3, 4]
    assert spread_rows(100, 4) == [0, 25, 50, 75]
