"""A segmenter without a predictor around it: the same people, from a plan and from an ONNX file, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy_segmenter
import toys

from graftsdk import Predictor
from graftsdk.errors import EngineClosed, InputError, PlanCorrupt, PlanError
from graftsdk.export.segmenter import read_segmenter
from graftsdk.lifecycle.segmenters import open_segmenter
from graftsdk.plan import open_plan
from graftsdk.plan.edit import create_plan
from graftsdk.segmenter import Segmenter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """s.onnx; with.plan, in which it is; without.plan; people.csv."""
    folder = tmp_path_factory.mktemp("segmenter")
    source = read_segmenter(toy_segmenter.write(folder / "s.onnx"))
    create_plan(folder / "with.plan", toys.trunk(), [toys.branch("child")], source.entry())
    toys.write(folder / "without.plan")
    (folder / "people.csv").write_text("crop,source,frame\n")
    return folder


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (150, 200, 3), np.uint8)


@pytest.mark.parametrize("name", ["s.onnx", "with.plan"])
@pytest.mark.usefixtures("nothing_left")
def test_it_finds_whom_the_predictor_finds(folder: Path, name: str, image: np.ndarray) -> None:
    with open_segmenter(folder / name) as segmenter, Predictor(folder / "with.plan") as predictor:
        found, expected = segmenter.find(image), predictor.predict(image)
        assert len(found) == len(expected) == len(toy_segmenter.PEOPLE)
        np.testing.assert_array_equal(found.boxes, [person.box for person in expected])
        np.testing.assert_array_equal(found.scores, [person.score for person in expected])
        assert found.masks is not None
        for index, person in enumerate(expected):
            np.testing.assert_array_equal(found.masks.mask_at(index, 150, 200), person.mask)
        assert len(segmenter.find(image, 0.7)) == 2
        assert len(segmenter.find(np.zeros_like(image))) == 0


def test_plan_and_file_share_what_is_compiled(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    opened = []
    for name in ("with.plan", "s.onnx"):
        with open_segmenter(folder / name) as segmenter:
            opened.append(segmenter.compiled)
    assert opened == [True, False]


def test_closed(folder: Path, image: np.ndarray) -> None:
    with open_plan(folder / "with.plan") as plan:
        segmenter = Segmenter.of_plan(plan)
        segmenter.close()
        segmenter.close()
        with pytest.raises(EngineClosed):
            segmenter.find(image)


@pytest.mark.parametrize(
    ("name", "said", "error", "expected"),
    [
        ("without.plan", {}, InputError, "expected a plan with a segmenter, found none in it; .*--segmenter"),
        ("with.plan", {"person_class": 0}, InputError, "person_class: expected an ONNX file, found the plan .*with"),
        ("with.plan", {"device": "tpu"}, InputError, "device: expected"),
        ("s.onnx", {"family": "none"}, InputError, "expected a family among"),
        ("s.onnx", {"person_class": 5}, InputError, "with person class 5"),
        ("none.onnx", {}, PlanError, "none.onnx"),
        ("none.plan", {}, PlanError, "none.plan"),
        ("people.csv", {}, PlanCorrupt, "expected a plan, found another kind of file.* .onnx, .safetensors or demo"),
    ],
)
@pytest.mark.usefixtures("nothing_left")
def test_what_cannot_be_opened(
    folder: Path, name: str, said: dict[str, object], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected), open_segmenter(folder / name, **said):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("score", [2, float("nan"), "0.5"])
def test_another_score(folder: Path, image: np.ndarray, score: object) -> None:
    with open_segmenter(folder / "s.onnx") as segmenter, pytest.raises(InputError, match="min_score"):
        segmenter.find(image, score)  # type: ignore[arg-type]


def test_no_torch(folder: Path) -> None:
    """With torch out of reach, an ONNX file is opened and crops are cut."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['torchvision'] = None\n"
        "import cv2, numpy as np\n"
        f"cv2.imwrite({str(folder / 'grey.png')!r}, np.full((150, 200, 3), 200, np.uint8))\n"
        "from graftsdk.cli.main import main\n"
        f"sys.exit(main(['crop', {str(folder / 'grey.png')!r}, '-o', {str(folder / 'crops')!r}, '--segmenter', "
        f"{str(folder / 's.onnx')!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    assert len(list((folder / "crops").glob("grey_*.png"))) == 3
    code = code.replace(f", '--segmenter', {str(folder / 's.onnx')!r}", ", '--overwrite'")  # the demo is a checkpoint
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 2 and "a checkpoint needs torch: pip install 'graftsdk[export]'" in run.stderr
