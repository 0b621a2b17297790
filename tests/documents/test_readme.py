"""Every code block of the README runs; its links and make targets exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from code_blocks import ROOT, blocks, run

README = ROOT / "README.md"


@pytest.mark.timeout(900)  # it trains, exports, builds and measures; a minute where nothing else runs
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


def test_links() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text("utf-8"))
    assert targets
    missing = [target for target in targets if not (README.parent / target).exists()]
    assert missing == []


def test_named_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text("utf-8")
    for target in re.findall(r"^    make (\w+)", README.read_text("utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
