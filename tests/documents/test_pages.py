"""Every code block of the documentation that is fenced as Python or a shell's runs.

Others do not: outputs, settings, and commands that need data, a cluster or further packages. A file apart from the
README's: each takes a minute of one process.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from code_blocks import ROOT, blocks, run

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_page(page: Path, folder: Path) -> None:
    run(page, folder)
