"""The parts of answers that no `Prediction` makes: of crops cut out elsewhere, and of the plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.attribute import Attribute
from graftsdk.errors import InputError
from graftsdk.plan import BranchDocument, CropSpec, Plan
from graftsdk.preprocess import decode_image, mask_crop

__all__ = ["Crops", "Scores", "attributes_of", "cut_out", "documents_of", "json_bytes", "label_of"]

Crops = npt.NDArray[np.float32]
Scores = dict[str, npt.NDArray[np.float32]]


def cut_out(
    pictures: Sequence[bytes], refused: dict[int, InputError], spec: CropSpec, wanted: Callable[[], bool]
) -> Crops:
    """float32[N, 3, H, W] of the pictures that can be used, each one person's box.

    One after another: the pixels of one are in memory, not those of all.

    Args:
        refused: gets the place of each of the others, and why it is none.
        wanted: asked before each of them; where nobody waits any more, the rest is left out.
    """
    crops = np.empty((len(pictures), 3, *spec.size), np.float32)
    used = 0
    for place, data in enumerate(pictures):
        if not wanted():
            break
        try:
            image = decode_image(data)
            box = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
            mask_crop(image, box, None, spec, threads=1, out=crops[used : used + 1])
        except InputError as error:
            refused[place] = error.with_traceback(None)  # which would hold the image
        else:
            used += 1
    return crops[:used]


def attributes_of(
    documents: Mapping[str, BranchDocument], scores: Scores, thresholds: Mapping[str, Mapping[str, float]], count: int
) -> list[dict[str, Attribute]]:
    """Of each of `count` crops: label -> attribute."""
    rows: list[dict[str, Attribute]] = [{} for _ in range(count)]
    for label, document in documents.items():
        for row, values in zip(rows, scores[label], strict=True):
            found = dict(zip(document.classes, map(float, values), strict=True))
            row[label] = Attribute(label, document.classes, found, thresholds[label])
    return rows


def documents_of(plan: Plan, labels: Iterable[str]) -> dict[str, BranchDocument]:
    """Label -> its document, of those that the plan has: a reload may have taken others away."""
    return {label: found[1].document for label in labels if (found := plan.manifest.find(label)) is not None}


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
