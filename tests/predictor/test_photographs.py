"""Real photographs through a real segmenter inside a plan: the people in them are found, and nobody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toys

from graftsdk import Predictor
from graftsdk.export import export_plan
from graftsdk.models import Branch, Trunk

PERSONS = {
    "bus.jpg": 4,
    "zidane.jpg": 2,
    "street.jpg": 2,
    "sergey.png": 1,
    "mp_coco_446.jpg": 1,
    "attribute_human_demo.jpg": 1,
    "airport.jpg": 0,
    "mp_coco_72.jpg": 0,
}


@pytest.fixture(scope="module")
def predictor(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tmp_path_factory.mktemp("plan") / "engine.plan"
    trunk = Trunk.create("resnet18", input_size=(96, 48), width=0.25)
    branches = [Branch.create(trunk, "child", tap=5), Branch.create(trunk, "hat", tap=8)]
    export_plan(path, trunk, branches, segmenter=shared / "models" / "yolov8n-seg-640.onnx")
    return Predictor(path)


@pytest.mark.parametrize(("name", "count"), PERSONS.items())
def test_persons(predictor: Predictor, shared: Path, name: str, count: int) -> None:
    prediction = predictor.predict(shared / "data" / "photos" / name)
    assert len(prediction) == count
    for person in prediction:
        x0, y0, x1, y1 = person.box
        assert person.score is not None and person.score >= 0.25
        assert person.mask is not None
        ys, xs = np.nonzero(person.mask)
        assert len(ys) > 0.2 * (x1 - x0) * (y1 - y0)
        assert x0 - 1 <= xs.min() and xs.max() <= x1 and y0 - 1 <= ys.min() and ys.max() <= y1


def test_a_beach_has_many(predictor: Predictor, shared: Path) -> None:
    assert len(predictor.predict(shared / "data" / "photos" / "mp_coco_315.jpg")) >= 5


def test_min_score_leaves_the_surest(predictor: Predictor, shared: Path) -> None:
    photo = shared / "data" / "photos" / "bus.jpg"
    scores = [person.score for person in predictor.predict(photo)]
    assert scores == sorted(scores, reverse=True)
    with Predictor(predictor.plan.path, min_score=0.8) as strict:  # type: ignore[arg-type]
        assert [p.score for p in strict.predict(photo)] == [score for score in scores if score >= 0.8]


def test_together_as_alone(predictor: Predictor, shared: Path) -> None:
    photos = [shared / "data" / "photos" / name for name in ("zidane.jpg", "airport.jpg", "bus.jpg")]
    together = predictor.predict(photos)
    assert [p.to_dict()["persons"] for p in together] == [predictor.predict(p).to_dict()["persons"] for p in photos]


def test_own_masks_need_no_segmenter_run(predictor: Predictor, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor._loaded, "_segment", None)  # calling it would fail
    image = np.zeros((64, 64, 3), np.uint8)
    assert len(predictor.predict(image, boxes=np.array([[0, 0, 32, 64]], np.float32))) == 1


def test_toys_are_no_segmenter(tmp_path: Path) -> None:
    toys.write(tmp_path / "p")
    assert Predictor(tmp_path / "p").plan.manifest.segmenter is None
