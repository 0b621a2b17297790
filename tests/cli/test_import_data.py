from __future__ import annotations

import json
from pathlib import Path

import pytest
from training.labels import annotated_folders as made

from graftsdk.cli.main import main
from graftsdk.plan import CropSpec
from graftsdk.preprocess import read_crop

LABELS = """
[labels.hat]
positive = "hat"
[labels."sex, as seen"]
classes = { female = "personalFemale", male = "personalMale" }
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "labels.toml").write_text(LABELS, encoding="utf-8")
    made.crowd(tmp_path / "set")
    return ["import", "peta", str(tmp_path / "set"), str(tmp_path / "out"), "--labels", str(tmp_path / "labels.toml")]


def test_import_peta(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--seed", "3", "--negatives", "2", "--test-share", "0.3", "--val-share", "0.2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["label", "classes", "train", "val", "test", "people"]
    assert out[3].startswith("sex, as seen  female / male")
    assert out[-1].endswith("of 240 in PETA") and "2 labels" in out[-1]
    card = json.loads((tmp_path / "out/card.json").read_text(encoding="utf-8"))
    assert (card["options"], card["licence"]) == (
        {"seed": 3, "negatives": 2.0, "test_share": 0.3, "val_share": 0.2, "per_person": None, "split": "by identity"},
        "not stated",
    )


def test_import_as_json_with_links(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json", "--link", "--licence", "research only", "--per-person", "1"]) == 0
    card = json.loads(capsys.readouterr().out)
    people = [row.split(",")[1] for row in (tmp_path / "out/hat/identities.csv").read_text().splitlines()[1:]]
    assert card["options"]["per_person"] == 1 and len(people) == len(set(people)) and card["images_in_source"] == 240
    assert card == json.loads((tmp_path / "out/card.json").read_text(encoding="utf-8"))
    assert card["licence"] == "research only" and set(card["labels"]) == {"hat", "sex, as seen"}
    assert next((tmp_path / "out/hat/train/yes").iterdir()).stat().st_nlink > 1


def test_import_pa100k_and_rap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy")
    toml = tmp_path / "labels.toml"
    toml.write_text("[labels.female]\npositive = 'Female'\n", encoding="utf-8")
    words = ["import", "pa100k", str(made.pa100k(tmp_path / "pa")), str(tmp_path / "out"), "--labels", str(toml)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "note: 2 images named and not there" in out and "of 38 in PA-100K" in out
    toml.write_text("[labels.female]\npositive = 'Femal'\n", encoding="utf-8")
    folder = str(made.rap(tmp_path / "rap", 1, people=40))
    assert main(["import", "rap", folder, str(tmp_path / "out2"), "--labels", str(toml), "--negatives", "1"]) == 0
    assert "of 79 in RAP" in capsys.readouterr().out
    with pytest.raises(SystemExit):  # it has a split of its own
        main([*words, "--test-share", "0.2"])


def test_import_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = tmp_path / "labels.toml"
    toml.write_text("[labels.hat]\npositive = 'hat'\n[labels.age]\nclasses = { old = 'age_old', young = 'age_child' }")
    words = ["import", "scenes", str(made.scenes(tmp_path / "set", 40)), str(tmp_path / "out"), "--labels", str(toml)]
    assert main([*words, "--negatives", "1"]) == 0
    assert "2 labels" in (out := capsys.readouterr().out) and "of 80 in drawn scenes" in out
    crops = list((tmp_path / "out/hat/test").glob("*/*.png"))
    assert crops and all(read_crop(path, CropSpec(size=(32, 16))).any() for path in crops)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "xdg") == ["labels.toml", "out", "set"]
    with pytest.raises(SystemExit):  # cut pictures are nobody's to link to
        main([*words, "--link"])


def test_ctrl_c(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftsdk.training.labels import import_labels

    def interrupt(*_: object) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(import_labels, "_put", interrupt)
    assert main(words) == 130
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "xdg") == ["labels.toml", "set"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda words: words[:3] + ["{tmp}"] + words[4:], "expected a new or empty folder"),
        (lambda words: words[:2] + ["{tmp}/none"] + words[3:], "expected PETA's layout"),
        (lambda words: words[:-1] + ["{tmp}/none.toml"], "none.toml: expected a TOML file, found: No such file"),
        (lambda words: [*words, "--negatives", "0"], "negatives: expected a number above 0"),
        (lambda words: [*words, "--per-person", "0"], "per_person: expected"),
    ],
)
def test_one_line_of_what_is_wrong(
    words: list[str], change: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [word.replace("{tmp}", str(tmp_path)) for word in change(words)]  # type: ignore[operator]
    assert main(changed) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
