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


@pytest.fixture(scope="module")
def taken_for_granted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, a photograph, one that is damaged, and a video."""
    folder = tmp_path_factory.mktemp("documents")
    trunk = Trunk.create("resnet18", input_size=(96, 64), width=0.25, seed=0)
    trunk.save(folder / "t.safetensors")
    Branch.create(trunk, label="child", tap=5).save(folder / "c.safetensors")
    Branch.create(trunk, label="gender", classes=("female", "male"), tap=8).save(folder / "g.safetensors")
    export_plan(
        folder / "engine.plan",
        trunk=folder / "t.safetensors",
        branches=[folder / "c.safetensors", folder / "g.safetensors"],
    )
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
