"""Shapes on a picture: each is filled, shaded towards its edges, textured, and its pixels are noted in a mask.

Edges are hard on purpose: a pixel belongs to a shape or it does not, so masks are exact; the sensor softens all later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.training.synthetic.textures import PERIODS, noise, pattern, window

__all__ = ["SHIFT", "Canvas", "Colour", "Fixed", "Material", "multiplied", "scaled"]

SHIFT = 4  # fractional bits of coordinates

Colour = tuple[float, float, float]  # blue, green, red, 0 to 255
Fixed = npt.NDArray[np.int32]  # int32[N, 2] x, y in 1 / 2**SHIFT pixels


@dataclass(frozen=True)
class Material:
    """What a surface looks like.

    Attributes:
        colour: in full light.
        low: brightness at the edges of a round shape, as a share of the full.
        gloss: how much the best lit part goes towards white, 0 to 1.
        texture: a kind of `noise`, or None.
        design: a kind of `pattern` in the second colour, or None.
        second: its colour.
        period: of the pattern, metres.
        offset: where in the planes this surface begins, pixels.
    """

    colour: Colour
    low: float = 0.5
    gloss: float = 0.0
    texture: str | None = None
    design: str | None = None
    second: Colour = (0.0, 0.0, 0.0)
    period: float = 0.08
    offset: tuple[int, int] = (0, 0)

    @cached_property
    def table(self) -> npt.NDArray[np.uint8]:
        """uint8[256, 1, 3]: the colour at each brightness."""
        return self._shades(self.colour)

    @cached_property
    def second_table(self) -> npt.NDArray[np.uint8]:
        """uint8[256, 1, 3]: the second colour at each brightness."""
        return self._shades(self.second)

    def _shades(self, colour: Colour) -> npt.NDArray[np.uint8]:
        full = self.low + (1 - self.low) * _RAMP
        shades = full * np.array(colour)
        if self.gloss:
            white = self.gloss * _HIGHLIGHT
            shades += white * (255 - shades)
        np.minimum(shades, 255, out=shades)
        table: npt.NDArray[np.uint8] = (shades + 0.5).astype(np.uint8)[:, None]
        return table


_RAMP = (np.arange(256) / 255)[:, None]
_HIGHLIGHT = np.clip((_RAMP - 0.8) * 5, 0, 1)


def scaled(colour: Colour, by: float) -> Colour:
    """Lighter or darker by a factor."""
    b, g, r = (min(255.0, value * by) for value in colour)
    return (b, g, r)


def multiplied(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Both as shares of 255, multiplied and rounded; of equal shapes."""
    return np.asarray(cv2.multiply(one, other, scale=1 / 255), np.uint8)


class Canvas:
    """A picture and the mask of what was painted on it.

    Args:
        image: uint8[H, W, 3], BGR; painted on in place.
        light: (right, down), from where the light comes, each -1 to 1.
    """

    def __init__(self, image: npt.NDArray[np.uint8], light: tuple[float, float] = (0.0, -0.5)) -> None:
        self.image = image
        self.light = light
        self.mask: npt.NDArray[np.uint8] = np.zeros(image.shape[:2], np.uint8)

    def paint(
        self,
        points: Fixed,
        shapes: Sequence[tuple[int, int]],
        material: Material,
        round_px: float,
        scale: float,
        convex: bool = True,
    ) -> None:
        """Paint the union of shapes.

        Args:
            points: of all shapes.
            shapes: first and last (excluded) point of each; convex ones are the hulls of their points.
            material: of all of them.
            round_px: how far from the edge the full brightness begins, pixels; below 1: flat.
            scale: pixels a metre, for patterns.
            convex: False takes the points as a polygon.
        """
        height, width = self.mask.shape
        first, last = points.min(0) >> SHIFT, points.max(0) >> SHIFT
        x0, y0 = max(int(first[0]) - 1, 0), max(int(first[1]) - 1, 0)
        x1, y1 = min(int(last[0]) + 2, width), min(int(last[1]) + 2, height)
        if x0 >= x1 or y0 >= y1:
            return
        shape = np.zeros((y1 - y0, x1 - x0), np.uint8)
        local = points - np.array([x0 << SHIFT, y0 << SHIFT], np.int32)
        for start, stop in shapes:
            if convex:
                cv2.fillConvexPoly(shape, cv2.convexHull(local[start:stop]), 255, cv2.LINE_8, SHIFT)
            else:
                cv2.fillPoly(shape, [local[start:stop]], 255, cv2.LINE_8, SHIFT)
        self._fill(shape, (x0, y0, x1, y1), material, round_px, scale)

    def _fill(
        self,
        shape: npt.NDArray[np.uint8],
        box: tuple[int, int, int, int],
        material: Material,
        round_px: float,
        scale: float,
    ) -> None:
        x0, y0, x1, y1 = box
        bright = self._brightness(shape, round_px) if round_px >= 1 else shape
        place = (material.offset[0] + x0, material.offset[1] + y0, x1 - x0, y1 - y0)
        if material.texture is not None:
            bright = multiplied(bright, window(noise(material.texture), *place))
        colours = cv2.applyColorMap(bright, material.table)
        if material.design is not None:
            period = min(PERIODS, key=lambda each: abs(each - material.period * scale))
            cv2.copyTo(
                cv2.applyColorMap(bright, material.second_table),
                window(pattern(material.design, period), *place),
                colours,
            )
        cv2.copyTo(colours, shape, self.image[y0:y1, x0:x1])
        seen = self.mask[y0:y1, x0:x1]
        cv2.bitwise_or(seen, shape, seen)

    def _brightness(self, shape: npt.NDArray[np.uint8], round_px: float) -> npt.NDArray[np.uint8]:
        """255 inside, less towards the edges that the light does not reach: the shape, blurred against the light."""
        side = min(int(round_px), 40) * 2 + 1
        middle = side // 2
        x = middle - round(self.light[0] * middle * 0.7)
        y = middle - round(self.light[1] * middle * 0.7)
        blurred = cv2.blur(shape, (side, side), anchor=(x, y), borderType=cv2.BORDER_REPLICATE)
        return np.asarray(blurred, np.uint8)
