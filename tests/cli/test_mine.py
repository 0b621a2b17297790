"""`graftsdk mine`: from a sub-dataset and a trunk to lists, table, plot and sheets."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import cv2
import pytest
from training.mining.small_labels import write_label

import graftsdk.training.labels
from graftsdk.cli import main as commands
from graftsdk.errors import InputError
from graftsdk.models import Trunk
from graftsdk.preprocess import CropSpec
from graftsdk.training.labels import open_label
from graftsdk.training.mining import MiningOptions, mine_negatives, read_list
from graftsdk.training.mining.report import write_list


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(commands.COMMANDS, "mine", ("graftsdk.cli.mine", "hard negatives"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with labels/bars and trunk.safetensors."""
    monkeypatch.chdir(tmp_path)
    write_label(tmp_path / "labels")
    Trunk.create("resnet18", (32, 32), width=0.05, crop=CropSpec((32, 32))).save(tmp_path / "trunk.safetensors")
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing is most of the time, and says nothing here."""
    for name in ("draw_sheets", "plot_clusters"):
        monkeypatch.setattr(f"graftsdk.training.mining.mine.{name}", lambda *args: None)


def run(*words):
    known = ["bars", "--data", "labels", "--trunk", "trunk.safetensors", "-o", "out"]
    return commands.main(["mine", *known, *map(str, words), "--quiet"])


def table(folder):
    return list(csv.DictReader((folder / "clusters.csv").read_text().splitlines()))


def pictures(folder):
    return {path: path.read_bytes() for path in (folder / "labels").rglob("*") if path.is_file()}


def test_from_a_folder_to_lists_and_pictures(folder, capsys):
    before = pictures(folder)
    assert run("--clusters", 4) == 0
    printed = capsys.readouterr().out
    assert "of 60 negatives kept" in printed and "similarity" in printed.splitlines()[0]
    assert pictures(folder) == before

    out = folder / "out"
    keep, drop, review = (read_list(out / f"{name}.txt") for name in ("keep", "drop", "review"))
    negatives = {f"train/no/{path.name}" for path in (folder / "labels/bars/train/no").iterdir()}
    assert sorted([*keep, *drop, *review]) == sorted(negatives)
    # What looks like a positive is kept or for review, of what does not a tenth of each cluster is kept.
    hard = {name for name in negatives if "near_" in name}
    assert len(hard & set(drop)) <= 2 and hard & set(keep)
    assert 1 <= len(set(keep) - hard) <= 8

    rows = table(out)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert sum(int(row["size"]) for row in rows) == 60 and sum(int(row["kept"]) for row in rows) == len(keep)
    assert [float(row["emd"]) for row in rows] == sorted(float(row["emd"]) for row in rows)
    told = json.loads((out / "mining.json").read_text())
    assert (told["positives"], told["negatives"], told["kept"]) == (24, 60, len(keep))
    assert told["fingerprint"] == Trunk.load(folder / "trunk.safetensors").fingerprint(8)

    names = {path.name for path in (out / "sheets").iterdir()}
    shown = {f"{row['decision']}-{int(row['rank']):03d}.jpg" for row in rows if row["decision"] != "thinned"}
    assert names == shown | {"positives.jpg"}
    sheet = cv2.imread(str(out / "sheets" / min(shown)))
    assert sheet.shape[1] == 1600
    assert cv2.imread(str(out / "distances.png")).shape == (600, 1080, 3)


def test_again_with_other_shares(folder, capsys):
    """Features are not computed twice; sheets of the first run do not stay among those of the second."""
    assert run("--clusters", 6, "--keep", 1, "--json", "--repeats", 9) == 0
    first = json.loads(capsys.readouterr().out)
    stored = {path: path.stat().st_mtime_ns for path in (folder / "out/features").rglob("*.npy")}
    (folder / "out/sheets/mine.jpg").touch()
    assert run("--clusters", 6, "--keep", 0.1, "--json", "--repeats", 9) == 0
    second = json.loads(capsys.readouterr().out)
    assert first["kept"] > second["kept"] and first["review"] == second["review"]
    assert {path: path.stat().st_mtime_ns for path in (folder / "out/features").rglob("*.npy")} == stored
    kept = [row for row in table(folder / "out") if row["decision"] == "kept"]
    sheets = list((folder / "out/sheets").glob("kept-*.jpg"))
    assert len(sheets) == len(kept) and (folder / "out/sheets/mine.jpg").exists()


def test_the_order_of_the_images_says_nothing(folder, monkeypatch, no_pictures):
    def reversed_label(root, label):
        found = open_label(root, label)
        return replace(found, train=found.train[::-1])

    options = MiningOptions(repeats=2)
    reports = [mine_negatives("labels", "bars", "trunk.safetensors", "a", options)]
    monkeypatch.setattr(graftsdk.training.labels, "open_label", reversed_label)
    reports.append(mine_negatives("labels", "bars", "trunk.safetensors", "b", options))
    assert reports[0].clusters == reports[1].clusters
    for name in ("keep.txt", "drop.txt", "review.txt", "clusters.csv"):
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes()


def test_another_trunk_at_the_same_path(folder, capsys, no_pictures):
    assert run("--json", "--repeats", 2) == 0
    first = json.loads(capsys.readouterr().out)
    Trunk.create("resnet18", (32, 32), width=0.05, seed=5, crop=CropSpec((32, 32))).save("trunk.safetensors")
    assert run("--json", "--repeats", 2) == 0
    second = json.loads(capsys.readouterr().out)
    assert first["fingerprint"] != second["fingerprint"] and first["floor"] != second["floor"]
    assert len(list((folder / "out/features").iterdir())) == 2


def test_the_other_class_is_asked_for(folder, capsys, no_pictures):
    assert run("--positive", "no", "--json", "--sample", 12, "--gamma", 0.5, "--clusters", 3, "--repeats", 2) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["positive"], told["positives"], told["negatives"]) == ("no", 60, 24)
    assert (told["sample"], told["gamma"]) == (12, 0.5)
    assert all("/yes/" in name for name in read_list("out/keep.txt"))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--clusters", "61"], "clusters: expected at most 60, one a negative, found 61"),
        (["--keep", "2"], "keep: expected a share from 0 to 1"),
        (["--positive", "maybe"], "positive: expected a class of 'bars', 'no', 'yes', found 'maybe'"),
        (["-o", "labels/bars/mined"], "expected a folder outside the sub-dataset"),
        (["-o", "trunk.safetensors"], "expected a folder that can be made"),
        (["--trunk", "none.safetensors"], "none.safetensors: expected a readable file"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_one_line_says_what_is_wrong(folder, capsys, words, message):
    before = pictures(folder)
    assert run(*words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and message in line
    assert pictures(folder) == before and not (folder / "out/keep.txt").exists()


def test_lists_hold_any_name_that_is_one_line(tmp_path):
    names = ("train/no/a b.png", "train/no/ß女.png", "train/no/\udce4.png", " x")
    write_list(tmp_path / "x.txt", names)
    assert read_list(tmp_path / "x.txt") == names
    with pytest.raises(InputError, match="without line breaks"):
        write_list(tmp_path / "x.txt", ["a\nb"])
    assert read_list(tmp_path / "x.txt") == names
    with pytest.raises(InputError, match="expected a list of images"):
        read_list(tmp_path / "none.txt")
