"""Flat pictures on walls: posters, signs and screens, some with shapes in the colours of people."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.training.synthetic.canvas import scaled
from graftsdk.training.synthetic.palette import hsv, skin_colour

__all__ = ["put_print"]


def put_print(rng: np.random.Generator, image: npt.NDArray[np.uint8], at: tuple[int, int], height: int) -> None:
    """Draw a poster `height` pixels high with its upper left corner `at` (x, y)."""
    x, y = at
    width = int(height * rng.uniform(0.5, 1.4))
    paper = hsv(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.3, 1.0))
    cv2.rectangle(image, (x, y), (x + width, y + height), paper, -1)
    for _ in range(int(rng.integers(0, 4))):
        _blob(rng, image, x, y, width, height)
    for i in range(int(rng.integers(0, 6))):
        row = y + int(height * (0.1 + 0.13 * i))
        ink = hsv(rng.random(), rng.uniform(0, 1), rng.uniform(0, 0.9))
        cv2.line(image, (x + width // 8, row), (x + int(width * rng.uniform(0.3, 0.9)), row), ink, max(1, height // 30))
    cv2.rectangle(image, (x, y), (x + width, y + height), scaled(paper, 0.4), 1)


def _blob(rng: np.random.Generator, image: npt.NDArray[np.uint8], x: int, y: int, width: int, height: int) -> None:
    """An ellipse in any colour, or an oval over a trapezoid in skin and cloth colours, which is nobody."""
    cx, cy = x + int(width * rng.uniform(0.2, 0.8)), y + int(height * rng.uniform(0.25, 0.7))
    r = max(2, int(min(width, height) * rng.uniform(0.07, 0.22)))
    colour = skin_colour(rng) if rng.random() < 0.6 else hsv(rng.random(), rng.random(), rng.random())
    cv2.ellipse(image, (cx, cy), (r, int(1.3 * r)), float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    if rng.random() < 0.5:
        cloth = hsv(rng.random(), rng.random(), rng.random())
        low = min(y + height - 1, cy + 4 * r)
        body = np.array([(cx - r, cy + r), (cx + r, cy + r), (cx + 2 * r, low), (cx - 2 * r, low)], np.int32)
        cv2.fillConvexPoly(image, body, cloth, cv2.LINE_AA)
