"""The segmenter that graftsdk brings: a small YOLACT that has seen drawn scenes only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["DEMO", "demo_segmenter", "named_segmenter"]

DEMO = "demo"  # its name where a segmenter's path is expected; a file of that name is ./demo


def demo_segmenter() -> Path:
    """Its checkpoint, of `graftsdk.models.Yolact`.

    Trained on scenes of `graftsdk.training.synthetic`, mostly lifts, it finds drawn persons (what `graftsdk info` says
    of it was measured on such); on photographs it is a place to start training from. `make segmenter` trains it anew.
    """
    return Path(__file__).with_name("demo.safetensors")


def named_segmenter(source: Any) -> Any:
    """The path of the demo segmenter where `source` is its name, else `source`."""
    return demo_segmenter() if isinstance(source, str) and source == DEMO else source
