"""Sub-datasets of one label each: folders, their splits by identity, leaks, and fully annotated sets cut into them."""

from __future__ import annotations

from graftsdk.preprocess import read_crop
from graftsdk.training.labels.declared import declared_classes
from graftsdk.training.labels.leaks import check_leaks
from graftsdk.training.labels.sets import LabelledImage, LabelSet, find_labels, open_label

__all__ = [
    "LabelSet",
    "LabelledImage",
    "check_leaks",
    "declared_classes",
    "find_labels",
    "open_label",
    "read_crop",
]
