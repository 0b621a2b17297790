"""Every code block of the README and of the documentation runs as it stands, in order, in one folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from graftsdk.export import export_plan
from graftsdk.models import Branch, Trunk

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))

# Blocks one after another, each with names of its own, as if each were a file: the libraries are loaded once.
_RUN = """
import json, sys
for place, text in enumerate(json.load(sys.stdin)):
    print("block", place, file=sys.stderr)
    exec(compile(text, f"block {place}", "exec"), {"__name__": "__main__"})
"""


def blocks(document: Path) -> list[tuple[str, str]]:
    """(language, text) of those that are said to be Python or a shell's, in order."""
    return re.findall(r"^```(python|sh)\n(.*?)^```$", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def run(document: Path, folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for kind, group in groupby(blocks(document), key=itemgetter(0)):
        texts = [text for _, text in group]
        command = [sys.executable, "-c", _RUN] if kind == "python" else ["sh", "-e"]
        source = json.dumps(texts) if kind == "python" else "\n".join(texts)
        done = subprocess.run(
            command, cwd=folder, env=environment, input=source, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{document.name}: {source}\n{done.stdout}\n{done.stderr}"


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


def test_readme(folder: Path) -> None:
    assert [kind for kind, _ in blocks(README)].count("sh") >= 2
    run(README, folder)
    assert (folder / "out.jpg").stat().st_size > 0
    assert (folder / "pictures" / "lobby.jpg").stat().st_size > 0
    assert (folder / "pictures" / "clip.mp4").stat().st_size > 0
    assert len((folder / "people.csv").read_text("utf-8").splitlines()) == 1 + 1 + 11  # the head; a person a picture
    assert (folder / "sheet.jpg").stat().st_size > 0
    assert (folder / "segmenter.curve.csv").stat().st_size > 0
    assert (folder / "crops" / "index.csv").stat().st_size > 0


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_page(page: Path, folder: Path) -> None:
    run(page, folder)


def test_links() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text("utf-8"))
    assert targets
    missing = [target for target in targets if not (README.parent / target).exists()]
    assert missing == []


def test_named_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text("utf-8")
    for target in re.findall(r"^    make (\w+)", README.read_text("utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
