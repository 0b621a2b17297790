"""What the documents take for granted."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from graftsdk.export import export_plan
from graftsdk.models import Branch, Trunk
from graftsdk.plan import open_plan

DEMO = Path(__file__).parents[2] / "examples" / "demo.plan"  # which the documents tell a reader to begin with


@pytest.fixture(scope="module")
def taken_for_granted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of the demo plan's labels, a photograph, one that is damaged, and a video."""
    folder = tmp_path_factory.mktemp("documents")
    trunk = Trunk.create("resnet18", input_size=(96, 64), width=0.25, seed=0)
    trunk.save(folder / "t.safetensors")
    branches = []
    with open_plan(DEMO) as demo:
        for place, label in enumerate(demo.labels):
            classes = demo.manifest.find(label)[1].document.classes
            branches.append(folder / f"{place}.safetensors")
            Branch.create(trunk, label=label, classes=classes, tap=5 if label == "child" else 8).save(branches[-1])
    export_plan(folder / "engine.plan", trunk=folder / "t.safetensors", branches=branches)
    pixels = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "lobby.jpg")
    (folder / "torn.jpg").write_bytes((folder / "lobby.jpg").read_bytes()[:900])
    video = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (90, 120))
    for shift in range(11):
        video.write(np.roll(pixels, 9 * shift, axis=1))
    video.release()
    return folder


@pytest.fixture
def folder(taken_for_granted: Path, tmp_path: Path) -> Path:
    """A copy: a document changes its plan."""
    return Path(shutil.copytree(taken_for_granted, tmp_path / "folder"))
