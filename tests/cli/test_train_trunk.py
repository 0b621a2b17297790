"""`graftsdk train trunk`: what is asked for reaches the training, and what came out is told."""

from __future__ import annotations

import argparse
import json
import os

import pytest
from training.crops.drawn_labels import drawn_set

from graftsdk.cli import train_trunk
from graftsdk.errors import InputError
from graftsdk.models import Branch, Trunk
from graftsdk.plan import CropSpec
from graftsdk.training.crops.augment import NO_AUGMENTATION, Augmentation
from graftsdk.training.trunk.options import TrunkNetwork, TrunkOptions


def parsed(*words):
    parser = argparse.ArgumentParser()
    train_trunk.add_parser(parser.add_subparsers())
    return parser.parse_args(["trunk", "--data", "x", "-o", "y", *map(str, words)])


def command(*words):
    args = parsed(*words)
    return args.run(args)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    for seed, label in enumerate(("hat", "lady's bag")):
        drawn_set(folder, label, {"train": 4, "val": 3}, seed)
    return folder


def test_from_sub_datasets_to_a_trunk_and_on(root, tmp_path, capsys):
    output, heads = tmp_path / "trunk.safetensors", tmp_path / "heads"
    heads.mkdir()
    data = ("--data", root, "-o", output, "--batch", 8, "--workers", 0, "--threads", 1, "--quiet")
    network = ("--arch", "resnet18", "--width", 0.1, "--size", 32, 16)
    assert command(*data, *network, "--steps", 2, "--keep-heads", heads) == 0
    told = capsys.readouterr().out
    assert "validation AUC" in told and "lady's bag" in told and "trunk.safetensors: 2 steps" in told
    trunk = Trunk.load(output)
    assert (trunk.arch, trunk.width, trunk.input_size) == ("resnet18", 0.1, (32, 16))
    assert Branch.load(heads / "hat.safetensors").trunk_fingerprint == trunk.fingerprint(8)
    assert sorted(os.listdir(tmp_path)) == [
        *("crops", "heads", "trunk.curve.csv", "trunk.safetensors", "trunk.safetensors.state"),
    ]
    assert command(*data, *network, "--steps", 3, "--resume", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 3 and set(found["auc"]) == {"hat", "lady's bag"} and 0 <= found["mean_auc"] <= 1
    other = ("--data", root, "-o", tmp_path / "next.safetensors", *data[4:], "--labels", "hat", "--steps", 1)
    assert command(*other, "--init", output, "--cache", tmp_path / "crops") == 0
    assert Trunk.load(tmp_path / "next.safetensors").width == 0.1


@pytest.mark.parametrize(
    "words, wanted",
    [
        ([], TrunkNetwork()),
        (["--arch", "resnet18", "--width", 0.5], TrunkNetwork("resnet18", 0.5)),
        (["--size", 96, 48], TrunkNetwork(crop=CropSpec((96, 48)))),
        (
            ["--size", 96, 48, "--crop", "background=keep", "--crop", "pad=0.1", "--crop", "fill=114"],
            TrunkNetwork(crop=CropSpec((96, 48), background="keep", pad=0.1, fill=114)),
        ),
        (["--init", "a.safetensors"], "a.safetensors"),
    ],
)
def test_the_network_that_is_asked_for(words, wanted):
    assert train_trunk._network(parsed(*words)) == wanted


@pytest.mark.parametrize(
    "words, wanted",
    [
        ([], TrunkOptions(steps=1)),
        (["--tasks", 1, "--alpha", 1, "--eval-every", 2], TrunkOptions(steps=1, tasks=1, alpha=1.0, eval_epochs=2.0)),
        (["--optimizer", "sgd"], TrunkOptions(steps=1, optimizer="sgd", learning_rate=0.03, weight_decay=5e-4)),
        (["--devices", 4, "--nodes", 2], TrunkOptions(steps=1, devices=4, nodes=2)),
        (["--flip", 0], TrunkOptions(steps=1, augmentation=Augmentation(flip=0.0))),
        (["--no-augmentation"], TrunkOptions(steps=1, augmentation=NO_AUGMENTATION)),
    ],
)
def test_the_learning_that_is_asked_for(words, wanted):
    assert train_trunk._options(parsed("--steps", 1, *words)) == wanted


@pytest.mark.parametrize(
    "words, message",
    [
        (["--init", "a", "--arch", "resnet18"], "--init: expected without options of the network, found --arch"),
        (["--crop", "fit"], "--crop: expected KEY=VALUE, background=keep, .* found 'fit'"),
        (["--crop", "mean=0.5"], "--crop: expected KEY=VALUE"),
        (["--crop", "fill=dark"], "--crop: expected a value for fill, found 'fill=dark'"),
        (["--crop", "fit=wide"], "CropSpec.fit: expected 'stretch' or 'letterbox'"),
        (["--size", 0, 10], "CropSpec.size"),
    ],
)
def test_refusals(words, message):
    with pytest.raises(InputError, match=message):
        train_trunk._network(parsed(*words))
