"""From a segmentation network's outputs to people: one adapter a family."""

from __future__ import annotations

from graftsdk.segment.base import MAX_PERSONS, Adapter, Instances
from graftsdk.segment.registry import SegmenterFields, open_adapter, recognise

__all__ = ["MAX_PERSONS", "Adapter", "Instances", "SegmenterFields", "open_adapter", "recognise"]
