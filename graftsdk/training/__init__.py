"""Training in torch: trunks, branches and segmenters; their data, hard negatives, figures. Needs `[train]`.

The names below are loaded when they are first used: `graftsdk.training.synthetic` draws its scenes without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graftsdk.errors import MissingDependency

if TYPE_CHECKING:
    from graftsdk.training.branch.old_classifier import ClassifierOptions, OldClassifier
    from graftsdk.training.branch.options import BranchOptions
    from graftsdk.training.branch.report import BranchReport
    from graftsdk.training.branch.takeover import take_over
    from graftsdk.training.branch.train import train_branch
    from graftsdk.training.segmenter.datasets import AnnotatedImage, Annotation, ImageSet, open_image_set
    from graftsdk.training.segmenter.mask_ap import MaskAP
    from graftsdk.training.segmenter.options import NetworkOptions, SegmenterOptions
    from graftsdk.training.segmenter.train import TrainingReport, train_segmenter
    from graftsdk.training.trunk.options import TrunkNetwork, TrunkOptions
    from graftsdk.training.trunk.train import TrunkReport, train_trunk

__all__ = [
    "AnnotatedImage",
    "Annotation",
    "BranchOptions",
    "BranchReport",
    "ClassifierOptions",
    "ImageSet",
    "MaskAP",
    "NetworkOptions",
    "OldClassifier",
    "SegmenterOptions",
    "TrainingReport",
    "TrunkNetwork",
    "TrunkOptions",
    "TrunkReport",
    "open_image_set",
    "take_over",
    "train_branch",
    "train_segmenter",
    "train_trunk",
]

_HOMES = {
    "AnnotatedImage": "graftsdk.training.segmenter.datasets",
    "Annotation": "graftsdk.training.segmenter.datasets",
    "BranchOptions": "graftsdk.training.branch.options",
    "BranchReport": "graftsdk.training.branch.report",
    "ClassifierOptions": "graftsdk.training.branch.old_classifier",
    "ImageSet": "graftsdk.training.segmenter.datasets",
    "MaskAP": "graftsdk.training.segmenter.mask_ap",
    "NetworkOptions": "graftsdk.training.segmenter.options",
    "OldClassifier": "graftsdk.training.branch.old_classifier",
    "SegmenterOptions": "graftsdk.training.segmenter.options",
    "TrainingReport": "graftsdk.training.segmenter.train",
    "TrunkNetwork": "graftsdk.training.trunk.options",
    "TrunkOptions": "graftsdk.training.trunk.options",
    "TrunkReport": "graftsdk.training.trunk.train",
    "open_image_set": "graftsdk.training.segmenter.datasets",
    "take_over": "graftsdk.training.branch.takeover",
    "train_branch": "graftsdk.training.branch.train",
    "train_segmenter": "graftsdk.training.segmenter.train",
    "train_trunk": "graftsdk.training.trunk.train",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graftsdk.training' has no attribute {name!r}")
    try:
        value = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "torchvision", "pycocotools", "sklearn", "scipy"):
            raise
        raise MissingDependency(f"graftsdk.training needs {error.name}: pip install 'graftsdk[train]'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
