"""Predictions as pictures: masks, boxes, tags, letters, and files of them. Modules are imported by their names.

`import graftsdk.drawing` alone loads nothing: OpenCV is not on the path of a warm start.
"""

from __future__ import annotations

__all__: list[str] = []
