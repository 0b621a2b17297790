"""From the light of a scene to the picture of a cheap camera: glow, exposure, colour, vignette, blur, noise."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.training.synthetic.canvas import multiplied
from graftsdk.training.synthetic.draws import one_of

__all__ = ["expose", "shade_floor"]

Image = npt.NDArray[np.uint8]


def expose(rng: np.random.Generator, image: Image) -> Image:
    """uint8[H, W, 3], BGR: the picture that a camera takes of `image`; geometry stays."""
    height, width = image.shape[:2]
    if rng.random() < 0.3:
        image = _glow(rng, image)
    image = np.asarray(cv2.LUT(image, _tones(rng)), np.uint8)
    strength = one_of(rng, (0, 0, 1, 2, 3))
    if strength:
        image = multiplied(image, _vignette(height, width, strength))
    image = _soften(rng, image)
    return _with_noise(rng, image)


def shade_floor(image: Image, outline: npt.NDArray[np.float64], strength: float) -> None:
    """Darken a soft patch, the shadow under somebody.

    Args:
        image: changed in place.
        outline: float64[N, 2], x, y pixels of the patch.
        strength: 0 to 1.
    """
    height, width = image.shape[:2]
    x0, y0 = np.maximum(np.floor(outline.min(0)).astype(int) - 6, 0)
    x1, y1 = np.minimum(np.ceil(outline.max(0)).astype(int) + 7, (width, height))
    if x1 - x0 < 4 or y1 - y0 < 4 or x1 - x0 > 2 * width:
        return
    light = np.full((y1 - y0, x1 - x0), 255, np.uint8)
    cv2.fillConvexPoly(light, np.rint(outline - (x0, y0)).astype(np.int32), int(255 * (1 - strength)))
    side = max(3, min(int(y1 - y0), 31) // 2 * 2 + 1)
    light = cv2.blur(light, (side, side))
    part = image[y0:y1, x0:x1]
    cv2.multiply(part, cv2.merge((light, light, light)), part, scale=1 / 255)


def _glow(rng: np.random.Generator, image: Image) -> Image:
    """A screen or lamp outside or inside of the picture lights a part of it."""
    height, width = image.shape[:2]
    x, y = int(rng.uniform(-0.7, 0.2) * width), int(rng.uniform(-0.7, 0.2) * height)
    tint = rng.uniform(0.05, 0.4) * rng.uniform(0.4, 1.0, 3)
    spot = (
        _spot(height, width)[-y : -y + height, -x : -x + width]
        if y < 0 and x < 0
        else _spot(height, width)[:height, :width]
    )
    table = np.rint(np.arange(256)[:, None] * tint).astype(np.uint8)[:, None]
    return np.asarray(cv2.add(image, cv2.applyColorMap(np.ascontiguousarray(spot), table)), np.uint8)


@lru_cache(maxsize=4)
def _spot(height: int, width: int) -> Image:
    """uint8[2 H, 2 W], bright in its middle."""
    rows, columns = np.ogrid[-1 : 1 : 2j * height, -1 : 1 : 2j * width]
    light = np.clip(1 - np.sqrt(rows * rows + columns * columns), 0, 1) ** 2
    return _bytes(255 * light)


def _tones(rng: np.random.Generator) -> Image:
    """uint8[1, 256, 3]: exposure, contrast, saturation of light, colour temperature."""
    gain, gamma = rng.uniform(0.72, 1.4), rng.uniform(0.68, 1.25)
    lift = rng.uniform(0, 26) if rng.random() < 0.4 else 0.0
    warmth = rng.normal(0, 0.09)
    tint = np.array((1 - warmth, 1 + rng.normal(0, 0.03), 1 + warmth))
    levels = (np.arange(256)[:, None] / 255) ** gamma * gain * tint * (255 - lift) + lift
    if rng.random() < 0.04:
        levels = np.repeat(levels.mean(1, keepdims=True), 3, 1)
    return _bytes(np.rint(levels))[None]


@lru_cache(maxsize=16)
def _vignette(height: int, width: int, strength: int) -> Image:
    rows, columns = np.ogrid[-1 : 1 : 1j * height, -1 : 1 : 1j * width]
    light = 1 - 0.11 * strength * (rows * rows + columns * columns)
    return np.repeat((255 * np.clip(light, 0, 1)).astype(np.uint8)[:, :, None], 3, 2)


def _soften(rng: np.random.Generator, image: Image) -> Image:
    """The lens, and now and then motion. Sharp drawn edges never stay."""
    if rng.random() < 0.12:
        reach = int(rng.integers(3, 8)) * max(1, image.shape[0] // 360)
        kernel = np.zeros((reach, reach), np.float32)
        angle = rng.uniform(0, np.pi)
        way = np.array((np.cos(angle), np.sin(angle))) * reach / 2
        middle = (reach - 1) / 2
        ends = [tuple(round(middle + s * v) for v in way) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0, 1)
        return np.asarray(cv2.filter2D(image, -1, kernel / max(float(kernel.sum()), 1e-6)), np.uint8)
    side = 5 if rng.random() < 0.25 else 3
    sigma = float(rng.uniform(0.5, 0.9) if side == 3 else rng.uniform(0.9, 1.4))
    return np.asarray(cv2.GaussianBlur(image, (side, side), sigma), np.uint8)


def _with_noise(rng: np.random.Generator, image: Image) -> Image:
    height, width = image.shape[:2]
    weight = one_of(rng, (0.0, 0.06, 0.12, 0.18, 0.28))
    if weight == 0.0:
        return image
    grain = _grain(height, width)
    y, x = (int(v) for v in rng.integers(0, _ROOM, 2))
    part = grain[y : y + height, x : x + width]
    return np.asarray(cv2.addWeighted(image, 1.0, part, weight, -128 * weight), np.uint8)


_ROOM = 256  # places where a window of noise may begin, down and across


@lru_cache(maxsize=2)
def _grain(height: int, width: int) -> Image:
    """uint8[H + _ROOM, W + _ROOM, 3] around 128: half of it in all channels alike."""
    rng = np.random.Generator(np.random.PCG64(7))
    size = (height + _ROOM, width + _ROOM)
    alike = rng.normal(0, 22, (*size, 1)).astype(np.float32)
    own = rng.normal(0, 22, (*size, 3)).astype(np.float32)
    return _bytes(np.rint(128 + alike + own))


def _bytes(levels: npt.NDArray[np.floating[Any]]) -> Image:
    """Cut to 0 to 255; fractions are dropped."""
    cut: Image = np.clip(levels, 0, 255).astype(np.uint8)
    return cut
