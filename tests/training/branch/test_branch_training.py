"""From folders and a trunk to a checkpoint, and what goes wrong on the way."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from training.crops.drawn_labels import drawn_set

from graftsdk.errors import FingerprintMismatch, InputError, NonFiniteOutput, PlanPathError
from graftsdk.models import Branch, FewCellsWarning, Trunk
from graftsdk.plan import CropSpec
from graftsdk.preprocess import read_crop
from graftsdk.training.branch import fitting, train
from graftsdk.training.branch.judging import settle
from graftsdk.training.branch.options import BranchOptions
from graftsdk.training.branch.train import train_branch
from graftsdk.training.evaluation import auc
from graftsdk.training.labels import open_label

OPTIONS = BranchOptions(tap=6, epochs=3, batch=16, views=2, learning_rate=3e-3, ema=0.9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the sub-dataset "disc", trunk.safetensors and its packed crops and features."""
    root = tmp_path_factory.mktemp("labels")
    drawn_set(root, "disc", {"train": 24, "val": 16, "test": 12})
    Trunk.create("resnet18", width=0.1, crop=CropSpec(size=(48, 32))).save(root / "trunk.safetensors")
    return root


def trained(made, output, options=OPTIONS, **more):
    return train_branch(made, "disc", made / "trunk.safetensors", output, options, progress=False, **more)


def test_a_checkpoint_that_says_what_it_is(made, tmp_path):
    before = (made / "trunk.safetensors").read_bytes()
    report = trained(made, tmp_path / "disc.safetensors", cache=made / "cache")
    branch, trunk = Branch.load(report.path), Trunk.load(made / "trunk.safetensors")
    assert (made / "trunk.safetensors").read_bytes() == before
    assert branch.trunk_fingerprint == trunk.fingerprint(6)
    assert (branch.label, branch.classes, branch.tap, branch.until) == ("disc", ("no", "yes"), 6, 8)
    assert list(branch.thresholds) == ["yes"] and 0 < branch.thresholds["yes"] < 1
    assert branch.metrics == report.metrics and sum(branch.histogram["yes"]) == 32
    assert branch.provenance.data == (open_label(made, "disc").digest,)
    images = open_label(made, "disc").test
    crops = torch.from_numpy(np.stack([read_crop(image.path, trunk.crop) for image in images]))
    with torch.no_grad():
        logits = branch(trunk.tap(crops, 6)).numpy()
    served = auc([image.target for image in images], logits[:, 1] - logits[:, 0])
    assert served == pytest.approx(report.metrics["test.auc"], abs=0.02)  # packed crops are rounded to bytes
    assert report.metrics["auc"] == report.tried[0].auc > 0.9


def test_the_second_run_reads_the_first_ones_features(made, tmp_path):
    first = trained(made, tmp_path / "a.safetensors", cache=made / "cache")
    kept = {path: path.stat().st_mtime_ns for path in (made / "cache").iterdir()}
    again = trained(made, tmp_path / "b.safetensors", cache=made / "cache")
    assert {path: path.stat().st_mtime_ns for path in (made / "cache").iterdir()} == kept
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert first.metrics == again.metrics


def test_features_lie_beside_the_output_by_default(made, tmp_path):
    trained(made, tmp_path / "a.safetensors", replace(OPTIONS, epochs=1))
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "features").iterdir())
    assert names.count("tap6") == 2 + 1 + 1 and len(names) == 4 + 3  # views of train, val, test; packed crops


def test_without_a_cache_every_batch_goes_through_the_trunk(made, tmp_path):
    report = trained(made, tmp_path / "a.safetensors", replace(OPTIONS, cache=False))
    stored = trained(made, tmp_path / "b.safetensors", replace(OPTIONS, precision="float32"), cache=made / "cache")
    assert report.metrics["auc"] == pytest.approx(stored.metrics["auc"], abs=0.01)
    assert not list((tmp_path / "features").glob("tap*"))


def test_a_search_keeps_the_cheapest_that_is_good_enough(made, tmp_path):
    options = replace(OPTIONS, tap="auto", search_taps=(8, 7, 6), epochs=2, tolerance=1.0)
    report = trained(made, tmp_path / "a.safetensors", options, cache=made / "cache")
    assert [one.candidate.tap for one in report.tried] == [8, 7, 6]
    assert (report.tap, report.macs) == (8, 2 * 48)
    strict = trained(made, tmp_path / "b.safetensors", replace(options, tolerance=0.0), cache=made / "cache")
    best = max(one.auc for one in strict.tried)
    assert strict.metrics["auc"] == best and strict.tap == next(o.candidate.tap for o in strict.tried if o.auc == best)


def test_a_slim_branch_learns_from_the_full_one(made, tmp_path):
    trained(made, tmp_path / "full.safetensors", cache=made / "cache")
    report = trained(
        made,
        tmp_path / "slim.safetensors",
        replace(OPTIONS, tap=7, width=0.25, soft_weight=1.0, epochs=6),
        cache=made / "cache",
        distil=tmp_path / "full.safetensors",
    )
    assert (report.tap, report.width) == (7, 0.25)
    assert report.metrics["auc"] > 0.8


def test_fewer_negatives_and_the_shares_of_all(made, tmp_path, monkeypatch):
    whole = open_label(made, "disc")
    negatives = [image.path.relative_to(made / "disc").as_posix() for image in whole.train if image.target == 0]
    (tmp_path / "keep.txt").write_text("\n".join(negatives[:7]))
    real, seen = train.fit_branch, []

    def watched(branch, data, *args, **kwargs):
        fit = real(branch, data, *args, **kwargs)
        seen.append((np.bincount(data.targets).tolist(), data.shares.tolist()))
        return fit

    monkeypatch.setattr(train, "fit_branch", watched)
    counts = list(whole.counts("train").values())
    options = replace(OPTIONS, epochs=1)
    report = trained(made, tmp_path / "few.safetensors", options, cache=made / "cache", negatives=tmp_path / "keep.txt")
    assert seen == [([7, counts[1]], [count / sum(counts) for count in counts])]
    assert Branch.load(report.path).provenance.data[0] == whole.digest  # it is not stale: `graftsdk status`


def test_a_teacher_of_another_trunk_or_label_is_refused(made, tmp_path):
    other = Trunk.create("resnet18", width=0.1, crop=CropSpec(size=(48, 32)), seed=9)
    Branch.create(other, "disc", tap=8).save(tmp_path / "stranger.safetensors")
    with pytest.raises(FingerprintMismatch, match="expected a branch that was trained on this trunk"):
        trained(made, tmp_path / "a.safetensors", distil=tmp_path / "stranger.safetensors")
    Branch.create(other, "hat", tap=8).save(tmp_path / "hat.safetensors")
    with pytest.raises(InputError, match="found one of 'hat'"):
        trained(made, tmp_path / "a.safetensors", distil=tmp_path / "hat.safetensors")


def test_a_bound_that_cannot_be_met_costs_no_branch(made, caplog):
    branch = Branch.create(Trunk.load(made / "trunk.safetensors"), "disc", tap=8)
    logits, targets = np.array([[0.0, 5], [0, 1], [0, -1], [0, -2]]), np.array([0, 1, 1, 0])
    assert settle(branch, logits, targets, ["a", "b", "c", "d"], "recall>=1") == "recall>=1"
    assert settle(branch, logits, targets, ["a", "b", "c", "d"], "precision>=0.9") == "f1"
    assert "disc: thresholds follow 'f1' in place of 'precision>=0.9'" in caplog.text
    assert 0 < branch.thresholds["yes"] < 1


def test_a_class_without_validation_images_is_told(made):
    branch = Branch.create(Trunk.load(made / "trunk.safetensors"), "disc", tap=8)
    with pytest.raises(InputError):
        settle(branch, np.zeros((2, 2)), np.array([0, 0]), ["a", "b"], "f1")


def test_a_trunk_that_moved_is_found_and_nothing_is_saved(made, tmp_path, monkeypatch):
    real = fitting.fit_branch

    def careless(branch, data, *args, **kwargs):
        fit = real(branch, data, *args, **kwargs)
        data.features._trunk.get_submodule("bn1").running_mean += 1e-3
        return fit

    monkeypatch.setattr(train, "fit_branch", careless)
    with pytest.raises(FingerprintMismatch, match="the branch is not saved"):
        trained(made, tmp_path / "a.safetensors", replace(OPTIONS, cache=False, epochs=1))
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("good", [0, 2])
def test_nan_keeps_the_last_good_checkpoint(made, tmp_path, monkeypatch, good):
    real, steps = fitting._loss, []

    def poisoned(*args):
        steps.append(1)
        return real(*args) * (float("nan") if len(steps) > 3 * good else 1.0)  # 48 images, 3 steps an epoch

    monkeypatch.setattr(fitting, "_loss", poisoned)
    output = tmp_path / "a.safetensors"
    with pytest.raises(NonFiniteOutput, match=f"loss of step {3 * good}") as caught:
        trained(made, output, cache=made / "cache")
    if good:
        assert "holds epoch" in str(caught.value)
        branch = Branch.load(output)
        assert branch.thresholds and branch.metrics["auc"] > 0.5
    else:
        assert not output.exists()


def test_control_c_leaves_what_was_there(made, tmp_path, monkeypatch):
    real = fitting._loss

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(fitting, "_loss", interrupted)
    (tmp_path / "a.safetensors").write_bytes(b"as before")
    with pytest.raises(KeyboardInterrupt):
        trained(made, tmp_path / "a.safetensors", cache=made / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").read_bytes() == b"as before"


def test_an_output_that_cannot_be_written_is_told_at_once(made, tmp_path):
    with pytest.raises(PlanPathError, match="expected an existing folder"):
        trained(made, tmp_path / "nowhere" / "a.safetensors")


def test_bilinear_branches_are_trained_too(made, tmp_path):
    options = replace(OPTIONS, tap=4, until=5, pooling="bilinear", epochs=4)
    with pytest.warns(FewCellsWarning):
        report = trained(made, tmp_path / "a.safetensors", options, cache=made / "cache")
    assert (report.pooling, report.tap, report.until) == ("bilinear", 4, 5)
    assert report.metrics["auc"] > 0.9
