"""`graftsdk train branch`: what is asked for reaches the training, and what came out is told."""

from __future__ import annotations

import argparse
import json

import pytest
from training.branch.old_network import write_old
from training.crops.drawn_labels import drawn_set

from graftsdk.cli import train_branch
from graftsdk.errors import InputError
from graftsdk.models import Branch, Trunk
from graftsdk.plan import CropSpec


def command(*words):
    parser = argparse.ArgumentParser()
    train_branch.add_parser(parser.add_subparsers())
    args = parser.parse_args(["branch", *map(str, words)])
    return args.run(args)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    drawn_set(root, "lady's bag", {"train": 12, "val": 8, "test": 6})
    Trunk.create("resnet18", width=0.1, crop=CropSpec(size=(48, 32))).save(root / "trunk.safetensors")
    return root


def test_a_search_prints_its_table_and_what_was_kept(made, tmp_path, capsys):
    words = ("--search-taps", 8, 7, "--epochs", 2, "--batch", 8, "--views", 1, "--threshold", "youden", "--quiet")
    data = ("--data", made, "--trunk", made / "trunk.safetensors", "-o", tmp_path / "bag.safetensors")
    assert command("lady's bag", *data, *words) == 0
    told = capsys.readouterr().out
    assert "validation AUC" in told and "test AUC" in told and "thresholds (youden): yes from 0." in told
    assert "2 branches in" in told
    branch = Branch.load(tmp_path / "bag.safetensors")
    assert branch.label == "lady's bag"
    assert f"{branch.metrics['auc']:.4f}" in told


def test_json_is_the_whole_report(made, tmp_path, capsys):
    data = ("--data", made, "--trunk", made / "trunk.safetensors", "-o", tmp_path / "bag.safetensors")
    assert command("lady's bag", *data, "--tap", 8, "--epochs", 1, "--no-cache", "--quiet", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["tap"], report["width"], report["rule"]) == (8, 1.0, "f1")
    assert report["path"].endswith("bag.safetensors") and len(report["tried"]) == 1


def test_a_searchs_taps_beside_a_tap_are_refused(made, tmp_path):
    data = ("--data", made, "--trunk", made / "trunk.safetensors", "-o", tmp_path / "bag.safetensors")
    with pytest.raises(InputError, match="leave one out"):
        command("lady's bag", *data, "--tap", 8, "--search-taps", 7)
    with pytest.raises(SystemExit):
        command("lady's bag", *data, "--tap", "late")


def test_a_teacher_needs_images(made, tmp_path):
    words = ("--trunk", made / "trunk.safetensors", "-o", tmp_path / "bag.safetensors")
    with pytest.raises(InputError, match="expected --images"):
        command("bag", *words, "--teacher", "old.onnx")
    with pytest.raises(InputError, match="expected --data, or --teacher"):
        command("bag", *words)


def test_a_teachers_differences_are_told(made, tmp_path, capsys):
    write_old(tmp_path / "old.onnx")
    images = tmp_path / "crops"
    images.mkdir()
    for path in (made / "lady's bag" / "train").glob("*/*.png"):
        for copy in "abc":  # a fifth is held out
            (images / f"{copy}-{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    words = ("--teacher", tmp_path / "old.onnx", "--images", images, "--tap", 8, "--epochs", 1, "--quiet")
    more = ("--teacher-mean", 0, 0, 0, "--teacher-std", 1, 1, 1, "--trunk", made / "trunk.safetensors")
    more += ("-o", tmp_path / "a.safetensors")
    assert command("lady's bag", *words, *more) == 0
    told = capsys.readouterr().out
    assert "held-out crops decided otherwise than before; in use from 0." in told and "(accuracy)" in told
    assert (tmp_path / "a.differences.csv").read_text().startswith("file,old_score,new_score")
