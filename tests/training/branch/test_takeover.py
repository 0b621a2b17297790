"""A classifier in use becomes a branch: its answers, its decisions, its recall."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from training.branch.old_network import MIDDLE, STEEP, write_old
from training.crops.drawn_labels import drawn_set

from graftsdk.errors import InputError, PlanCorrupt, PlanPathError
from graftsdk.models import Branch, Trunk
from graftsdk.plan import CropSpec
from graftsdk.preprocess import list_images, read_crop
from graftsdk.training.branch.old_classifier import ClassifierOptions, OldClassifier
from graftsdk.training.branch.options import BranchOptions
from graftsdk.training.branch.takeover import take_over

PLAIN = ClassifierOptions(mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures nobody annotated (`crops`), a sub-dataset "disc", a trunk and old.onnx."""
    root = tmp_path_factory.mktemp("takeover")
    drawn_set(root, "unlabelled", {"train": 40, "val": 1})
    (root / "crops").mkdir()
    for path in (root / "unlabelled" / "train").glob("*/*.png"):
        path.rename(root / "crops" / f"{path.parent.name}-{path.name}")
    drawn_set(root, "disc", {"train": 2, "val": 20}, seed=3)
    Trunk.create("resnet18", width=0.1, crop=CropSpec(size=(48, 32))).save(root / "trunk.safetensors")
    write_old(root / "old.onnx")
    return root


def test_its_answers_are_those_of_the_file(made):
    paths = list(list_images(made / "crops"))[:5]
    with OldClassifier(made / "old.onnx", PLAIN) as old:
        logits = old.logits(paths)
        wanted = [STEEP * (float(read_crop(path, old.spec).mean()) - MIDDLE) for path in paths]
    assert old.spec.size == (48, 24)
    assert logits[:, 1] - logits[:, 0] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"last": "Identity"}, {}),  # logits
        ({"shape": ("n", 48, 24, 3)}, {}),
        ({"shape": (1, 3, 48, 24)}, {}),  # a batch of one only
        ({"shape": ("n", 3, "h", "w")}, {"size": (48, 24)}),
    ],
)
def test_it_may_be_of_any_usual_form(made, tmp_path, changes, options):
    paths = list(list_images(made / "crops"))[:5]
    with OldClassifier(made / "old.onnx", PLAIN) as old:
        wanted = old.logits(paths)
    write_old(tmp_path / "other.onnx", **changes)
    with OldClassifier(tmp_path / "other.onnx", ClassifierOptions(mean=(0, 0, 0), std=(1, 1, 1), **options)) as other:
        found = other.logits(paths)
    assert found[:, 1] - found[:, 0] == pytest.approx(wanted[:, 1] - wanted[:, 0], abs=1e-3)


@pytest.mark.parametrize(("threshold", "decided"), [(0.5, [0, 1, 1]), (0.9, [0, 0, 1]), (0.0, [1, 1, 1])])
def test_decisions_follow_its_threshold(made, threshold, decided):
    with OldClassifier(made / "old.onnx", ClassifierOptions(threshold=threshold)) as old:
        assert old.decided(np.array([[0, -2.0], [0, 1.0], [0, 3.0]])).tolist() == decided
        assert old.decided(np.array([[0, 2.0, 1.0]])).tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"shape": ("n", 3, "h", "w")}, {}, InputError, "say \\(H, W\\)"),
        ({"shape": ("n", 1, 48, 24)}, {}, PlanCorrupt, "expected an input"),
        ({}, {"output": "mean"}, InputError, "expected one of its outputs 'score'"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, changes, options, error, message):
    write_old(tmp_path / "old.onnx", **changes)
    with pytest.raises(error, match=message):
        OldClassifier(tmp_path / "old.onnx", ClassifierOptions(**options))
    with pytest.raises(PlanPathError):
        OldClassifier(tmp_path / "nothing.onnx")


def test_a_branch_takes_over_and_what_differs_is_listed(made, tmp_path):
    options = BranchOptions(
        tap=6, soft_weight=1.0, threshold="accuracy", epochs=6, batch=16, views=1, learning_rate=3e-3
    )
    with OldClassifier(made / "old.onnx", PLAIN) as old:
        found = take_over(
            old,
            made / "crops",
            "disc",
            made / "trunk.safetensors",
            tmp_path / "disc.safetensors",
            options,
            root=made,
            cache=tmp_path / "cache",
            progress=False,
        )
        truth = old.decided(old.logits(sorted((made / "disc" / "val" / "yes").iterdir())))
    branch = Branch.load(tmp_path / "disc.safetensors")
    assert found.branch.metrics["auc"] > 0.9  # against the old decisions
    assert found.rule == f"recall>={truth.mean():.17g}"
    assert branch.thresholds == {"yes": found.threshold}
    with open(found.list, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found.differing < found.compared
    for row in rows:
        assert row["old_decision"] != row["new_decision"]
        assert (float(row["new_score"]) >= found.threshold) == (row["new_decision"] == "yes")
        assert (float(row["old_score"]) >= 0.5) == (row["old_decision"] == "yes")


def test_a_classifier_that_says_one_thing_only_is_refused(made, tmp_path):
    with (
        OldClassifier(made / "old.onnx", ClassifierOptions(threshold=0.0)) as old,
        pytest.raises(InputError, match="decides as 'no', found none"),
    ):
        take_over(old, made / "crops", "disc", made / "trunk.safetensors", tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []
