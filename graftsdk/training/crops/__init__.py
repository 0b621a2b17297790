"""Crops of a sub-dataset, decoded once and kept as bytes, and how they are varied in training."""

from __future__ import annotations

__all__: list[str] = []
