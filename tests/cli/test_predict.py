from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas
import pytest
import toys

from graftsdk import Predictor
from graftsdk.cli import predict, work
from graftsdk.cli.main import main
from graftsdk.errors import DecodeError, InputError
from graftsdk.sheet import save_contact_sheet


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
        (["photos"], ["photos/a.jpg", "photos/b.png", "photos/c.webp"]),
        (["photos/c.webp", "photos/a.jpg"], ["photos/c.webp", "photos/a.jpg"]),
        (["photos/*.png"], ["photos/b.png"]),
        (["photos/c.webp", "photos"], ["photos/c.webp", "photos/a.jpg", "photos/b.png"]),  # each once
        (["**/*.jpg"], ["photos/a.jpg"]),
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


def test_csv(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One head, a row a person; a name is what it is, whatever it holds, and no program."""
    names = ["=1+1,.jpg", 'two\nlines "quoted".jpg', "帽子.jpg", "plain.jpg"]
    for name in names:
        (home / name).write_bytes((home / "photos" / "a.jpg").read_bytes())
    assert main(["predict", "engine.plan", *names, "--csv"]) == 0
    text = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["source"] for row in rows] == ["'=1+1,.jpg", *names[1:]]
    assert {row["person"] for row in rows} == {"0"}
    table = pandas.read_csv(io.StringIO(text))
    assert list(table["source"]) == [row["source"] for row in rows]
    with Predictor("engine.plan") as predictor:
        expected = predictor.predict("plain.jpg")
    assert tuple(table.columns) == expected.columns
    assert table["child.score"][3] == pytest.approx(expected[0]["child"].score)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 9.0])  # an image, several, ever more at once
def test_together_as_alone(
    seconds: float, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(11):
        image = np.random.default_rng(index).integers(0, 256, (40 + index, 30, 3), np.uint8)
        assert cv2.imwrite(str(home / "photos" / f"n{index:02d}.png"), image)
    (home / "photos" / "n05.png").write_bytes(b"broken")
    monkeypatch.setattr(work, "AT_ONCE_SECONDS", seconds)
    assert main(["predict", "engine.plan", "photos", "--json"]) == 1
    captured = capsys.readouterr()
    found = [json.loads(line) for line in captured.out.splitlines()]
    with Predictor("engine.plan") as predictor:
        for each in found:
            assert each["persons"] == predictor.predict(each["source"]).to_dict()["persons"]
    assert len({each["source"] for each in found}) == 13
    assert "photos/n05.png: expected JPEG" in captured.err


@pytest.mark.usefixtures("home")
def test_masks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "engine.plan", "photos/a.jpg", "--json", "--masks"]) == 0
    assert json.loads(capsys.readouterr().out)["persons"][0]["mask"] is None  # no segmenter: asked for, and none there


@pytest.mark.usefixtures("home")
def test_reduced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "engine.plan", "photos/a.jpg", "--json", "--reduce", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == [30, 26]


def test_sheet(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "engine.plan", "photos", "--sheet", "sheet.png"]) == 0
    sheet = cv2.imread(str(home / "sheet.png"))
    assert sheet is not None and min(sheet.shape[:2]) > 60
    assert names(capsys.readouterr().out) == ["photos/a.jpg", "photos/b.png", "photos/c.webp"]


@pytest.mark.parametrize("good", [["photos/a.jpg"], []])
def test_sheet_of_what_failed(good: list[str], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a cell, in order, that says which it was."""
    (home / "bad.jpg").write_bytes(b"no picture")
    shown: list[Any] = []

    def save(path: Path, items: list[Any]) -> None:
        shown.extend(items)
        save_contact_sheet(path, items)

    monkeypatch.setattr(predict, "save_contact_sheet", save)
    assert main(["predict", "engine.plan", "bad.jpg", *good, "none.mp4", "--sheet", "sheet.png"]) == 1
    assert [item.source for item in shown] == ["bad.jpg", *good, "none.mp4"]
    assert isinstance(shown[0], DecodeError) and isinstance(shown[-1], InputError)
    sheet = cv2.imread(str(home / "sheet.png"))
    assert sheet is not None and len(np.unique(sheet)) > 10  # there is writing on it


def film(path: Path, frames: int = 6, rate: float = 10.0) -> Path:
    """A clip of noise that gets brighter."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (64, 48))
    for index in range(frames):
        rng = np.random.default_rng(index)
        writer.write((rng.integers(0, 56, (48, 64, 3)) + 200 * index // max(frames, 1)).astype(np.uint8))
    writer.release()
    return path


def read(path: Path) -> tuple[float, list[np.ndarray]]:
    """(frames a second, frames) of a video."""
    reader = cv2.VideoCapture(str(path))
    frames = []
    while (found := reader.read())[0]:
        frames.append(found[1])
    rate = reader.get(cv2.CAP_PROP_FPS)
    reader.release()
    return rate, frames


@pytest.mark.parametrize("stride", [1, 4])
def test_video(stride: int, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film(home / "clip.mp4")
    words = ["predict", "engine.plan", "clip.mp4", "--stride", str(stride), "-o", "out", "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    found = [json.loads(line) for line in captured.out.splitlines()]
    assert [each["frame"] for each in found] == list(range(0, 6, stride))
    assert [each["timestamp"] for each in found] == pytest.approx([0.1 * index for index in range(0, 6, stride)])
    assert {each["source"] for each in found} == {"clip.mp4"}
    rate, frames = read(home / "out" / "clip.mp4")
    assert rate == pytest.approx(10 / stride)
    originals = read(home / "clip.mp4")[1][::stride]
    assert len(frames) == len(originals)
    assert all((frame != original).any() for frame, original in zip(frames, originals, strict=True))
    assert [path.name for path in (home / "out").iterdir()] == ["clip.mp4"]
    assert captured.err.splitlines()[-1].startswith(f"{len(found)} frames, ")


def test_everything_at_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images and videos of one folder, in order; what is broken is told, and the rest goes on."""
    film(home / "photos" / "b.mp4", 2)
    content = film(home / "photos" / "d.mp4", 8).read_bytes()
    (home / "photos" / "d.mp4").write_bytes(content[: len(content) // 2])
    assert main(["predict", "engine.plan", "photos", "nothing.mp4", "photos/*.mp4", "-o", "out", "--csv"]) == 1
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    of = [(Path(row["source"]).name, row["frame"]) for row in rows]
    assert of[:5] == [("a.jpg", ""), ("b.mp4", "0"), ("b.mp4", "1"), ("b.png", ""), ("c.webp", "")]
    assert "\nphotos/d.mp4: expected" in f"\n{captured.err}"  # named once
    assert "nothing.mp4: source: expected a readable file" in captured.err
    assert "3 images, 2 frames, 5 persons, 2 not read" in captured.err
    assert sorted(path.name for path in (home / "out").iterdir()) == ["a.jpg", "b.mp4", "b.png", "c.webp"]


def test_played_live(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest frames, each shown as long as it was the newest: the video is as long as the film."""
    film(home / "clip.mp4", 20, rate=40.0)
    assert main(["predict", "engine.plan", "clip.mp4", "--live", "-o", "out"]) == 0
    captured = capsys.readouterr()
    assert 1 <= len(captured.out.splitlines()) <= 20
    rate, frames = read(home / "out" / "clip.mp4")
    assert rate == pytest.approx(10.0)
    assert 1 <= len(frames) <= 6


@pytest.mark.usefixtures("home")
def test_no_such_camera(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "engine.plan", "987", "ftp://user:secret@host/x", "photos/a.jpg"]) == 1
    captured = capsys.readouterr()
    assert names(captured.out) == ["photos/a.jpg"]
    assert "camera 987: source: expected a camera" in captured.err
    assert "ftp://host/x: source: expected an address" in captured.err
    assert "secret" not in captured.err


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


@pytest.mark.parametrize("order", [("clip.avi", "clip.mp4"), ("clip.mp4", "clip.avi")])
def test_a_video_keeps_its_name(order: tuple[str, str], home: Path) -> None:
    """Whoever has a name keeps it, whichever is named first: a clip is not the picture of another one."""
    lengths = {"clip.avi": 2, "clip.mp4": 5}
    for name, frames in lengths.items():
        film(home / name, frames)
    assert main(["predict", "engine.plan", *order, "-o", "out"]) == 0
    assert len(read(home / "out" / "clip.mp4")[1]) == lengths["clip.mp4"]
    assert len(read(home / "out" / "clip-2.mp4")[1]) == lengths["clip.avi"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sheet", "/proc/sheet.png"], "--sheet /proc/sheet.png: expected a folder that can be written"),
        (["-o", "/proc"], "-o /proc: expected a folder that can be written"),
        (["-o", "/proc/pictures"], "-o /proc/pictures: expected a folder that can be made"),
        (["-o", "taken"], "taken/a.jpg: expected a regular file or nothing, found a folder"),
        (["--sheet", "taken/a.jpg"], "taken/a.jpg: expected a regular file or nothing, found a folder"),
        (["-o", "out", "--sheet", "out/a.jpg"], "--sheet out/a.jpg: expected another file than those of -o"),
    ],
)
def test_targets_are_looked_at_before_the_work(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "Predictor", None)  # not even opened
    Path("taken/a.jpg").mkdir(parents=True)
    assert main(["predict", "engine.plan", "photos/a.jpg", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {says}") and captured.err.count("\n") == 1


def test_sheet_beside_the_pictures(home: Path) -> None:
    """In a folder that -o makes."""
    assert main(["predict", "engine.plan", "photos/a.jpg", "-o", "new/out", "--sheet", "new/out/sheet.jpg"]) == 0
    assert sorted(path.name for path in (home / "new" / "out").iterdir()) == ["a.jpg", "sheet.jpg"]


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
    assert names(captured.out) == ["photos/a.jpg", "photos/b.png", "photos/c.webp"]
    assert "photos/aa.jpg: expected JPEG, PNG, WebP or BMP, found other content (12 bytes)\n" in captured.err
    assert "nothing.jpg: expected a file, found nothing" in captured.err
    assert "3 images, 3 persons, 2 not read" in captured.err
    assert len(list((home / "pictures").iterdir())) == 3


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("layout", ["merged", "split"])
def test_labels_and_layout(layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "engine.plan", "photos/a.jpg", "--json", "--labels", "backpack", "child", "--layout", layout]
    assert main([*words, "--threads", "1", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["backpack", "child"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--labels", "child,gender"], ["child", "gender"]),
        (["--labels", "gender, child"], ["gender", "child"]),
        (["--labels", "gender,", "child"], ["gender", "child"]),
        (["--labels", "a,b"], ["a,b"]),  # a label
        (["--labels", "a,b", "child,gender"], ["a,b", "child", "gender"]),
    ],
)
def test_labels_with_commas(
    words: list[str], expected: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toys.write(home / "commas.plan", ["child", "gender", "a,b", "a"])
    assert main(["predict", "commas.plan", "photos/a.jpg", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == expected


@pytest.mark.usefixtures("home")
def test_labels_before_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    """As the message says that it works."""
    assert main(["predict", "engine.plan", "--labels=child,gender", "photos/a.jpg", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["child", "gender"]


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
        (["photos/a.jpg", "--threshold", "gender.male=0.6", "--threshold", "gender=0.5"], "has a threshold already"),
        (["photos/a.jpg", "--threshold", "child=0.6", "--threshold", "child=0.5"], "has a threshold already"),
        (["photos/a.jpg", "--threshold", "child=1.5"], "from 0 to 1"),
        (["photos/a.jpg", "--threshold", "gender=0.5"], "other"),
        (["photos/a.jpg", "--labels", "hat"], "hat"),
        (["photos/a.jpg", "--labels", "child,hat"], "no label 'hat'"),
        (["photos/a.jpg", "--min-score", "2"], "min_score"),
        (["photos/a.jpg", "--threads", "0"], "threads"),
        (["photos/a.jpg", "--masks"], "expected --json"),
        (["photos/a.jpg", "--stride", "0"], "--stride"),
        (["photos/a.jpg", "--sheet", "sheet.gif"], "sheet.gif: expected a suffix"),
        (["photos/a.jpg", "--sheet", "photos/a.jpg"], "--sheet"),
        (["photos/a.jpg", "--sheet", "nowhere/sheet.png"], "nowhere"),
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
