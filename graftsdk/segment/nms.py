"""Non-maximum suppression."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk import _native

__all__ = ["TOP", "suppress", "suppress_fast"]

TOP = 200  # boxes that take part in YOLACT's fast NMS

Int64 = npt.NDArray[np.int64]


def suppress(
    boxes: npt.NDArray[np.floating[Any]], scores: npt.NDArray[np.float32], iou_threshold: float, limit: int
) -> Int64:
    """int64[K], K <= limit: indices of the boxes that stay, by falling score, equal scores in their given order.

    A box goes when its intersection over union with one that stays is greater than `iou_threshold`. Computed in
    float64. Two boxes without area have an IoU of 0.

    Args:
        boxes: float32 or float64 [N, 4], xyxy.
        scores: float32[N].
        iou_threshold: 0..1.
        limit: the search ends when so many boxes stay.
    """
    order = np.argsort(-scores, kind="stable")
    return order[_native.suppress(_ranked(boxes, order), iou_threshold, limit)]


def suppress_fast(
    boxes: npt.NDArray[np.floating[Any]], scores: npt.NDArray[np.float32], iou_threshold: float, top: int = TOP
) -> tuple[Int64, Int64]:
    """Which boxes stay, int64[K], K <= top, by falling score; and which lost their place to `top` alone, int64[M].

    YOLACT's fast NMS (Bolya et al. 2019, section 4.1): of the `top` best boxes, those stay whose IoU with each better
    one is at most `iou_threshold`. Unlike in `suppress` a box that goes still suppresses others, so that a few more go.
    A box beyond the `top` lost its place where it overlaps none of them so much.

    Args:
        boxes: float32 or float64 [N, 4], xyxy. Computed in float64.
        scores: float32[N]. Equal ones stand in their given order.
        iou_threshold: 0..1.
        top: how many of the best take part.
    """
    order = np.argsort(-scores, kind="stable")
    kept, cut = _native.suppress_fast(_ranked(boxes, order), iou_threshold, top)
    return order[kept], order[cut]


def _ranked(boxes: npt.NDArray[np.floating[Any]], order: Int64) -> npt.NDArray[np.float64]:
    return np.ascontiguousarray(boxes[order], np.float64)
