"""Non-maximum suppression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["suppress"]


def suppress(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], iou_threshold: float, limit: int
) -> npt.NDArray[np.int64]:
    """int64[K], K <= limit: indices of the boxes that stay, by falling score, equal scores in their given order.

    A box goes when its intersection over union with one that stays is greater than `iou_threshold`. Computed in
    float64. Two boxes without area have an IoU of 0.

    Args:
        boxes: float32[N, 4], xyxy.
        scores: float32[N].
        iou_threshold: 0..1.
        limit: the search ends when so many boxes stay.
    """
    order = np.argsort(-scores, kind="stable")
    x0, y0, x1, y1 = boxes[order].astype(np.float64).T
    area = np.maximum(x1 - x0, 0.0) * np.maximum(y1 - y0, 0.0)
    left = np.arange(len(order))  # candidates, as places in `order`
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(int(order[best]))
        width = np.minimum(x1[best], x1[left]) - np.maximum(x0[best], x0[left])
        height = np.minimum(y1[best], y1[left]) - np.maximum(y0[best], y0[left])
        shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        union = area[best] + area[left] - shared
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0.0)
        left = left[iou <= iou_threshold]
    return np.array(kept, dtype=np.int64)
