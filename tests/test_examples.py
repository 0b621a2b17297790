"""Every example runs as it stands and leaves what it says it leaves."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import toys

from graftsdk import Predictor
from graftsdk.plan import open_plan
from graftsdk.training.synthetic import draw_scene, is_crowd

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: str | Path) -> str:
    """What the example prints."""
    environment = {**os.environ, "PYTHONSAFEPATH": ""}  # an example finds the modules beside it
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "engine.plan"
    toys.write(path, ["child", "gender"])
    return path


def test_own_masks(plan: Path, tmp_path: Path) -> None:
    out = run("own_masks.py", plan, tmp_path)
    assert out.count("masks agree on 9") == 3  # of three people, each within 10%
    picture = cv2.imread(str(tmp_path / "own_masks.png"))
    assert picture is not None and picture.shape == (720, 960, 3)


def test_video(plan: Path, tmp_path: Path) -> None:
    out = run("video.py", plan, tmp_path)
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("frame")] == [
        f"frame {frame} at {frame / 10:.2f} s" for frame in range(0, 20, 2)
    ]
    video = cv2.VideoCapture(str(tmp_path / "annotated.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 10 and video.get(cv2.CAP_PROP_FPS) == 5


def test_tracks(tmp_path: Path) -> None:
    lines = run("tracks.py", EXAMPLES / "demo.plan", tmp_path).splitlines()
    frames = [re.match(r"frame (\d+): persons (\[.*\]), (\d+) ms of engine", line) for line in lines]
    who = [json.loads(found[2]) for found in frames if found]
    assert who == [[0, 1, 2]] * 6 + [[0, 1]] * 6
    assert [found[3] == "0" for found in frames if found] == [False] * 3 + [True] * 9  # decided after three answers
    told = [re.match(r"frame [012]: person (\d): (.+): ", line) for line in lines]
    assert len({found.groups() for found in told if found}) == len([found for found in told if found]) == 3 * 5
    assert cv2.imread(str(tmp_path / "tracks.jpg")).shape == (720, 960, 3)


def test_thread_pool(plan: Path) -> None:
    out = run("thread_pool.py", plan)
    assert out.count(": 200 3 persons") == 6 and out.count(": 400 DecodeError") == 1
    assert out.splitlines()[-1].endswith("True")


def test_predict_says_what_is_true_and_needs_no_torch(tmp_path: Path) -> None:
    absent = ("torch", "torchvision", "onnxscript", "pycocotools", "sklearn", "scipy")
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({absent}))"
    code += "; runpy.run_path(sys.argv.pop(1), None, '__main__')"
    command = [sys.executable, "-c", code, str(EXAMPLES / "predict.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    truth = json.loads((EXAMPLES / "lobby.json").read_text(encoding="utf-8"))["people"]
    lines = re.findall(r"^  (.{15}) (.{8}) ([01]\.\d\d)   true: (.+?)(  <- wrong)?$", done.stdout, re.MULTILINE)
    lines = [tuple(cell.rstrip() for cell in line) for line in lines]
    count, labels = done.stdout.count("person "), len({label for label, *_ in lines})
    assert labels >= 4 and len(lines) == count * labels and len(truth) >= count >= 3
    for start in range(0, len(lines), labels):  # each person's lines are one person's truth
        told = {(label, None if true == "-" else true) for label, _, _, true, _ in lines[start : start + labels]}
        assert any(told <= person["attributes"].items() for person in truth)
    asked = [(said, true, wrong) for _, said, _, true, wrong in lines if true != "-"]
    assert all((said != true) == bool(wrong) for said, true, wrong in asked)
    right = sum(said == true for said, true, _ in asked)
    assert f"{count} of {len(truth)} people found; {right} of {len(asked)} answers are true" in done.stdout
    assert right >= 0.8 * len(asked)
    assert (tmp_path / "engine.plan").read_bytes() == (EXAMPLES / "demo.plan").read_bytes()
    assert cv2.imread(str(tmp_path / "prediction.png")).shape == (360, 640, 3)


def test_what_is_told_of_the_lobby_is_what_was_drawn() -> None:
    held_out = runpy.run_path(str(EXAMPLES / "held_out.py"))
    told = json.loads((EXAMPLES / "lobby.json").read_text(encoding="utf-8"))
    scene = draw_scene(told["seed"], told["index"])
    people = [person for person in scene.persons if not is_crowd(person)]
    assert [each["box"] for each in told["people"]] == [list(person.box) for person in people]
    assert [each["attributes"] for each in told["people"]] == held_out["truths"](people)
    np.testing.assert_array_equal(cv2.imread(str(EXAMPLES / "lobby.jpg")), held_out["picture"](scene))


def test_demo_plan() -> None:
    """The share of right answers is over all labels; `held_out.py` tells each label's, on more scenes."""
    path = EXAMPLES / "demo.plan"
    assert path.stat().st_size < 20e6
    manifest = open_plan(path).manifest
    (tree,) = manifest.trees
    branches = [entry.document for entry in tree.branches]
    assert len(branches) >= 4 and len({branch.tap for branch in branches}) >= 3
    assert any(branch.pooling == "bilinear" for branch in branches)
    assert any(branch.tap == branch.until for branch in branches)  # no blocks of its own
    decided = [branch for branch in branches if len(branch.classes) == 2]
    assert all(branch.thresholds and branch.metrics and branch.histogram for branch in decided)
    assert {part.provenance.licence for part in manifest.parts.values()} == {"Apache-2.0"}
    assert manifest.segmenter is not None
    held_out = runpy.run_path(str(EXAMPLES / "held_out.py"))
    answers: dict[str, list[tuple[str, str]]] = {branch.label: [] for branch in branches}
    with Predictor(path) as predictor:
        for index in range(24):
            scene = draw_scene(2028, index)
            people = [person for person in scene.persons if not is_crowd(person)]
            if not people:
                continue
            masks = np.stack([person.mask for person in people])
            prediction = predictor.predict(held_out["picture"](scene), masks=masks)
            for person, truth in zip(prediction, held_out["truths"](people), strict=True):
                for attribute in person:
                    if (true := truth[attribute.label]) is not None:
                        answers[attribute.label].append((true, attribute.name))
    pairs = [pair for each in answers.values() for pair in each]
    assert len(pairs) > 200 and held_out["right"](pairs) > 0.8
    # One answer for everybody would have that share too, but a balanced one of a half, or of three classes a third.
    assert np.mean([held_out["balanced"](each) for each in answers.values()]) > 0.57


def test_held_out_counts_what_is_right() -> None:
    out = run("held_out.py", EXAMPLES / "demo.plan", "4").splitlines()
    people, seen = map(int, re.match(r"4 scenes, (\d+) people; the segmenter found (\d+) of them", out[0]).groups())
    assert people >= seen > 0
    assert {line[:20].strip() for line in out[2:]} == {"suit", "food deliverer", "headwear", "courier", "child"}
    shares = [float(share) for line in out[2:] for share in re.findall(r"([\d.]+)%", line)]
    assert len(shares) == 25 and max(shares) <= 100 and np.mean(shares) > 50


def test_embed(plan: Path) -> None:
    out = run("embed.py", plan, EXAMPLES / "lobby.jpg").splitlines()
    one = "1 persons"  # a plan without a segmenter: the image is one
    assert out[:4] == [f"camera 1: {one}", f"camera 2: {one}", "camera 3: DecodeError", f"camera 4: {one}"]
    assert out[4:] == ["reloaded, largest change of a score: 0"]


def test_asyncio_service(plan: Path) -> None:
    out = run("asyncio_service.py", plan, EXAMPLES / "lobby.jpg").splitlines()
    assert out == ["6 answers, 6 persons", "cancelled: True", "alone: 1 persons"]


def test_every_example_is_run() -> None:
    run_here = {
        "embed.py",
        "asyncio_service.py",
        "own_masks.py",
        "video.py",
        "thread_pool.py",
        "predict.py",
        "held_out.py",
        "tracks.py",
    }
    modules = {"scene.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == run_here | modules
