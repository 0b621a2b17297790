"""COCO's average precision of masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from graftsdk.segment import Instances
from graftsdk.training.segmenter.datasets import AnnotatedImage

__all__ = ["MaskAP", "average_precision", "detections", "encoded_mask", "truth_of"]


@dataclass(frozen=True)
class MaskAP:
    """IoU .50:.95, all areas, at most 100 detections an image; 0 where nothing was found or nothing was to be found.

    Attributes:
        ap, ap50, ap75: averaged over the thresholds of IoU, at .5, at .75.
        images: how many were looked at.
        found: how many masks were judged.
        f1: the greatest, at IoU .5, of all thresholds of the score. threshold: the score where it is reached, a person
            from there on; 0 where nothing right was found.
    """

    ap: float
    ap50: float
    ap75: float
    images: int
    found: int
    f1: float = 0.0
    threshold: float = 0.0


def average_precision(
    truth: COCO, found: Sequence[dict[str, Any]], images: Sequence[int], category: int, kind: str = "segm"
) -> MaskAP:
    """The AP of `found` (COCO's results: image_id, category_id, segmentation, score) on these images.

    Args:
        truth: the annotations.
        found: of these images; "segmentation" in run lengths.
        images: ids. category: id.
        kind: "segm" or "bbox" (of the masks).
    """
    if not found:
        return MaskAP(0.0, 0.0, 0.0, len(images), 0)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress and a table
        evaluation = COCOeval(truth, truth.loadRes(list(found)), kind)
        evaluation.params.imgIds, evaluation.params.catIds = list(images), [category]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75 = (max(0.0, float(value)) for value in evaluation.stats[:3])  # -1: nothing was to be found
    return MaskAP(ap, ap50, ap75, len(images), len(found), *_best_f1(evaluation))


def _best_f1(evaluation: COCOeval) -> tuple[float, float]:
    """(F1, score) at IoU .5, all areas, most detections: precision and score at each of COCO's 101 recalls."""
    tables = (np.asarray(evaluation.eval[name], np.float64) for name in ("precision", "scores"))
    precision, score = (table[0, :, 0, 0, -1] for table in tables)
    recall = np.asarray(evaluation.params.recThrs, np.float64)
    f1 = np.where(precision > 0, 2 * precision * recall / np.maximum(precision + recall, 1e-12), 0.0)  # -1: undefined
    best = int(f1.argmax())
    return (float(f1[best]), float(score[best])) if f1[best] > 0 else (0.0, 0.0)


def truth_of(images: Sequence[AnnotatedImage]) -> COCO:
    """The annotations as pycocotools wants them: images 1, 2, ..., category label + 1."""
    entries = [{"id": i, "height": image.size[0], "width": image.size[1]} for i, image in enumerate(images, start=1)]
    annotations = [
        {
            "image_id": number,
            "category_id": annotation.label + 1,
            "iscrowd": int(annotation.crowd),
            "segmentation": annotation.segmentation,
            "area": float(rle.area(annotation.segmentation)),
            "bbox": rle.toBbox(annotation.segmentation).tolist(),
        }
        for number, image in enumerate(images, start=1)
        for annotation in image.annotations
    ]
    labels = sorted({annotation["category_id"] for annotation in annotations} | {1})
    made = COCO()
    made.dataset = {
        "images": entries,
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
        "categories": [{"id": label, "name": str(label)} for label in labels],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        made.createIndex()
    return made


def detections(found: Instances, size: tuple[int, int], image: int, category: int) -> list[dict[str, Any]]:
    """What an adapter found in an image of `size` (height, width), as COCO's results."""
    if found.masks is None:
        return []
    return [
        {
            "image_id": image,
            "category_id": category,
            "segmentation": encoded_mask(found.masks.mask_at(index, *size)),
            "score": float(found.scores[index]),
        }
        for index in range(len(found))
    ]


def encoded_mask(mask: npt.NDArray[Any]) -> dict[str, Any]:
    """A mask [H, W] in COCO's compressed run lengths."""
    made: dict[str, Any] = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return made
