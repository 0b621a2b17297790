"""Non-maximum suppression."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["suppress", "suppress_fast"]

_PAIRS = 1 << 16  # that are compared at once: half a MB an array, which stays in a core's cache
TOP = 200  # boxes that take part in YOLACT's fast NMS
_LEAST = np.finfo(np.float64).smallest_subnormal  # in place of a union of 0


def suppress(
    boxes: npt.NDArray[np.floating[Any]], scores: npt.NDArray[np.float32], iou_threshold: float, limit: int
) -> npt.NDArray[np.int64]:
    """int64[K], K <= limit: indices of the boxes that stay, by falling score, equal scores in their given order.

    A box goes when its intersection over union with one that stays is greater than `iou_threshold`. Computed in
    float64. Two boxes without area have an IoU of 0.

    Args:
        boxes: float32 or float64 [N, 4], xyxy.
        scores: float32[N].
        iou_threshold: 0..1.
        limit: the search ends when so many boxes stay.
    """
    left = np.argsort(-scores, kind="stable")
    exact = boxes.astype(np.float64)
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        # The best few are decided among themselves, then the rest is compared with those of them that stay.
        few = max(1, min(64, _PAIRS // len(left)))
        head, left = left[:few], left[few:]
        stay = head[_undisputed(_overlap(exact[head], exact[head], iou_threshold))][: limit - len(kept)]
        kept.extend(stay.tolist())
        if len(kept) < limit:
            left = left[~_overlap(exact[stay], exact[left], iou_threshold).any(axis=0)]
    return np.array(kept, dtype=np.int64)


def suppress_fast(
    boxes: npt.NDArray[np.floating[Any]], scores: npt.NDArray[np.float32], iou_threshold: float, top: int = TOP
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
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
    exact = boxes[order].astype(np.float64)
    head, rest = exact[:top], exact[top:]
    over = np.triu(_overlap(head, head, iou_threshold), 1)  # [better, worse]
    free = np.zeros(len(rest), np.bool_)
    step = max(1, _PAIRS // top)
    for start in range(0, len(rest), step):
        free[start : start + step] = ~_overlap(head, rest[start : start + step], iou_threshold).any(axis=0)
    return order[:top][~over.any(axis=0)], order[top:][free]


def _undisputed(over: npt.NDArray[np.bool_]) -> list[int]:
    """Which of n boxes by falling score stay; `over[i, j]`: i and j overlap too much."""
    rows = np.packbits(over, axis=1, bitorder="little")
    stay, gone = [], 0  # a bit for each box
    for place, row in enumerate(rows):
        if not gone >> place & 1:
            stay.append(place)
            gone |= int.from_bytes(row.tobytes(), "little")
    return stay


def _overlap(
    few: npt.NDArray[np.float64], many: npt.NDArray[np.float64], iou_threshold: float
) -> npt.NDArray[np.bool_]:
    """bool[n, m]: whether the IoU of few[i] and many[j] is greater than the threshold."""
    x0, y0, x1, y1 = few.T[:, :, None]
    u0, v0, u1, v1 = many.T[:, None, :]
    shared = np.minimum(x1, u1)
    shared -= np.maximum(x0, u0)
    np.maximum(shared, 0.0, out=shared)
    height = np.minimum(y1, v1)
    height -= np.maximum(y0, v0)
    shared *= np.maximum(height, 0.0, out=height)
    area, areas = (
        np.maximum(right - left, 0.0) * np.maximum(bottom - top, 0.0)
        for left, top, right, bottom in ((x0, y0, x1, y1), (u0, v0, u1, v1))
    )
    union = np.add(area, areas, out=height)
    union -= shared
    np.maximum(union, _LEAST, out=union)
    shared /= union
    over: npt.NDArray[np.bool_] = shared > iou_threshold
    return over
