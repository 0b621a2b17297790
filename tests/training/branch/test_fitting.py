"""A branch on features: what is there to be learned is learned, what is not is not; the best epoch stays."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from training.branch.planted import ArrayCrops, planted, small_trunk

from graftsdk.errors import InputError, NonFiniteOutput
from graftsdk.models import Branch
from graftsdk.training.branch import fitting
from graftsdk.training.branch.features import LiveFeatures, store_features
from graftsdk.training.branch.fitting import Data, Fit, branch_logits, fit_branch, mean_auc, share_shift
from graftsdk.training.branch.options import BranchOptions
from graftsdk.training.evaluation import softmax

TAP = 6
OPTIONS = BranchOptions(epochs=6, batch=16, learning_rate=3e-3, ema=0.9)


@pytest.fixture(scope="module")
def trunk():
    return small_trunk()


@pytest.fixture(scope="module")
def data(trunk, tmp_path_factory):
    """(train, val) at tap 6."""
    folder, found = tmp_path_factory.mktemp("features"), []
    for seed, (count, views) in enumerate([(160, 2), (80, 1)]):
        crops, targets = planted(count, seed)
        stored = store_features(trunk, (TAP,), ArrayCrops(crops, digest=str(seed)), views, folder, precision="float32")
        found.append(Data(stored[TAP], targets))
    return tuple(found)


def new(trunk, **changed):
    return Branch.create(trunk, "square", **({"tap": TAP, "seed": 3} | changed))


def weights(branch):
    return {name: tensor.clone() for name, tensor in branch.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_planted_squares_are_found(trunk, data):
    branch = new(trunk)
    fit = fit_branch(branch, *data, OPTIONS)
    assert fit.auc > 0.95
    assert mean_auc(data[1].targets, branch_logits(branch, data[1].features)) == fit.auc
    assert len(fit.curve) == fit.epochs == 6 and fit.steps == 60
    assert not branch.training


def test_shuffled_labels_teach_nothing_about_other_images(trunk, data):
    train, val = data
    shuffled = Data(train.features, np.random.default_rng(5).permutation(train.targets))
    fit = fit_branch(new(trunk), shuffled, val, replace(OPTIONS, epochs=4))
    assert abs(np.mean([row["val_auc"] for row in fit.curve]) - 0.5) < 0.2  # 80 images: sigma 0.065


def test_the_trunk_is_as_it_was(trunk, data):
    before = trunk.fingerprint(8)
    branch = new(trunk)
    fit_branch(branch, *data, replace(OPTIONS, epochs=1))
    assert trunk.fingerprint(8) == before
    assert branch.trunk_fingerprint == trunk.fingerprint(TAP)
    assert not same(weights(branch), weights(new(trunk)))


def test_the_same_again_from_the_disk_and_through_the_trunk(trunk, data):
    found = []
    for source in ("disk", "disk", "trunk"):
        branch, train = new(trunk), data[0]
        if source == "trunk":
            live = LiveFeatures(trunk, TAP, ArrayCrops(planted(160, 0)[0]), 2)
            train = Data(live, train.targets)
        fit_branch(branch, train, data[1], replace(OPTIONS, epochs=2))
        found.append((weights(branch), branch_logits(branch, data[1].features)))
    assert same(found[0][0], found[1][0])
    # Convolutions of batches of other sizes sum in another order: 1e-6 in a feature, a little more after 20 steps.
    assert np.abs(found[2][1] - found[0][1]).max() < 1e-2 * np.abs(found[0][1]).max()


def test_the_best_epoch_is_kept_and_patience_ends_it(trunk, data, monkeypatch):
    scores, seen = iter([0.6, 0.9, 0.7, 0.8, 0.7]), []
    judged = fitting.branch_logits

    def spy(branch, *args):
        seen.append(weights(branch))
        return judged(branch, *args)

    monkeypatch.setattr(fitting, "branch_logits", spy)
    monkeypatch.setattr(fitting, "mean_auc", lambda targets, logits: next(scores))
    branch = new(trunk)
    fit = fit_branch(branch, *data, replace(OPTIONS, patience=3, balance="natural"))
    assert (fit.epochs, fit.best_epoch, fit.auc) == (5, 2, 0.9)
    assert same(weights(branch), seen[1])  # natural draws: no bias to put right


@pytest.mark.parametrize(("balance", "positive"), [("balanced", 0.5), ("1:3", 0.25), ("natural", 0.2)])
def test_the_share_that_was_drawn_is_put_right(trunk, balance, positive):
    targets = np.repeat([0, 1], [80, 20])
    options = replace(OPTIONS, balance=balance, epochs=8, learning_rate=0.05)
    shift = share_shift(targets, 2, options)
    assert shift == pytest.approx([math.log(0.8 / (1 - positive)), math.log(0.2 / positive)])
    black = Data(_Black(100), targets)  # nothing to be told but how common each class is
    branch = new(trunk, tap=8)
    fit_branch(branch, black, black, options)
    assert softmax(branch_logits(branch, black.features))[0, 1] == pytest.approx(0.2, abs=0.03)


def test_the_shares_that_are_told_are_put_right_in_place_of_those_of_the_images(trunk):
    targets = (np.arange(100) < 50).astype(np.int64)  # half of them, where a thousandth are
    branch = new(trunk, tap=8)
    black = Data(_Black(100), targets, None, np.array([0.999, 0.001]))
    fit_branch(branch, black, black, replace(OPTIONS, epochs=1, learning_rate=1e-9))
    shift = branch.classifier.bias.detach().numpy()
    np.testing.assert_allclose(shift[1] - shift[0], np.log(0.001 / 0.999), rtol=1e-3)


class _Black:
    def __init__(self, count):
        self.views, self._count = 1, count

    def __len__(self):
        return self._count

    def take(self, indices, views):
        return torch.zeros(len(indices), 48, 1, 1)


class _Poisoned:
    """NaN from a given draw on."""

    def __init__(self, features, good):
        self.views, self._features, self._left = features.views, features, good

    def __len__(self):
        return len(self._features)

    def take(self, indices, views):
        self._left -= 1
        taken = self._features.take(indices, views)
        return taken if self._left >= 0 else taken * float("nan")


@pytest.mark.parametrize(("good", "best"), [(0, 0), (24, 2)])
def test_nan_names_the_step_and_leaves_what_was_best_before(trunk, data, good, best):
    branch, fit = new(trunk), Fit()
    train = Data(_Poisoned(data[0].features, good), data[0].targets)
    with pytest.raises(NonFiniteOutput, match=f"'square': loss of step {good}: .* lower learning rate"):
        fit_branch(branch, train, data[1], OPTIONS, fit=fit)
    assert fit.best_epoch in ({0} if not best else {1, 2})
    assert all(bool(torch.isfinite(tensor).all()) for tensor in branch.state_dict().values())
    if best:
        assert mean_auc(data[1].targets, branch_logits(branch, data[1].features)) == fit.auc


def test_being_asked_to_stop_ends_it(trunk, data):
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        fit_branch(new(trunk), *data, OPTIONS, stop=stop)


def test_the_first_own_block_learns_more_slowly(trunk, data):
    branch = new(trunk)
    before = weights(branch)
    fit_branch(branch, *data, replace(OPTIONS, epochs=1, first_rate=0.0, weight_decay=0.0, ema=0.0))
    after, learned = weights(branch), [name for name, _ in branch.named_parameters()]
    moved = {name for name in learned if not torch.equal(before[name], after[name])}
    first = branch.backbone.blocks[TAP]
    assert moved == {name for name in learned if not name.startswith(f"{first}.")}
    assert any(name.startswith(branch.backbone.blocks[TAP + 1]) for name in moved)


def test_answers_that_are_learned_stand_above_the_labels(trunk, data):
    train, val = data
    upside_down = np.stack([np.stack([4.0 * train.targets, -4.0 * train.targets + 4], axis=1)] * 2).astype(np.float32)
    taught = Data(train.features, train.targets, upside_down)
    assert fit_branch(new(trunk), taught, val, replace(OPTIONS, soft_weight=1.0)).curve[-1]["val_auc"] < 0.1
    assert fit_branch(new(trunk), taught, val, replace(OPTIONS, soft_weight=0.0)).curve[-1]["val_auc"] > 0.9


def test_distillation_loss_is_the_divergence():
    options = BranchOptions(soft_weight=0.25, soft_temperature=3.0)
    rng = np.random.default_rng(0)
    logits, wanted, targets = rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), np.array([0, 2, 1, 1, 0])
    p, q, own = softmax(wanted, 3.0), softmax(logits, 3.0), softmax(logits)
    hard = -np.log(own[np.arange(5), targets]).mean()
    soft = 9 * (p * np.log(p / q)).sum(axis=1).mean()
    found = fitting._loss(*(torch.from_numpy(array) for array in (logits, targets, wanted)), options)
    assert float(found) == pytest.approx((0.75 * hard + 0.25 * soft) / math.log(3))


def test_three_classes_have_the_mean_of_their_aucs():
    logits = np.array([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [0, 3, 1]])
    assert mean_auc(np.array([0, 1, 2, 1]), logits) == 1.0
    assert mean_auc(np.array([1, 0, 2, 2]), logits) < 0.8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tap": -1}, "tap: expected an integer"),
        ({"width": 0.0}, "width: expected a number"),
        ({"width": "half"}, "width: expected a number"),
        ({"batch": 1}, "batch: expected an integer from 2"),
        ({"balance": "even"}, "balance: expected one of"),
        ({"threshold": "best"}, "rule: expected one of"),
        ({"precision": "float8"}, "precision: expected one of"),
        ({"epochs": 0}, "epochs: expected an integer from 1"),
        ({"ema": 1.0}, "ema: expected a number"),
    ],
)
def test_options_are_checked_when_they_are_made(changed, message):
    with pytest.raises(InputError, match=message):
        BranchOptions(**changed)
