"""`graftsdk train segmenter`."""

from __future__ import annotations

import argparse
import json

import pytest
from training.small_sets import write_discs

from graftsdk.cli import train
from graftsdk.cli.main import main
from graftsdk.cli.train import _learning, _network
from graftsdk.models import Yolact
from graftsdk.training import NetworkOptions, SegmenterOptions
from graftsdk.training.segmenter.options import YOLACT_PRESET

TINY = [
    "--width",
    "0.1",
    "--channels",
    "16",
    "--prototypes",
    "8",
    "--size",
    "64",
    "64",
    "--batch",
    "2",
    "--workers",
    "0",
]


def run(*words):
    return main(["train", "segmenter", *map(str, words)])


def test_from_a_folder_to_a_checkpoint_and_on(tmp_path, capsys):
    data, output = write_discs(tmp_path / "set", 8), tmp_path / "x.safetensors"
    assert run("--data", data, "--val-split", 0.5, "-o", output, "--steps", 2, *TINY, "--quiet", "--json") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (
        found["path"] == str(output)
        and found["steps"] == 2
        and set(found["mask_ap"]) == {"ap", "ap50", "ap75", "images"}
    )
    assert "without annotation" in printed.err
    assert Yolact.load(output).document().aspect_ratios == NetworkOptions().aspect_ratios

    assert run("--data", data, "--val-split", 0.5, "-o", output, "--steps", 3, *TINY, "--resume") == 0
    assert "x.safetensors: 3 steps" in capsys.readouterr().out

    mine = tmp_path / "mine.safetensors"
    words = ["--batch", "2", "--workers", "0", "--quiet", "--aspect-ratios", "0.5"]
    assert run("--data", data, "--init", output, "-o", mine, "--steps", 1, *words) == 0
    document = Yolact.load(mine).document()
    assert (document.channels, document.input_size, document.aspect_ratios) == (16, (64, 64), (0.5,))


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "expected steps, epochs or minutes, found none"),
        (["--steps", "1", "--arch", "vgg"], "arch: expected one of"),
        (["--steps", "1", "--size", "64", "0"], "input_size"),
        (["--steps", "1", "--val", "nowhere"], "nowhere: expected a folder of annotated images"),
        (["--steps", "1", "--classes", "cat"], "expected the categories 'cat', found 'person'"),
        (["--steps", "1", "--data", "set:2"], "a share above 0 and below 1"),
        (["--steps", "1", "--init", "none.safetensors"], "none.safetensors: expected a readable file"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    write_discs(tmp_path / "set", 2)
    assert run("--data", "set", "-o", "x.safetensors", *words) == 2
    printed = capsys.readouterr()
    assert message in printed.err.splitlines()[-1] and printed.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "x.safetensors").exists()


def parsed(*words):
    parser = argparse.ArgumentParser()
    train.configure(parser)
    return parser.parse_args(["segmenter", "--data", "x", "-o", "y", *words])


@pytest.mark.parametrize(
    "words, wanted",
    [
        ([], NetworkOptions()),
        (["--preset", "yolact"], YOLACT_PRESET),
        (
            ["--preset", "yolact", "--size", "300", "400"],
            YOLACT_PRESET.__class__(**{**vars(YOLACT_PRESET), "input_size": (300, 400)}),
        ),
        (["--size", "96", "96"], NetworkOptions(input_size=(96, 96), scales=(15.0, 30.0, 45.0, 60.0, 80.0))),
        (
            ["--size", "96", "96", "--scales", *"12345"],
            NetworkOptions(input_size=(96, 96), scales=(1.0, 2.0, 3.0, 4.0, 5.0)),
        ),
        (["--square-priors", "--classes", "a", "b"], NetworkOptions(square_priors=True, classes=("a", "b"))),
        (
            ["--no-square-priors", "--preset", "yolact"],
            YOLACT_PRESET.__class__(**{**vars(YOLACT_PRESET), "square_priors": False}),
        ),
        (["--scales", "1", "2", "3", "4", "5"], NetworkOptions(scales=(1.0, 2.0, 3.0, 4.0, 5.0))),
    ],
)
def test_the_network_that_is_asked_for(words, wanted):
    assert _network(parsed(*words)) == wanted


@pytest.mark.parametrize(
    "words, wanted",
    [
        ([], ("adamw", 0.001, 0.02, "focal")),
        (["--optimizer", "sgd"], ("sgd", 0.01, 5e-4, "focal")),
        (["--optimizer", "sgd", "--learning-rate", "0.3", "--weight-decay", "0"], ("sgd", 0.3, 0.0, "focal")),
        (["--preset", "yolact"], ("sgd", 0.001, 5e-4, "ohem")),
        (["--preset", "yolact", "--optimizer", "adamw", "--confidence", "focal"], ("adamw", 0.001, 0.02, "focal")),
    ],
)
def test_the_learning_that_is_asked_for(words, wanted):
    options = SegmenterOptions(**_learning(parsed("--steps", "1", *words)))
    assert (options.optimizer, options.learning_rate, options.weight_decay, options.confidence) == wanted


def test_help_of_the_kinds(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "segmenter" in capsys.readouterr().out
