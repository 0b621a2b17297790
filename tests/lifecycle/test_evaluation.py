"""Plans and checkpoints judged on sub-datasets: the same figures, each picture once, one clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from training.crops.drawn_labels import drawn_set

from graftsdk.cli.main import main
from graftsdk.errors import FingerprintMismatch, InputError
from graftsdk.export import export_plan
from graftsdk.lifecycle import evaluation
from graftsdk.lifecycle.evaluation import evaluate_branches, evaluate_plan
from graftsdk.models import Branch, Trunk
from graftsdk.predictor import Predictor
from graftsdk.preprocess import read_crop
from graftsdk.training.labels import open_label


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """trunk.safetensors, hat and bag.safetensors, engine.plan; labels/{hat,bag}, whose test images are the same."""
    home = tmp_path_factory.mktemp("evaluation")
    trunk = Trunk.create("resnet18", (48, 24), width=0.1, seed=3)
    trunk.save(home / "trunk.safetensors")
    for seed, (label, tap) in enumerate({"hat": 4, "bag": len(trunk.blocks)}.items()):
        branch = Branch.create(trunk, label, tap=tap, seed=seed)
        branch.temperature, branch.thresholds = 1.7, {"yes": 0.45 + seed / 10}
        branch.save(home / f"{label}.safetensors")
    drawn_set(home / "labels", "hat", {"train": 2, "val": 2, "test": 9})
    shutil.copytree(home / "labels" / "hat", home / "labels" / "bag")
    export_plan(home / "engine.plan", home / "trunk.safetensors", [home / "hat.safetensors", home / "bag.safetensors"])
    return home


def test_a_plan_has_the_figures_of_its_checkpoints(home: Path) -> None:
    plan = evaluate_plan(home / "engine.plan", home / "labels")
    parts = evaluate_branches(
        home / "trunk.safetensors", [home / "hat.safetensors", home / "bag.safetensors"], home / "labels"
    )
    assert plan.images == parts.images == 18  # of 36 files
    assert plan.thresholds == parts.thresholds == {"hat": {"yes": 0.45}, "bag": {"yes": 0.55}}
    for one, other in zip(plan.judged, parts.judged, strict=True):
        assert (one.label, one.classes, one.identities) == (other.label, other.classes, other.identities)
        np.testing.assert_array_equal(one.targets, other.targets)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_every_score_is_that_of_its_own_picture(home: Path) -> None:
    trunk, branch = Trunk.load(home / "trunk.safetensors"), Branch.load(home / "hat.safetensors")
    (judged,) = evaluate_plan(home / "engine.plan", home / "labels", ["hat"], split="val").judged
    images = open_label(home / "labels", "hat").val
    assert len(judged) == len(images) == 4
    for row, image in enumerate(images):
        with torch.inference_mode():
            logits = branch(trunk.tap(torch.from_numpy(read_crop(image.path, trunk.crop))[None], branch.tap))
        expected = (logits[0].double() / 1.7).softmax(0).numpy()
        np.testing.assert_allclose(judged.probabilities[row], expected, atol=1e-5)
        assert judged.targets[row] == image.target


def test_labels_without_a_sub_dataset_are_left_out(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "labels" / "bag", tmp_path / "bag")
    assert [one.label for one in evaluate_plan(home / "engine.plan", tmp_path).judged] == ["bag"]


def test_built_engines_are_those_of_all_labels(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def predictor(plan: Path, **options: object) -> Predictor:
        """Whatever runs them: the labels decide which engines they are."""
        opened.append(options["labels"])
        return Predictor(plan, labels=options["labels"])  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "Predictor", predictor)
    shutil.copytree(home / "labels" / "bag", tmp_path / "bag")
    for labels in (None, ["bag"]):
        found = evaluate_plan(home / "engine.plan", tmp_path, labels, engines=tmp_path / "built")
        assert [one.label for one in found.judged] == ["bag"]
    evaluate_plan(home / "engine.plan", tmp_path)
    assert opened == [None, ["bag"], ["bag"]]


@pytest.mark.parametrize(
    "option", ["--layout=split", "--precision=int8", "--threads=1", "--engines=built", "--trust-engines"]
)
def test_options_of_a_plan_and_checkpoints(option: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(home / "hat.safetensors"), "--trunk", str(home / "trunk.safetensors")]
    assert main(["evaluate", *files, "--data", str(home / "labels"), "--quiet", "--draws", "0", option]) == 2
    assert f"{option.split('=')[0]}: expected a plan, found --trunk" in capsys.readouterr().err


def test_what_cannot_be_judged(home: Path, tmp_path: Path) -> None:
    other = Trunk.create("resnet18", (48, 24), width=0.1, seed=4)
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(FingerprintMismatch, match=r"hat.safetensors: expected a branch of the trunk .*other"):
        evaluate_branches(tmp_path / "other.safetensors", [home / "hat.safetensors"], home / "labels")
    with pytest.raises(InputError, match="expected different labels, found 'hat', 'hat'"):
        evaluate_branches(home / "trunk.safetensors", [home / "hat.safetensors"] * 2, home / "labels")
    shutil.copytree(home / "labels" / "hat", tmp_path / "coat")
    with pytest.raises(InputError, match="expected sub-datasets of the plan's labels 'hat', 'bag', found 'coat'"):
        evaluate_plan(home / "engine.plan", tmp_path)
    shutil.copytree(home / "labels" / "hat", tmp_path / "hat")
    shutil.rmtree(tmp_path / "hat" / "test")
    with pytest.raises(InputError, match=r"hat: expected a folder test with images, found none"):
        evaluate_plan(home / "engine.plan", tmp_path)
    victim = next((tmp_path / "hat" / "val" / "yes").iterdir())
    victim.write_bytes(b"no picture")
    with pytest.raises(InputError, match=victim.name):
        evaluate_plan(home / "engine.plan", tmp_path, split="val")


def test_the_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(home / "labels"), "--quiet", "--draws", "20"]
    assert main(["evaluate", str(home / "engine.plan"), *data, "-o", str(tmp_path / "out"), "--by", "camera"]) == 0
    printed = capsys.readouterr().out
    assert "| hat" in printed and "## By camera" in printed and "18 pictures" in printed
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["bag.png", "evaluation.csv", "evaluation.md", "hat.png", "roc.png"]
    branches = [str(home / f"{label}.safetensors") for label in ("hat", "bag")]
    assert main(["evaluate", *branches, "--trunk", str(home / "trunk.safetensors"), *data, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["label"] for row in rows] == ["hat", "bag"] and all(0 <= row["auc"] <= 1 for row in rows)
    assert main(["evaluate", *branches, *data]) == 2
    assert "expected one plan, or branches and --trunk" in capsys.readouterr().err
