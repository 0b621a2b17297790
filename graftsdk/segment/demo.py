"""The segmenter that graftsdk brings: a small YOLACT that has seen drawn scenes only."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEMO", "demo_segmenter"]

DEMO = "demo"  # its name where a segmenter's path is expected


def demo_segmenter() -> Path:
    """Its checkpoint, of `graftsdk.models.Yolact`.

    Trained on scenes of `graftsdk.training.synthetic`, mostly lifts, it finds drawn persons; on photographs it is a
    place to start training from, no more. `make segmenter` trains it anew.
    """
    return Path(__file__).with_name("demo.safetensors")
