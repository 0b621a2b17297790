from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import toys

from graftsdk.cli.main import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plan and images; the working directory."""
    monkeypatch.chdir(tmp_path)
    toys.write(tmp_path / "engine.plan")
    (tmp_path / "photos").mkdir()
    for index, name in enumerate(("b.png", "a.jpg", "c.webp")):
        image = np.random.default_rng(index).integers(0, 256, (60, 50 + index, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / "photos" / name), image)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path


def names(out: str) -> list[str]:
    return [line.split(" ", 1)[0] for line in out.splitlines()]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["photos"], ["a.jpg", "b.png", "c.webp"]),
        (["photos/c.webp", "photos/a.jpg"], ["c.webp", "a.jpg"]),
        (["photos/*.png"], ["b.png"]),
        (["photos/c.webp", "photos"], ["c.webp", "a.jpg", "b.png"]),  # each once
        (["**/*.jpg"], ["a.jpg"]),
    ],
)
@pytest.mark.usefixtures("home")
def test_sources(sources: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "engine.plan", *sources]) == 0
    captured = capsys.readouterr()
    assert names(captured.out) == expected
    last = captured.err.splitlines()[-1]
    assert last.startswith(f"{len(expected)} image{'s' * (len(expected) > 1)}, ")
    assert all(stage in last for stage in ("decode", "segment", "crop", "engine", "total"))


def test_pattern_characters_in_a_real_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "photos" / "a.jpg").rename(home / "[a].jpg")
    assert main(["predict", "engine.plan", "[a].jpg"]) == 0
    assert names(capsys.readouterr().out) == ["[a].jpg"]


def test_json_lines(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "engine.plan", "photos", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(each["source"]).name for each in found] == ["a.jpg", "b.png", "c.webp"]
    assert all(list(each["persons"][0]["attributes"]) == ["child", "gender", "backpack"] for each in found)


def test_pictures(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "more").mkdir()
    for path in ("more/a.jpg", "more/b.png"):
        (home / path).write_bytes((home / "photos" / Path(path).name).read_bytes())
    (home / "photos" / "c.webp").rename(home / "photos" / "c.bin")
    sources = ["photos", "more", "photos/c.bin"]
    assert main(["predict", "engine.plan", *sources, "-o", "new/pictures"]) == 0
    saved = sorted((home / "new" / "pictures").iterdir())
    assert [path.name for path in saved] == ["a-2.jpg", "a.jpg", "b-2.png", "b.png", "c.bin.jpg"]
    for path in saved:
        picture = cv2.imread(str(path))
        assert picture is not None and picture.shape[0] == 60
    original = cv2.imread(str(home / "photos" / "b.png"))
    assert (cv2.imread(str(home / "new" / "pictures" / "b.png")) != original).any()  # something was drawn


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("folder", ["photos", "./photos/../photos", "engine.plan"])
def test_pictures_never_replace_what_is_there(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in Path("photos").iterdir()}
    assert main(["predict", "engine.plan", "photos", "-o", folder]) == 2
    assert "-o" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("photos").iterdir()} == before


def test_one_broken_file_does_not_stop_the_rest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "photos" / "aa.jpg").write_bytes(b"not an image")
    assert main(["predict", "engine.plan", "photos", "nothing.jpg", "-o", "pictures"]) == 1
    captured = capsys.readouterr()
    assert names(captured.out) == ["a.jpg", "b.png", "c.webp"]
    assert "photos/aa.jpg: image: expected JPEG" in captured.err
    assert "nothing.jpg: image: expected a file, found nothing" in captured.err
    assert "3 images, 3 persons, 2 not read" in captured.err
    assert len(list((home / "pictures").iterdir())) == 3


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("layout", ["merged", "split"])
def test_labels_and_layout(layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "engine.plan", "photos/a.jpg", "--json", "--labels", "backpack", "child", "--layout", layout]
    assert main([*words, "--threads", "1", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["backpack", "child"]


@pytest.mark.usefixtures("home")
def test_thresholds(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "engine.plan", "photos/a.jpg", "--json"]
    chosen = ["--threshold", "child=0", "--threshold", "gender.male=0.01", "--threshold", "gender.female=1"]
    assert main([*words, *chosen]) == 0
    found = json.loads(capsys.readouterr().out)["persons"][0]["attributes"]
    assert found["child"]["thresholds"] == {"yes": 0.0}
    assert found["child"]["present"] is True
    assert found["gender"]["thresholds"] == {"female": 1.0, "male": 0.01}


def test_labels_with_dots_and_equals_signs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys.write(home / "odd.plan", ["a", "a.b", "c=d"])
    chosen = ["--threshold", "a.b=0.1", "--threshold", "a.yes=0.2", "--threshold", "c=d=0.3"]
    assert main(["predict", "odd.plan", "photos/a.jpg", "--json", *chosen]) == 0
    found = json.loads(capsys.readouterr().out)["persons"][0]["attributes"]
    assert {label: each["thresholds"]["yes"] for label, each in found.items()} == {"a": 0.2, "a.b": 0.1, "c=d": 0.3}


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photos/*.gif"], "found none that fit"),
        (["photos/a.jpg", "--threshold", "child"], "expected LABEL=X"),
        (["photos/a.jpg", "--threshold", "child=high"], "expected LABEL=X"),
        (["photos/a.jpg", "--threshold", "hat=0.5"], "expected a label of child, gender, backpack"),
        (["photos/a.jpg", "--threshold", "child=0.5", "--threshold", "child.no=0.5"], "has a threshold already"),
        (["photos/a.jpg", "--threshold", "child=1.5"], "from 0 to 1"),
        (["photos/a.jpg", "--threshold", "gender=0.5"], "other"),
        (["photos/a.jpg", "--labels", "hat"], "hat"),
        (["photos/a.jpg", "--min-score", "2"], "min_score"),
        (["photos/a.jpg", "--threads", "0"], "threads"),
    ],
)
def test_refusals(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "engine.plan", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err.splitlines()[-1]


def test_empty_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "none").mkdir()
    assert main(["predict", "engine.plan", "none"]) == 2
    assert "expected a folder with images" in capsys.readouterr().err
