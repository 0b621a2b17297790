"""A drawn street picture with people in it, for measuring where no photographs are at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.preprocess import BoxMasks

__all__ = ["DrawnScene", "draw_scene"]

HEIGHT, WIDTH = 1080, 1920
PERSON_HEIGHT, PERSON_WIDTH = 600, 240  # pixels, up to a tenth less: someone a few metres from the camera
MASK = (160, 64)  # cells, about what a segmenter's prototypes give for a person of that size
_QUALITY = 90  # of the JPEG


@dataclass(frozen=True, eq=False)
class DrawnScene:
    """A picture and who is in it.

    Attributes:
        encoded: the picture as JPEG, 1080 x 1920 pixels.
        boxes: float32[N, 4], xyxy in pixels of it. masks: N of them, each over its box.
    """

    encoded: bytes
    boxes: npt.NDArray[np.float32]
    masks: BoxMasks


def draw_scene(persons: int, seed: int = 0) -> DrawnScene:
    """The same picture for the same numbers: walls, texture and `persons` figures that may hide each other.

    Raises:
        InputError: a negative number of persons, or more than 1000.
    """
    import cv2

    if not 0 <= persons <= 1000:
        raise InputError(f"persons: expected from 0 to 1000, found {persons}")
    rng = np.random.default_rng(seed)
    walls = cv2.resize(rng.integers(40, 200, (9, 16, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    texture = rng.integers(-20, 21, (HEIGHT, WIDTH, 1))  # about a photograph's, so that the JPEG has its size
    image = np.clip(walls.astype(np.int64) + texture, 0, 255).astype(np.uint8)
    shape = _figure()
    boxes = np.empty((persons, 4), np.float32)
    for index in range(persons):
        scale = rng.uniform(0.9, 1.0)
        height, width = int(PERSON_HEIGHT * scale), int(PERSON_WIDTH * scale)
        # Eight stand beside each other; more of them stand in front of those.
        left = int((index % 8 + rng.uniform(0, 0.2)) * (WIDTH - PERSON_WIDTH) / 7.2)
        top = int(rng.uniform(0.5, 1.0) * (HEIGHT - height))
        boxes[index] = (left, top, left + width, top + height)
        inside = cv2.resize(shape, (width, height), interpolation=cv2.INTER_NEAREST) > 0
        clothes = cv2.resize(rng.integers(0, 256, (5, 2, 3), np.uint8), (width, height))
        image[top : top + height, left : left + width][inside] = clothes[inside]
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    return DrawnScene(encoded, boxes, BoxMasks([shape] * persons, boxes))


def _figure() -> npt.NDArray[np.uint8]:
    """uint8[MASK]: a head, a body and legs, 1 inside."""
    y, x = (np.mgrid[0 : MASK[0], 0 : MASK[1]] + 0.5) / np.array(MASK)[:, None, None]
    head = ((x - 0.5) / 0.22) ** 2 + ((y - 0.09) / 0.09) ** 2 < 1
    body = ((x - 0.5) / 0.48) ** 4 + ((y - 0.38) / 0.23) ** 4 < 1
    legs = (np.abs(np.abs(x - 0.5) - 0.2) < 0.14) & (y > 0.5)
    inside: npt.NDArray[np.uint8] = (head | body | legs).astype(np.uint8)
    return inside
