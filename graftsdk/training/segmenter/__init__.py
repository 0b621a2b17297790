"""Training of a YOLACT segmenter: annotated images, augmentation, matching, losses, the loop, mask AP."""

from __future__ import annotations

__all__: list[str] = []
