"""The example's modules lie beside each other, as they are started; they are found here in the same way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for package in ("fastapi", "uvicorn", "httpx", "supervision", "trackers"):
    pytest.importorskip(package, reason='needs pip install "graftsdk[serve,results]" httpx')

EXAMPLE = Path(__file__).parents[2] / "examples" / "advertising"
sys.path.insert(0, str(EXAMPLE))


@pytest.fixture(scope="session")
def classes() -> dict[str, tuple[str, ...]]:
    """The demo plan's labels."""
    return {
        "suit": ("no", "yes"),
        "food deliverer": ("no", "yes"),
        "headwear": ("none", "hat", "helmet"),
        "courier": ("no", "yes"),
        "child": ("no", "yes"),
    }
