"""The inside of a lift: walls, floor and ceiling as textures in perspective, seen from an upper corner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import atan2, radians, tan

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.training.synthetic.camera import NEAREST, Camera, Points
from graftsdk.training.synthetic.canvas import multiplied, scaled
from graftsdk.training.synthetic.draws import one_of
from graftsdk.training.synthetic.palette import hsv
from graftsdk.training.synthetic.prints import put_print
from graftsdk.training.synthetic.textures import noise, window

__all__ = ["Cabin", "draw_cabin", "sample_cabin"]

_TILE = 128  # pixels a side of a wall's texture, stretched over the wall

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cabin:
    """A lift and the camera in its corner; metres.

    Attributes:
        wide, deep, high: inside.
        camera: in an upper corner at z = 0.
    """

    wide: float
    deep: float
    high: float
    camera: Camera

    def planes(self) -> dict[str, Points]:
        """Name -> float64[3, 3]: a corner and the two edges that leave it, across and down."""
        w, d, h = self.wide, self.deep, self.high
        return {
            "floor": np.array(((0, 0, d), (w, 0, 0), (0, 0, -d)), float),
            "ceiling": np.array(((0, h, 0), (w, 0, 0), (0, 0, d)), float),
            "back": np.array(((0, h, d), (w, 0, 0), (0, -h, 0)), float),
            "left": np.array(((0, h, 0), (0, 0, d), (0, -h, 0)), float),
            "right": np.array(((w, h, d), (0, 0, -d), (0, -h, 0)), float),
            "front": np.array(((w, h, 0), (-w, 0, 0), (0, -h, 0)), float),
        }


def sample_cabin(rng: np.random.Generator, size: tuple[int, int]) -> Cabin:
    """A lift of 1.3 to 2.6 metres with a camera in one of two upper corners."""
    wide, deep, high = rng.uniform(1.4, 2.7), rng.uniform(1.4, 2.8), rng.uniform(2.15, 2.6)
    left = rng.random() < 0.5
    x = rng.uniform(0.05, 0.3) if left else wide - rng.uniform(0.05, 0.3)
    position = (x, high - rng.uniform(0.03, 0.2), rng.uniform(0.05, 0.25))
    yaw = atan2(wide * rng.uniform(0.35, 0.65) - x, deep * 0.75)
    pitch = radians(rng.uniform(22, 45))
    focal = size[1] / 2 / tan(radians(rng.uniform(76, 112)) / 2)
    return Cabin(wide, deep, high, Camera(position, yaw, pitch, focal, size))


def draw_cabin(rng: np.random.Generator, cabin: Cabin) -> Image:
    """uint8[H, W, 3]: the empty lift."""
    height, width = cabin.camera.size
    coarse = 1 if rng.random() < 0.3 else 2  # walls of half the resolution cost a third; rails and people stay sharp
    camera = replace(cabin.camera, focal=cabin.camera.focal / coarse, size=(height // coarse, width // coarse))
    image: Image = np.full((*camera.size, 3), rng.integers(20, 120), np.uint8)
    wall = _wall_colour(rng)
    kind = one_of(rng, ("brushed", "brushed", "brushed", "grain", "stone", "weave", "weave", "clouds"))
    for name, plane in cabin.planes().items():
        if name == "floor":
            texture = _floor(rng)
        elif name == "ceiling":
            texture = _ceiling(rng)
        else:
            other = rng.random() < 0.25
            texture = _wall(rng, _wall_colour(rng) if other else wall, kind, name)
        _place_plane(image, camera, plane, texture)
    if coarse > 1:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if rng.random() < 0.6:
        _hand_rails(rng, image, cabin)
    return image


def _wall_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    draw = rng.random()
    if draw < 0.5:
        return hsv(rng.uniform(0.05, 0.65), rng.uniform(0.0, 0.15), rng.uniform(0.35, 0.92))
    if draw < 0.75:
        return hsv(rng.uniform(0.04, 0.11), rng.uniform(0.3, 0.75), rng.uniform(0.25, 0.8))
    return hsv(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.2, 0.95))


def textured(rng: np.random.Generator, colour: tuple[float, float, float], kind: str, height: int, width: int) -> Image:
    """uint8[height, width, 3] of one colour with the grain of a kind of `noise` and a slow change of brightness."""
    plane = window(noise(kind), int(rng.integers(0, 1000)), int(rng.integers(0, 1000)), width, height)
    slope = rng.integers(150, 256, (2, 2)).astype(np.uint8)
    slow = np.asarray(cv2.resize(slope, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    light = multiplied(slow, plane)
    table = np.clip(np.arange(256)[:, None] / 255 * np.array(colour) * 1.15, 0, 255).astype(np.uint8)[:, None]
    return np.asarray(cv2.applyColorMap(light, table), np.uint8)


def _wall(rng: np.random.Generator, colour: tuple[float, float, float], kind: str, name: str) -> Image:
    texture = textured(rng, colour, kind, 2 * _TILE, 2 * _TILE)
    side = 2 * _TILE
    dark = scaled(colour, 0.55)
    panels = int(rng.integers(1, 5))
    for i in range(1, panels):
        cv2.line(texture, (i * side // panels, 0), (i * side // panels, side), dark, 2)
    if rng.random() < 0.5:
        y = int(rng.integers(side // 2, side - 20))
        cv2.rectangle(
            texture,
            (0, y),
            (side, side),
            tuple(v * rng.uniform(0.6, 1.1) for v in colour),
            -1 if rng.random() < 0.5 else 2,
        )
    if name in ("back", "front") and rng.random() < 0.5:
        cv2.line(texture, (side // 2, 10), (side // 2, side), dark, 3)  # a door's two leaves
        cv2.rectangle(texture, (side // 6, 12), (side - side // 6, side), dark, 3)
    elif rng.random() < 0.5:
        put_print(rng, texture, (int(rng.integers(10, 110)), int(rng.integers(20, 90))), int(rng.integers(50, 110)))
    if rng.random() < 0.4:
        x, y = int(rng.integers(10, side - 40)), int(rng.integers(80, 130))
        cv2.rectangle(texture, (x, y), (x + 22, y + 70), scaled(colour, 0.7), -1)
        for i in range(12):
            cv2.circle(
                texture,
                (x + 6 + 10 * (i % 2), y + 8 + 11 * (i // 2)),
                3,
                (230, 230, 230) if i % 3 else (80, 160, 255),
                -1,
            )
    return texture


def _floor(rng: np.random.Generator) -> Image:
    colour = hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.15, 0.85))
    texture = textured(rng, colour, one_of(rng, ("stone", "clouds", "weave", "grain")), _TILE, _TILE)
    draw = rng.random()
    step = int(rng.integers(8, 40))
    other = tuple(v * rng.uniform(0.5, 1.4) for v in colour)
    if draw < 0.35:
        for i in range(0, _TILE, step):
            cv2.line(texture, (i, 0), (i, _TILE), other, 1)
            cv2.line(texture, (0, i), (_TILE, i), other, 1)
    elif draw < 0.6:
        for i in range(0, _TILE, step):
            for j in range((i // step % 2) * step, _TILE, 2 * step):
                cv2.rectangle(texture, (j, i), (j + step - 1, i + step - 1), other, -1)
    elif draw < 0.75:
        cv2.circle(texture, (_TILE // 2, _TILE // 2), int(rng.integers(20, 50)), other, -1)
    return texture


def _ceiling(rng: np.random.Generator) -> Image:
    texture = textured(rng, (225, 225, 225), "clouds", _TILE, _TILE)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.integers(10, 90, 2)
        cv2.rectangle(texture, (int(x), int(y)), (int(x) + 24, int(y) + 16), (255, 255, 255), -1)
    return texture


def _place_plane(image: Image, camera: Camera, plane: Points, texture: Image) -> None:
    """Draw a textured parallelogram of the world, cut off where it passes behind the camera."""
    corner, across, down = plane
    square = np.array(((0, 0), (1, 0), (1, 1), (0, 1)), float)
    seen = camera.view(corner + square[:, :1] * across + square[:, 1:] * down)
    outline = _in_front(seen)
    if len(outline) < 3:
        return
    pixels = np.clip(camera.project(outline), -8000, 8000)
    height, width = camera.size
    x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(pixels.max(0)).astype(int) + 1, (width, height))
    if x0 >= x1 or y0 >= y1:
        return
    axes = camera.axes()
    rows, columns = texture.shape[:2]
    lens = np.array(((camera.focal, 0, width / 2 - x0), (0, camera.focal, height / 2 - y0), (0, 0, 1)))
    across_down = np.stack((across / columns, down / rows, corner - camera.position), 1)
    onto = lens @ axes @ across_down
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillConvexPoly(mask, np.rint((pixels - (x0, y0)) * 16).astype(np.int32), 255, cv2.LINE_8, 4)
    warped = cv2.warpPerspective(
        texture, onto, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    cv2.copyTo(warped, mask, image[y0:y1, x0:x1])


def _in_front(seen: Points) -> Points:
    """The part of a convex outline, in the camera's axes, that lies before the camera."""
    kept: list[Points] = []
    for one, other in zip(seen, np.roll(seen, -1, 0), strict=True):
        if one[2] >= NEAREST:
            kept.append(one)
        if (one[2] >= NEAREST) != (other[2] >= NEAREST):
            kept.append(one + (other - one) * ((NEAREST - one[2]) / (other[2] - one[2])))
    return np.array(kept).reshape(-1, 3)


def _hand_rails(rng: np.random.Generator, image: Image, cabin: Cabin) -> None:
    y = rng.uniform(0.8, 1.05)
    shine = int(rng.integers(120, 240))
    gap = 0.06
    corners = np.array(
        ((gap, y, 0.1), (gap, y, cabin.deep - gap), (cabin.wide - gap, y, cabin.deep - gap), (cabin.wide - gap, y, 0.1))
    )
    for one, other in pairwise(corners):
        if rng.random() < 0.8:
            seen = cabin.camera.view(np.linspace(one, other, 12))
            seen = seen[seen[:, 2] > NEAREST]
            if len(seen) > 1:
                path = np.rint(np.clip(cabin.camera.project(seen), -6000, 6000) * 16).astype(np.int32)
                thick = max(2, round(0.035 * cabin.camera.focal / float(seen[:, 2].mean())))
                cv2.polylines(image, [path], False, (shine * 0.5,) * 3, thick, cv2.LINE_AA, 4)
                cv2.polylines(image, [path - 8], False, (shine,) * 3, max(1, thick // 2), cv2.LINE_AA, 4)
