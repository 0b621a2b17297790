"""Whole trainings of a tiny network: they learn, go on after any end, and refuse what cannot be."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from training.small_sets import write_discs

from graftsdk.errors import DecodeError, InputError, MissingDependency, NonFiniteOutput, PlanCorrupt, PlanPathError
from graftsdk.models import Yolact
from graftsdk.training import NetworkOptions, SegmenterOptions, train_segmenter
from graftsdk.training.segmenter import evaluation
from graftsdk.training.segmenter.evaluation import network_outputs
from graftsdk.training.training_state import read_state, state_path

NETWORK = NetworkOptions("resnet18", 0.1, 16, 8, (64, 64), scales=None, aspect_ratios=(1.0,))
OPTIONS = SegmenterOptions(
    NETWORK,
    **{"batch": 2, "steps": 8, "eval_epochs": 2, "workers": 0, "threads": 1, "precision": "float32", "ema": 0.9},
    **{"optimizer": "sgd", "learning_rate": 0.02, "weight_decay": 5e-4},
)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return write_discs(tmp_path_factory.mktemp("discs") / "set", 4)


def train(discs, output, options=OPTIONS, **more):
    return train_segmenter([discs], output, options, val=[discs], progress=False, **more)


def weights(path):
    return safetensors.torch.load_file(path)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(discs, tmp_path_factory):
    """An uninterrupted training: its checkpoint."""
    output = tmp_path_factory.mktemp("whole") / "x.safetensors"
    train(discs, output)
    return output


def test_what_lies_there_afterwards(whole, discs):
    model = Yolact.load(whole)
    assert model.document().input_size == (64, 64) and model.document().aspect_ratios == (1.0,)
    figures = {"mask_ap", "mask_ap50", "mask_ap75", "images", "steps"}
    assert figures <= set(model.metrics) <= figures | {"f1", "score_threshold"}
    assert model.metrics["images"] == 4 and model.metrics["steps"] in (4, 8)
    assert len(model.provenance.data) == 1
    with open(whole.with_name("x.curve.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["ap"]] == ["4", "8"]
    assert all(float(row["loss"]) > 0 for row in rows)
    progress, _, averaged, _ = read_state(state_path(whole))
    assert progress.finished and progress.step == averaged == 8
    assert not [name for name in os.listdir(whole.parent) if name.endswith(".tmp")]


def test_it_is_judged_by_images_of_all_sets(discs, tmp_path, monkeypatch):
    """On the way by some at equal distances, at the end by all; other ones would not compare."""
    looked_at = []

    def noting(model, images, own=evaluation.evaluate):
        looked_at.append([image.path.name for image in images])
        return own(model, images)

    monkeypatch.setattr("graftsdk.training.segmenter.train.evaluate", noting)
    output, options = tmp_path / "x.safetensors", replace(OPTIONS, steps=2, eval_images=2)
    train(discs, output, options)
    assert looked_at == [["0.png", "2.png"], ["0.png", "1.png", "2.png", "3.png"]]
    with pytest.raises(InputError, match="found other val"):
        train(discs, output, replace(options, steps=4, eval_images=3), resume=True)


def test_no_worker_outlives_it(discs, tmp_path, monkeypatch):
    """Whoever keeps a frame of it, as a caught exception does: at the process's end it would be waited for for ever."""
    from graftsdk.training.segmenter.train import _Run

    kept, losses = [], _Run._losses

    def keeping(self, batch):
        kept.append(sys._getframe())
        return losses(self, batch)

    monkeypatch.setattr(_Run, "_losses", keeping)
    train(discs, tmp_path / "x.safetensors", replace(OPTIONS, steps=2, workers=1))
    assert len(kept) == 2 and not multiprocessing.active_children()


def test_it_learns(discs, tmp_path):
    train(discs, tmp_path / "x.safetensors", replace(OPTIONS, steps=32, eval_epochs=8, copy_paste=0.0))
    with open(tmp_path / "x.curve.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("at", [4, 5])
def test_a_training_goes_on_after_ctrl_c(discs, whole, tmp_path, monkeypatch, at):
    output = tmp_path / "x.safetensors"
    from graftsdk.training.segmenter.train import _Run

    step = _Run._step

    def interrupted(self, batch):
        values = step(self, batch)
        if self._progress.step == at:
            signal.raise_signal(signal.SIGINT)
        return values

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(discs, output)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert read_state(state_path(output))[0].step == at
    with pytest.raises(InputError, match="the state of an unfinished training; resume it, or delete it"):
        train(discs, output)
    train(discs, output, resume=True)
    assert same(weights(output), weights(whole))
    assert same(weights(state_path(output)), weights(state_path(whole)))


KILLED = """
import sys
from graftsdk.training import NetworkOptions, SegmenterOptions, train_segmenter
network = NetworkOptions("resnet18", 0.1, 16, 8, (64, 64), scales=None, aspect_ratios=(1.0,))
options = SegmenterOptions(
    network, batch=2, steps=100000, eval_epochs=1000, workers=1, threads=1, precision="float32",
    optimizer="sgd", learning_rate=0.02, weight_decay=5e-4, ema=0.9, save_seconds=0.0,
)
train_segmenter([sys.argv[1]], sys.argv[2], options, val=[sys.argv[1]], progress=False)
"""


def test_a_training_goes_on_after_a_kill(discs, tmp_path):
    """SIGKILL at some moment, then on to step n: the weights of a training that nothing interrupted before n.

    The killed one has its images loaded by a worker, the others load them themselves: they are the same.
    """
    output = tmp_path / "x.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, discs, output], env={**os.environ, "OMP_NUM_THREADS": "1"}
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
    end, long = step + 3, replace(OPTIONS, steps=100000, eval_epochs=1000)
    resumed, fresh = Stopped(long, end), Stopped(long, end)
    resumed.run(discs, output, resume=True)
    fresh.run(discs, tmp_path / "y.safetensors")
    assert same(weights(state_path(output)), weights(state_path(tmp_path / "y.safetensors")))


class Stopped:
    """A training that is interrupted after a step."""

    def __init__(self, options, end):
        self.options, self.end = options, end

    def run(self, discs, output, **more):
        from graftsdk.training.segmenter.train import _Run

        step, end = _Run._step, self.end

        def stopping(run, batch):
            values = step(run, batch)
            if run._progress.step == end:
                signal.raise_signal(signal.SIGINT)
            return values

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_Run, "_step", stopping)
            with pytest.raises(KeyboardInterrupt):
                train(discs, output, self.options, **more)


def test_every_optimizer_goes_on(discs, tmp_path):
    options = replace(OPTIONS, optimizer="adamw", learning_rate=1e-3, weight_decay=0.02, eval_epochs=1000)
    resumed, whole = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    Stopped(options, 2).run(discs, resumed)
    Stopped(options, 4).run(discs, resumed, resume=True)
    Stopped(options, 4).run(discs, whole)
    assert same(weights(state_path(resumed)), weights(state_path(whole)))


def test_a_finished_training_can_be_made_longer_and_begun_anew(discs, whole, tmp_path):
    output = tmp_path / "x.safetensors"
    train(discs, output, replace(OPTIONS, steps=2))
    assert train(discs, output, replace(OPTIONS, steps=2), resume=True).steps == 2
    assert train(discs, output, replace(OPTIONS, steps=3), resume=True).steps == 3
    assert train(discs, output).steps == 8
    assert same(weights(output), weights(whole))


def test_resume_without_a_state_begins(discs, whole, tmp_path):
    train(discs, tmp_path / "x.safetensors", resume=True)
    assert same(weights(tmp_path / "x.safetensors"), weights(whole))


@pytest.mark.parametrize(
    "change, message",
    [({"learning_rate": 0.03}, "learning_rate"), ({"network": replace(NETWORK, channels=24)}, "network")],
)
def test_resume_refuses_another_training(discs, tmp_path, change, message):
    output = tmp_path / "x.safetensors"
    train(discs, output, replace(OPTIONS, steps=1))
    with pytest.raises(InputError, match=f"found other {message}"):
        train(discs, output, replace(OPTIONS, **change), resume=True)
    with pytest.raises(InputError, match="found other data"):
        other = write_discs(tmp_path / "other", 4, seed=1)
        train_segmenter([other], output, OPTIONS, resume=True, progress=False)


def test_a_damaged_state(discs, tmp_path):
    output = tmp_path / "x.safetensors"
    state_path(output).write_bytes(b"nothing of the kind, but long enough to be read")
    with pytest.raises(PlanCorrupt, match="expected"):
        train(discs, output, resume=True)
    state_path(output).write_bytes(safetensors.torch.save({}, metadata={"graftsdk.training": json.dumps({})}))
    with pytest.raises(PlanCorrupt, match="the state of a training"):
        train(discs, output, resume=True)


def test_another_checkpoint_to_start_from(discs, whole, tmp_path, caplog):
    caplog.set_level("INFO")
    network = replace(NETWORK, classes=("person", "person2"))
    with pytest.raises(InputError, match="'person2'"):
        train(discs, tmp_path / "x.safetensors", replace(OPTIONS, network=network), init=whole)
    wider = replace(OPTIONS, steps=1, learning_rate=1e-9, ema=0.0, network=replace(NETWORK, prototypes=12))
    train(discs, tmp_path / "x.safetensors", wider, init=whole)
    told = next(record.getMessage() for record in caplog.records if "start anew" in record.getMessage())
    assert "proto" in told and "head" in told
    before, after = weights(whole), weights(tmp_path / "x.safetensors")
    kept = [name for name in before if name.startswith("backbone.") and name.endswith("weight")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in kept)
    norms = [name for name in before if name.endswith("running_mean")]
    assert norms and all(torch.equal(before[name], after[name]) for name in norms)  # 2 images a batch: frozen


def test_averaged_weights_are_saved_with_averaged_statistics(discs, tmp_path):
    output = tmp_path / "x.safetensors"
    train(discs, output, replace(OPTIONS, steps=3, ema=0.5))
    tensors = weights(state_path(output))
    saved = weights(output)
    name = next(name for name in saved if name.endswith("running_mean"))
    assert torch.equal(saved[name], tensors[f"ema.{name}"])
    assert not torch.equal(saved[name], tensors[f"model.{name}"])


def test_without_validation_the_last_weights_are_kept(discs, tmp_path):
    report = train_segmenter([discs], tmp_path / "x.safetensors", replace(OPTIONS, steps=2), progress=False)
    assert report.ap is None and report.steps == 2
    assert set(Yolact.load(report.path).metrics) == {"steps"}


def test_a_time_budget_ends_it(discs, tmp_path):
    options = replace(OPTIONS, steps=None, minutes=0.005)
    report = train_segmenter([discs], tmp_path / "x.safetensors", options, progress=False)
    assert report.steps >= 1 and report.seconds >= 0.3


def test_other_threads_can_train(discs, tmp_path):
    """Signals are for the main thread only."""
    done = []
    thread = threading.Thread(
        target=lambda: done.append(train(discs, tmp_path / "x.safetensors", replace(OPTIONS, steps=1)).steps)
    )
    thread.start()
    thread.join()
    assert done == [1]


def test_a_loss_that_is_not_finite(discs, tmp_path):
    options = replace(OPTIONS, steps=60, learning_rate=100.0, clip=1e6, warmup=0)
    with pytest.raises(NonFiniteOutput, match="train with a lower learning rate"):
        train_segmenter([discs], tmp_path / "x.safetensors", options, progress=False)


@pytest.mark.parametrize("size", [(64, 64), (96, 96)])
def test_gradients_in_bfloat16_are_those_in_float32(discs, tmp_path, size):
    """Freed memory is full of NaN: what reads it shows."""
    weights_after = {}
    for precision in ("float32", "bfloat16"):
        torch.full((2**18,), float("nan"), dtype=torch.bfloat16)
        options = replace(
            OPTIONS, network=replace(NETWORK, input_size=size), precision=precision, steps=1, ema=0.0, mixed_sizes=False
        )
        path = tmp_path / f"{precision}.safetensors"
        train_segmenter([discs], path, options, progress=False)
        weights_after[precision] = weights(path)
    for name, tensor in weights_after["float32"].items():
        assert torch.allclose(tensor.float(), weights_after["bfloat16"][name].float(), rtol=0.05, atol=0.02), name


def test_refused_before_the_first_step(discs, tmp_path, monkeypatch):
    with pytest.raises(PlanPathError, match="expected an existing folder"):
        train(discs, tmp_path / "none" / "x.safetensors")
    with pytest.raises(InputError, match="expected a picture"):
        train(discs, tmp_path / "x.safetensors", plot=tmp_path / "x.txt")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"pip install 'graftsdk\[train\]'"):
        train(discs, tmp_path / "x.safetensors", plot=tmp_path / "x.png")
    assert os.listdir(tmp_path) == []


def test_the_curve_is_drawn(discs, tmp_path):
    train(discs, tmp_path / "x.safetensors", replace(OPTIONS, steps=1), plot=tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_outputs_are_those_of_the_exported_network():
    model = Yolact.create("resnet18", (64, 64), width=0.1, channels=16, prototypes=8)
    outputs = network_outputs(model, torch.zeros(2, 3, 64, 64))
    assert list(outputs) == ["loc", "conf", "mask", "priors", "proto"]
    assert outputs["conf"].sum(-1) == pytest.approx(1.0)
    assert outputs["priors"].shape == outputs["loc"].shape[1:]


def test_a_broken_image_ends_it_with_the_images_name(tmp_path):
    folder = write_discs(tmp_path / "set", 4)
    (folder / "images" / "2.png").write_bytes(b"none")
    with pytest.raises(DecodeError, match=r"2\.png: expected a readable image"):
        train(folder, tmp_path / "x.safetensors")
    assert state_path(tmp_path / "x.safetensors").exists()


def test_one_image_of_one_cell_teaches_batchnorm_nothing(discs, tmp_path):
    with pytest.raises(InputError, match="batch: expected at least 2 images of 64x64 .*, found 1; freeze it"):
        train(discs, tmp_path / "x.safetensors", replace(OPTIONS, batch=1, mixed_sizes=False))
