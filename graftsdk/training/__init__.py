"""Training in torch: segmenters on COCO's and Penn-Fudan's layout, drawn scenes. Needs `[train]`.

The names below are loaded when they are first used: `graftsdk.training.synthetic` draws its scenes without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graftsdk.errors import MissingDependency

if TYPE_CHECKING:
    from graftsdk.training.segmenter.datasets import AnnotatedImage, Annotation, ImageSet, open_image_set
    from graftsdk.training.segmenter.mask_ap import MaskAP
    from graftsdk.training.segmenter.options import NetworkOptions, SegmenterOptions
    from graftsdk.training.segmenter.train import TrainingReport, train_segmenter

__all__ = [
    "AnnotatedImage",
    "Annotation",
    "ImageSet",
    "MaskAP",
    "NetworkOptions",
    "SegmenterOptions",
    "TrainingReport",
    "open_image_set",
    "train_segmenter",
]

_HOMES = {
    "AnnotatedImage": "graftsdk.training.segmenter.datasets",
    "Annotation": "graftsdk.training.segmenter.datasets",
    "ImageSet": "graftsdk.training.segmenter.datasets",
    "MaskAP": "graftsdk.training.segmenter.mask_ap",
    "NetworkOptions": "graftsdk.training.segmenter.options",
    "SegmenterOptions": "graftsdk.training.segmenter.options",
    "TrainingReport": "graftsdk.training.segmenter.train",
    "open_image_set": "graftsdk.training.segmenter.datasets",
    "train_segmenter": "graftsdk.training.segmenter.train",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graftsdk.training' has no attribute {name!r}")
    try:
        value = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "torchvision", "pycocotools"):
            raise
        raise MissingDependency(f"graftsdk.training needs {error.name}: pip install 'graftsdk[train]'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
