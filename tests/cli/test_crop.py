from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy_segmenter
import toys

from graftsdk import Predictor
from graftsdk.cli import crop_folder
from graftsdk.cli.crop_folder import COLUMNS
from graftsdk.cli.main import main
from graftsdk.export.samples import sample_crops
from graftsdk.export.segmenter import read_segmenter
from graftsdk.lifecycle.segmenters import open_segmenter
from graftsdk.plan import CropSpec
from graftsdk.plan.edit import create_plan
from graftsdk.preprocess import decode_image, mask_crop

SPEC = CropSpec(size=(48, 24), fill=99)


@pytest.fixture(autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy is compiled once for all tests here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "crop-cache"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a segmenter and two images; the working directory."""
    monkeypatch.chdir(tmp_path)
    toy_segmenter.write(tmp_path / "s.onnx")
    (tmp_path / "photos").mkdir()
    for index, name in enumerate(("b.png", "a.png")):
        assert cv2.imwrite(str(tmp_path / "photos" / name), noise(index))
    return tmp_path


def noise(seed: int) -> np.ndarray:
    """uint8[150, 200 + seed, 3]"""
    return np.random.default_rng(seed).integers(0, 256, (150, 200 + seed, 3), np.uint8)


def crop(*words: str, segmenter: str = "s.onnx") -> int:
    return main(["crop", *words, "-o", "crops", "--segmenter", segmenter])


def index(folder: str | Path = "crops") -> list[dict[str, str]]:
    with (Path(folder) / "index.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == COLUMNS
    return rows


def files(folder: str | Path = "crops") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def numbers(row: dict[str, str], *columns: str) -> np.ndarray:
    return np.array([float(row[column]) for column in columns])


def back(row: dict[str, str], spec: CropSpec, folder: str | Path = "crops", *, whole: bool) -> np.ndarray:
    """float32[3, H, W]: the crop of a picture that was written, its alpha being the mask."""
    pixels = cv2.imread(str(Path(folder) / row["crop"]), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (int(row["height"]), int(row["width"]), 4)
    box = numbers(row, "x0", "y0", "x1", "y1") - np.tile(numbers(row, "left", "top"), 2)
    if whole:
        box = np.array([0, 0, pixels.shape[1], pixels.shape[0]], float)
    return mask_crop(np.ascontiguousarray(pixels[:, :, :3]), box[None], pixels[None, :, :, 3] >= 128, spec)[0]


@pytest.mark.parametrize(
    ("pad", "spec", "whole"),
    [
        (0.0, SPEC, True),  # the picture is the crop
        (0.0, SPEC, False),
        (0.3, SPEC, False),  # the index says where in it
        (0.3, CropSpec(size=(48, 24), pad=0.3), True),
        (0.3, CropSpec(size=(48, 24), pad=0.1, fit="letterbox"), False),
        (0.3, CropSpec(size=(48, 24), box="mask"), True),  # the mask says so itself
        (0.0, CropSpec(size=(48, 24), background="keep"), True),  # what is around the person is there too
    ],
)
@pytest.mark.usefixtures("home")
def test_a_crop_is_what_serving_cuts(pad: float, spec: CropSpec, whole: bool) -> None:
    """The same bits, from the picture as from the whole image."""
    assert crop("photos", "--pad", str(pad)) == 0
    with open_segmenter("s.onnx") as segmenter:
        for name in ("a", "b"):
            image = decode_image(f"photos/{name}.png")
            found = segmenter.find(image)
            large = np.flatnonzero((found.boxes[:, 2:] - found.boxes[:, :2]).min(axis=1) >= 16)
            expected = mask_crop(image, found.boxes[large], found.masks.select(large), spec)  # type: ignore[union-attr]
            rows = [row for row in index() if row["crop"].startswith(f"{name}_")]
            assert len(rows) == len(expected) == 3
            for row, each in zip(rows, expected, strict=True):
                np.testing.assert_array_equal(back(row, spec, whole=whole), each)


def test_a_plan_says_of_the_crops_what_it_says_of_the_image(home: Path) -> None:
    """As export and training read them, through the plan's own crop specification."""
    source = read_segmenter(home / "s.onnx")
    create_plan(home / "engine.plan", toys.trunk(), [toys.branch("child"), toys.branch("hat", 2)], source.entry())
    assert crop("photos", segmenter="engine.plan") == 0
    with Predictor("engine.plan") as predictor:
        persons = [p for name in ("a", "b") for p in predictor.predict(f"photos/{name}.png") if min_side(p.box) >= 16]
        paths = [home / "crops" / row["crop"] for row in index()]
        spec = predictor.plan.manifest.crop
        scores = predictor.run(np.concatenate(list(sample_crops(paths, spec, 8))))
        assert len(persons) == len(paths) == 6
        for label, rows in scores.items():
            np.testing.assert_array_equal(rows, [list(person[label].scores.values()) for person in persons])


def min_side(box: np.ndarray) -> float:
    return float(min(box[2] - box[0], box[3] - box[1]))


@pytest.mark.usefixtures("home")
def test_index_and_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    assert crop("photos") == 0
    rows = index()
    assert [row["crop"] for row in rows] == [f"{name}_{place}.png" for name in "ab" for place in range(3)]
    assert [row["source"] for row in rows] == ["photos/a.png"] * 3 + ["photos/b.png"] * 3
    assert files() == sorted([*(row["crop"] for row in rows), "contact_sheet.jpg", "index.csv"])
    for row in rows:
        pixels = cv2.imread(f"crops/{row['crop']}", cv2.IMREAD_UNCHANGED)
        left, top, width, height = numbers(row, "left", "top", "width", "height").astype(int)
        image = cv2.imread(row["source"])
        np.testing.assert_array_equal(pixels[:, :, :3], image[top : top + height, left : left + width])
        assert set(np.unique(pixels[:, :, 3])) == {0, 255}
        assert int(row["mask_area"]) == np.count_nonzero(pixels[:, :, 3])
        assert (row["frame"], row["truncated"]) == ("", "0")
    assert [float(row["score"]) for row in rows] == pytest.approx([0.9, 0.8, 0.4] * 2, abs=1e-3)
    sheet = cv2.imread("crops/contact_sheet.jpg")
    assert sheet is not None and sheet.shape[1] == 1600 and len(np.unique(sheet)) > 100
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"photos/{name}.png: 3 crops, 1 too small" for name in "ab"]
    last = captured.err.splitlines()[-1]
    assert last.startswith("2 images, 6 crops in crops, 2 persons under 16 pixels left out; ")


def test_names_never_collide_and_stay_what_they_are(home: Path) -> None:
    """Same names in several folders, in other letters' case, names of other crops, and every letter that a path has."""
    content = (home / "photos" / "a.png").read_bytes()
    odd = ['=1+1,"x".png', "two\nlines.png", "carriage\rreturn.png", "帽子.png", os.fsdecode(b"not-\xff-utf8.png")]
    odd += ["a-2.png", "a_0.png", "A.PNG", "x" * 240 + ".png", "x" * 230 + ".png"]
    (home / "more").mkdir()
    for name in odd:
        (home / "more" / name).write_bytes(content)
    (home / "more" / "a.png").write_bytes(content)
    assert crop("photos/a.png", *(f"more/{name}" for name in (*odd, "a.png"))) == 0
    rows = index()
    sources = ["photos/a.png", *(f"more/{name}" for name in odd), "more/a.png"]
    assert [row["source"] for row in rows[::3]] == sources
    names = [row["crop"] for row in rows]
    assert len({name.casefold() for name in names}) == len(names) == 3 * len(sources)
    assert {*names, "index.csv", "contact_sheet.jpg"} == set(files())
    assert names[:3] == ["a_0.png", "a_1.png", "a_2.png"]
    assert names[3] == '=1+1,"x"_0.png'


def test_what_cannot_be_read_stops_nobody_else(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "photos" / "aa.png").write_bytes(b"no image")
    cv2.imwrite(str(home / "photos" / "night.png"), np.zeros((150, 200, 3), np.uint8))
    assert crop("photos", "none.jpg", "none.mp4") == 1
    assert len(index()) == 6
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "photos/night.png: 0 crops"
    assert "photos/aa.png: expected JPEG" in captured.err and "none.jpg: expected a file, found nothing" in captured.err
    assert "3 images, 6 crops in crops, " in captured.err and "left out, 3 not read; " in captured.err


def test_nobody_anywhere(home: Path) -> None:
    cv2.imwrite("night.png", np.zeros((150, 200, 3), np.uint8))
    assert crop("night.png") == 0
    assert (files(), index()) == (["index.csv"], [])
    assert crop("photos") == 0  # there is nothing to be replaced


def test_video(home: Path) -> None:
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (200, 150))
    for _ in range(5):
        writer.write(np.full((150, 200, 3), 200, np.uint8))
    writer.release()
    cv2.imwrite("clip_000002.png", noise(0))  # the name of a frame
    assert crop("clip_000002.png", "clip.mp4", "--stride", "2", "--max-persons", "1") == 0
    rows = index()
    assert [(row["crop"], row["frame"]) for row in rows] == [
        ("clip_000002_0.png", ""),
        ("clip_000000_0.png", "0"),
        ("clip_000002-2_0.png", "2"),
        ("clip_000004_0.png", "4"),
    ]
    assert {row["truncated"] for row in rows} == {"1"}


@pytest.mark.parametrize(
    ("words", "scores", "truncated"),
    [
        (["--min-score", "0.5"], [0.9, 0.8], "0"),
        (["--min-score", "0.5", "--max-persons", "1"], [0.9], "1"),
        (["--max-persons", "3"], [0.9, 0.8, 0.4], "0"),  # those left out for their size are not missed
        (["--min-size", "60"], [0.9, 0.8], "0"),
        (["--min-size", "70"], [0.9], "0"),
    ],
)
@pytest.mark.usefixtures("home")
def test_who_is_cut_out(words: list[str], scores: list[float], truncated: str) -> None:
    assert crop("photos/a.png", *words) == 0
    assert [float(row["score"]) for row in index()] == pytest.approx(scores, abs=1e-3)
    assert {row["truncated"] for row in index()} == {truncated}


@pytest.mark.usefixtures("home")
def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert crop("photos/a.png", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["source"], told["too_small"], told["truncated"]) == ("photos/a.png", 1, False)
    for each, row in zip(told["crops"], index(), strict=True):
        assert each["crop"] == row["crop"]
        assert each["box"] == numbers(row, "x0", "y0", "x1", "y1").tolist()
        assert (each["offset"], each["size"]) == (
            numbers(row, "left", "top").tolist(),
            numbers(row, "height", "width").tolist(),
        )


def test_quiet(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "photos" / "aa.png").write_bytes(b"no image")
    with open_segmenter("s.onnx"):  # compiled: nothing is said of that
        capsys.readouterr()
    assert crop("photos", "--quiet") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "photos/aa.png: expected JPEG, PNG, WebP or BMP, found other content (8 bytes)"
    ]


def test_a_folder_with_crops_is_replaced_when_asked_only(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crop("photos") == 0
    before = {name: (home / "crops" / name).read_bytes() for name in files()}
    assert crop("photos/b.png") == 2
    assert "crops: expected a folder without crops" in capsys.readouterr().err
    assert {name: (home / "crops" / name).read_bytes() for name in files()} == before
    for name in ("notes.txt", "b_0.jpg", "z_0.png"):
        (home / "crops" / name).write_bytes(b"mine")
    assert crop("photos/b.png", "--overwrite") == 0
    rows = [row["crop"] for row in index()]
    assert rows == ["b_0.png", "b_1.png", "b_2.png"]
    assert files() == sorted([*rows, "contact_sheet.jpg", "index.csv", "notes.txt", "b_0.jpg", "z_0.png"])


def test_files_that_are_no_crops_are_left_alone(home: Path) -> None:
    """A name that is taken is not given; an index that was edited removes nothing outside its folder."""
    (home / "crops").mkdir()
    (home / "crops" / "a_0.png").write_bytes(b"mine")
    (home / "victim.png").write_bytes(b"mine")
    assert crop("photos/a.png") == 0
    assert [row["crop"] for row in index()] == ["a-2_0.png", "a-2_1.png", "a-2_2.png"]
    path = home / "crops" / "index.csv"
    path.write_text(
        path.read_text().replace("a-2_0.png", "../victim.png").replace("a-2_1.png", str(home / "victim.png"))
    )
    assert crop("photos/b.png", "--overwrite") == 0
    assert (home / "victim.png").read_bytes() == (home / "crops" / "a_0.png").read_bytes() == b"mine"
    assert "a-2_2.png" not in files() and "b_0.png" in files()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("after", [False, True])
def test_interrupted(
    error: type[BaseException],
    after: bool,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At the fourth crop, before or right after it is there: the index has what is there, and the sheet shows it."""
    write, calls = crop_folder.write_picture, []

    def interrupted(path: Path, pixels: np.ndarray) -> None:
        calls.append(path)
        if len(calls) < 4 or after:
            write(path, pixels)
        if len(calls) == 4:
            raise error("full")

    monkeypatch.setattr(crop_folder, "write_picture", interrupted)
    assert crop("photos") == (130 if error is KeyboardInterrupt else 2)
    rows = [row["crop"] for row in index()]
    assert len(rows) == 3 + after
    assert files() == sorted([*rows, "contact_sheet.jpg", "index.csv"])
    assert "Traceback" not in capsys.readouterr().err


def test_the_index_is_kept_up_to_date(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed leaves the rows of all but its last seconds."""
    seen: list[int] = []
    write = crop_folder.write_picture

    def look(path: Path, pixels: np.ndarray) -> None:
        seen.append(len(index()))
        write(path, pixels)

    monkeypatch.setattr(crop_folder, "write_picture", look)
    monkeypatch.setattr(crop_folder, "INDEX_SECONDS", 0.0)
    monkeypatch.setattr(crop_folder, "INDEX_SHARE", 0)
    assert crop("photos") == 0
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photos", "--stride", "0"], "--stride: expected an integer from 1"),
        (["photos", "--pad", "-0.1"], "--pad: expected a number from 0 to 4, found -0.1"),
        (["photos", "--pad", "nan"], "--pad: expected a number from 0 to 4, found nan"),
        (["photos", "--min-size", "8"], "--min-size: expected an integer from 16"),
        (["photos", "--min-score", "2"], "--min-score: expected a number from 0 to 1, found 2"),
        (["photos", "--max-persons", "0"], "--max-persons: expected an integer from 1 to 1000"),
        (["photos", "--segmenter-family", "none"], "expected a family among"),
        (["photos", "--segmenter", "engine.plan"], "engine.plan: expected a plan with a segmenter, found none in it"),
        (["photos", "--segmenter", "nowhere.plan"], "nowhere.plan"),
        (["photos", "--segmenter", "nowhere.onnx"], "nowhere.onnx"),
        (["photos", "-o", "photos"], "-o photos: expected another folder than the sources'"),
        (["photos", "-o", "s.onnx"], "-o s.onnx: expected a folder, found a file"),
        (["photos", "-o", "/proc/crops"], "-o /proc/crops: expected a folder that can be made"),
        (["photos", "-o", "foreign", "--overwrite"], "foreign/index.csv: expected an index that graftsdk crop wrote"),
        (
            ["photos", "-o", "linked", "--overwrite"],
            "linked/index.csv: expected a regular file or nothing, found a link",
        ),
        (["photos/*.gif"], "found none that fit"),
    ],
)
def test_refusals(words: list[str], says: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys.write(home / "engine.plan")
    for name in ("foreign", "linked"):
        (home / name).mkdir()
    (home / "foreign" / "index.csv").write_text("crop,label\na_0.png,hat\n")
    (home / "linked" / "index.csv").symlink_to(home / "foreign" / "index.csv")
    assert main(["crop", "--segmenter", "s.onnx", "-o", "crops", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err.splitlines()[-1]
    assert (home / "foreign" / "index.csv").read_text().startswith("crop,label")
    assert not list(home.rglob("contact_sheet.jpg"))


@pytest.mark.usefixtures("home")
def test_what_has_to_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["crop", "photos", "--segmenter", "some.onnx"])
    assert "-o" in capsys.readouterr().err.splitlines()[-1]


def test_photographs(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real people, by a real segmenter: the same bits from the picture as from the photograph."""
    monkeypatch.chdir(tmp_path)
    network = str(shared / "models" / "yolov8n-seg-640.onnx")
    photos = [str(shared / "data" / "photos" / name) for name in ("bus.jpg", "zidane.jpg", "airport.jpg")]
    assert crop(*photos, "--pad", "0.1", segmenter=network) == 0
    spec = CropSpec(size=(96, 48))
    with open_segmenter(network) as segmenter:
        for photo, count in zip(photos, (4, 2, 0), strict=True):
            image = decode_image(photo)
            found = segmenter.find(image)
            rows = [row for row in index() if row["source"] == photo]
            assert len(rows) == len(found) == count
            for row, each in zip(rows, mask_crop(image, found.boxes, found.masks, spec), strict=True):
                np.testing.assert_array_equal(back(row, spec, whole=False), each)
