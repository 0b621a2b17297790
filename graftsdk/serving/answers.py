"""The parts of answers that no `Prediction` makes: of crops cut out elsewhere, and of the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.attribute import Attribute
from graftsdk.errors import InputError
from graftsdk.plan import BranchDocument, Plan
from graftsdk.preprocess import decode_image, mask_crop
from graftsdk.serving.problems import Problem

__all__ = ["Crops", "Scores", "attributes_of", "cut_out", "document_of", "json_bytes", "label_of"]

Crops = npt.NDArray[np.float32]
Scores = dict[str, npt.NDArray[np.float32]]


def cut_out(data: bytes, plan: Plan) -> Crops | InputError:
    """float32[1, 3, H, W] of a picture that is one person's box, or why there is none."""
    try:
        image = decode_image(data)
        height, width = image.shape[:2]
        return mask_crop(image, np.array([[0, 0, width, height]], np.float32), None, plan.manifest.crop, threads=1)
    except InputError as error:
        return error


def attributes_of(
    documents: Mapping[str, BranchDocument], scores: Scores, thresholds: Mapping[str, Mapping[str, float]], count: int
) -> list[dict[str, Any]]:
    """Of each of `count` crops: label -> attribute, as JSON types."""
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for label, document in documents.items():
        for row, values in zip(rows, scores.get(label, ()), strict=True):
            found = dict(zip(document.classes, map(float, values), strict=True))
            row[label] = Attribute(label, document.classes, found, thresholds[label]).to_dict()
    return rows


def document_of(plan: Plan, label: str) -> BranchDocument:
    """A label's document. Raises Problem where the plan has none: a reload took it away meanwhile."""
    found = plan.manifest.find(label)
    if found is None:
        raise Problem(422, "unknown_label", "labels: expected some of those of GET /v1/plan, each once, found others")
    return found[1].document


def label_of(document: BranchDocument) -> dict[str, Any]:
    """What `GET /v1/plan` tells of a label, as JSON types."""
    return {
        "label": document.label,
        "classes": list(document.classes),
        "thresholds": dict(document.thresholds),
        "tap": document.tap,
        "licence": document.provenance.licence,
        "metrics": dict(document.metrics),
    }


def json_bytes(value: Any) -> bytes:
    """JSON as UTF-8; letters of all scripts stand as they are."""
    # Label names may be of any script; a lone surrogate cannot be in them, their files were checked.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
