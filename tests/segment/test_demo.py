"""The segmenter that graftsdk brings: small, licensed, and it finds drawn people that it has never seen."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from graftsdk.cli.main import main
from graftsdk.lifecycle.segmenters import open_segmenter
from graftsdk.models import Yolact
from graftsdk.segment.demo import demo_segmenter, named_segmenter
from graftsdk.training import NetworkOptions
from graftsdk.training.segmenter.datasets import open_image_set
from graftsdk.training.segmenter.mask_ap import average_precision, detections, truth_of
from graftsdk.training.segmenter.start import new_segmenter
from graftsdk.training.synthetic import write_scenes

SCENES = 24


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a seed that nothing was trained or judged on."""
    folder = tmp_path_factory.mktemp("demo") / "scenes"
    write_scenes(folder, SCENES, seed=2026)
    return folder


def test_what_it_says_of_itself() -> None:
    assert demo_segmenter().stat().st_size <= 8_000_000
    model = Yolact.load(demo_segmenter())
    assert (model.classes, model.provenance.licence) == (("person",), "Apache-2.0")
    assert len(model.provenance.data) == 1
    assert 0.3 < (model.document().score_threshold or 0.0) < 0.8
    assert model.metrics["mask_ap50"] >= 0.9 and model.metrics["images"] == 500


def test_it_finds_people_whom_it_has_never_seen(scenes: Path) -> None:
    """As it is served. 0.928 on 500 scenes; of so few the AP50 varies by some hundredths."""
    images = open_image_set(scenes).images
    found = []
    with open_segmenter("demo", device="cpu") as segmenter:
        for number, image in enumerate(images, start=1):
            instances = segmenter.find(cv2.imread(str(image.path)), 0.05)
            found += detections(instances, image.size, number, 1)
    judged = average_precision(truth_of(images), found, range(1, SCENES + 1), 1)
    assert judged.ap50 > 0.85 and judged.ap > 0.55


def test_only_its_name_means_it(tmp_path: Path) -> None:
    assert named_segmenter("demo") == demo_segmenter()
    model = object()
    for other in ("Demo", "./demo", "demo.plan", tmp_path / "demo", Path("demo"), None, model):
        assert named_segmenter(other) is other


def test_a_training_starts_from_it() -> None:
    document = Yolact.load(demo_segmenter()).document()
    network = NetworkOptions(**{name: getattr(document, name) for name in NetworkOptions.__dataclass_fields__})
    begun, whole = new_segmenter(network, "demo").state_dict(), Yolact.load(demo_segmenter()).state_dict()
    assert begun.keys() == whole.keys() and all(begun[name].equal(whole[name]) for name in whole)


def test_crop_takes_it_where_no_other_is_named(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    picture = max(open_image_set(scenes).images, key=lambda image: sum(not a.crowd for a in image.annotations))
    assert main(["crop", str(picture.path), "-o", str(tmp_path / "crops")]) == 0
    assert "drawn people alone" in capsys.readouterr().err
    assert list((tmp_path / "crops").glob("*_0.png"))
