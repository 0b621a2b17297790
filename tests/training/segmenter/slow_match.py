"""Which prior is to become which box, as the original finds it, one overlap at a time."""

from __future__ import annotations

import numpy as np

BACKGROUND, NEUTRAL = 0, -1


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_match(priors, boxes, classes, crowds):
    """The original's: N times the greatest of all overlaps; then thresholds; then crowds."""
    overlaps = np.array([[iou(box, prior) for prior in priors] for box in boxes]).reshape(len(boxes), len(priors))
    labels, truths = [BACKGROUND] * len(priors), [0] * len(priors)
    best = [0.0] * len(priors)
    for prior in range(len(priors)):
        for box in range(len(boxes)):
            if overlaps[box, prior] > best[prior]:
                best[prior], truths[prior] = overlaps[box, prior], box
    for _ in range(len(boxes)):
        box, prior = np.unravel_index(overlaps.argmax(), overlaps.shape)
        best[prior], truths[prior] = 2.0, box
        overlaps[:, prior] = overlaps[box, :] = -1.0
    for prior in range(len(priors)):
        if len(boxes) and best[prior] >= 0.4:
            labels[prior] = 1 + classes[truths[prior]] if best[prior] >= 0.5 else NEUTRAL
        for crowd in crowds:
            width = min(priors[prior][2], crowd[2]) - max(priors[prior][0], crowd[0])
            height = min(priors[prior][3], crowd[3]) - max(priors[prior][1], crowd[1])
            area = (priors[prior][2] - priors[prior][0]) * (priors[prior][3] - priors[prior][1])
            if labels[prior] <= 0 and width > 0 and height > 0 and width * height / area > 0.7:
                labels[prior] = NEUTRAL
    return labels, truths
