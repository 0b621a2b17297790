"""Other places than lifts: streets, parks, rooms, and mere colour, so that people are learned and not cabins."""

from __future__ import annotations

from math import radians, tan

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.training.synthetic.cabin import textured
from graftsdk.training.synthetic.camera import Camera
from graftsdk.training.synthetic.canvas import multiplied, scaled
from graftsdk.training.synthetic.draws import one_of
from graftsdk.training.synthetic.palette import hsv
from graftsdk.training.synthetic.prints import put_print
from graftsdk.training.synthetic.textures import noise, window

__all__ = ["draw_outdoors", "sample_view"]

Image = npt.NDArray[np.uint8]


def sample_view(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Camera, tuple[float, float]]:
    """A camera over the street at x = z = 0 that looks along z, and (nearest, farthest) metres where people stand."""
    near = rng.random() < 0.35
    high = rng.uniform(1.1, 1.9) if near or rng.random() < 0.6 else rng.uniform(2.0, 4.5)
    fov = radians(rng.uniform(36, 72))
    pitch = rng.uniform(-0.03, 0.12) if high < 2 else rng.uniform(0.1, 0.4)
    camera = Camera((0.0, high, 0.0), 0.0, pitch, size[1] / 2 / tan(fov / 2), size)
    closest = 1.3 if near else 3.0
    return camera, (closest, closest + (2.5 if near else rng.uniform(2.5, 9.0)))


def draw_outdoors(rng: np.random.Generator, camera: Camera) -> Image:
    """uint8[H, W, 3]: a place without people."""
    height, width = camera.size
    draw = rng.random()
    if draw < 0.62:
        horizon = int(np.clip(height / 2 - tan(camera.pitch) * camera.focal, 5, height - 5))
        return _street(rng, height, width, horizon)
    if draw < 0.85:
        horizon = int(np.clip(height * rng.uniform(0.45, 0.85), 5, height - 5))
        return _room(rng, height, width, horizon)
    return _colours(rng, height, width)


def _any(rng: np.random.Generator) -> tuple[float, float, float]:
    return hsv(rng.random(), rng.uniform(0, 0.75), rng.uniform(0.1, 1.0))


def _texture(rng: np.random.Generator) -> str:
    return one_of(rng, ("weave", "crumpled", "clouds", "stone", "grain", "brushed", "leaves"))


def _street(rng: np.random.Generator, height: int, width: int, horizon: int) -> Image:
    image = np.empty((height, width, 3), np.uint8)
    sky = hsv(rng.uniform(0.52, 0.62), rng.uniform(0, 0.5), rng.uniform(0.6, 1.0))
    image[:horizon] = textured(rng, sky, "clouds", horizon, width)
    ground = hsv(one_of(rng, (0.08, 0.12, 0.3, 0.6)), rng.uniform(0, 0.4), rng.uniform(0.25, 0.8))
    image[horizon:] = textured(rng, ground, one_of(rng, ("stone", "clouds", "weave")), height - horizon, width)
    _buildings(rng, image, horizon)
    _lines_on_ground(rng, image, horizon)
    for _ in range(int(rng.integers(0, 5))):
        _tree(rng, image, horizon)
    for _ in range(int(rng.integers(0, 3))):
        _car(rng, image, horizon)
    _shapes(rng, image, int(rng.integers(0, 6)))
    return image


def _buildings(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    x = -int(rng.integers(0, 60))
    while x < width:
        wide = int(rng.integers(40, 260))
        if rng.random() < 0.85:
            high = int(horizon * rng.uniform(0.3, 1.2))
            low = horizon + int(rng.integers(0, 1 + height // 12))
            top, x0, x1 = max(0, low - high), max(0, x), min(width, x + wide)
            if x1 > x0 and low > top:
                colour = _any(rng)
                image[top:low, x0:x1] = textured(rng, colour, _texture(rng), low - top, x1 - x0)
                _windows(rng, image[top:low, x0:x1], colour)
        x += wide


def _windows(rng: np.random.Generator, wall: Image, colour: tuple[float, float, float]) -> None:
    rows, columns = wall.shape[:2]
    step_x, step_y = int(rng.integers(14, 60)), int(rng.integers(16, 60))
    glass = _any(rng) if rng.random() < 0.5 else scaled(colour, 0.35)
    wide, high = int(step_x * rng.uniform(0.3, 0.8)), int(step_y * rng.uniform(0.3, 0.8))
    for y in range(6, rows - high, step_y):
        for x in range(5, columns - wide, step_x):
            cv2.rectangle(wall, (x, y), (x + wide, y + high), glass, -1)
            cv2.line(wall, (x + wide // 2, y), (x + wide // 2, y + high), colour, 1)


def _lines_on_ground(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(0, 7))):
        shade = _any(rng)
        end = (int(rng.integers(-width, 2 * width)), height)
        start = (int(width * rng.uniform(0.3, 0.7)), horizon)
        if rng.random() < 0.4:
            y = int(rng.integers(horizon, height))
            start, end = (0, y), (width, y + int(rng.integers(-20, 20)))
        cv2.line(image, start, end, shade, int(rng.integers(1, 7)), cv2.LINE_AA)


def _tree(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    x, low = int(rng.integers(0, width)), min(height - 1, horizon + int(rng.integers(0, height // 4)))
    high = int(rng.integers(height // 6, height // 2))
    bark = hsv(0.08, rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.4))
    cv2.line(
        image, (x, low), (x + int(rng.integers(-8, 9)), low - high), bark, max(2, high // int(rng.integers(8, 20)))
    )
    crown = np.zeros((height, width), np.uint8)
    for _ in range(6):
        at = (x + int(rng.normal(0, high / 3)), low - high + int(rng.normal(-high / 6, high / 4)))
        cv2.ellipse(
            crown, at, (int(high * rng.uniform(0.15, 0.4)), int(high * rng.uniform(0.12, 0.3))), 0, 0, 360, 255, -1
        )
    rows, columns = np.flatnonzero(crown.any(1)), np.flatnonzero(crown.any(0))
    if len(rows) and len(columns):
        y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        leaf = hsv(rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.9))
        cv2.copyTo(textured(rng, leaf, "leaves", y1 - y0, x1 - x0), crown[y0:y1, x0:x1], image[y0:y1, x0:x1])


def _car(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    long = int(rng.integers(60, 260))
    high = long // 4
    x, low = int(rng.integers(-long // 2, width)), min(height, horizon + int(rng.integers(5, 20 + height // 4)))
    paint = _any(rng)
    cv2.rectangle(image, (x, low - high), (x + long, low), paint, -1)
    roof = [
        (x + long // 6, low - high),
        (x + long // 3, low - 2 * high),
        (x + 3 * long // 4, low - 2 * high),
        (x + 9 * long // 10, low - high),
    ]
    cv2.fillConvexPoly(image, np.array(roof, np.int32), scaled(paint, 0.5), cv2.LINE_AA)
    for at in (x + long // 5, x + 4 * long // 5):
        cv2.circle(image, (at, low), high // 2, (25, 25, 25), -1, cv2.LINE_AA)
        cv2.circle(image, (at, low), high // 4, (150, 150, 150), -1, cv2.LINE_AA)


def _room(rng: np.random.Generator, height: int, width: int, horizon: int) -> Image:
    image = np.empty((height, width, 3), np.uint8)
    image[:horizon] = textured(rng, _any(rng), _texture(rng), horizon, width)
    image[horizon:] = textured(rng, _any(rng), _texture(rng), height - horizon, width)
    for _ in range(int(rng.integers(0, 5))):
        put_print(rng, image, (int(rng.integers(0, width)), int(rng.integers(0, horizon))), int(rng.integers(20, 160)))
    _shapes(rng, image, int(rng.integers(2, 14)))
    return image


def _colours(rng: np.random.Generator, height: int, width: int) -> Image:
    cells = rng.integers(0, 256, (int(rng.integers(1, 9)), int(rng.integers(1, 9)), 3)).astype(np.uint8)
    inter = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_NEAREST
    image = np.asarray(cv2.resize(cells, (width, height), interpolation=inter), np.uint8)
    plane = window(noise(_texture(rng)), int(rng.integers(0, 700)), int(rng.integers(0, 900)), width, height)
    image = multiplied(image, np.repeat(plane[:, :, None], 3, 2))
    _shapes(rng, image, int(rng.integers(0, 30)))
    return image


def _shapes(rng: np.random.Generator, image: Image, count: int) -> None:
    """Rectangles, ovals, posts and lines of any colour and place."""
    height, width = image.shape[:2]
    for _ in range(count):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = int(rng.integers(4, width // 4)), int(rng.integers(4, height // 3))
        colour, draw = _any(rng), rng.random()
        if draw < 0.35:
            x1, y1 = min(width, x + w), min(height, y + h)
            image[y:y1, x:x1] = textured(rng, colour, _texture(rng), y1 - y, x1 - x)
        elif draw < 0.55:
            cv2.ellipse(image, (x, y), (w // 2, h // 2), float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        elif draw < 0.7:
            cv2.rectangle(image, (x, max(0, y - 2 * h)), (x + 2 + w // 8, y + h), colour, -1)
        elif draw < 0.85:
            cv2.line(image, (x, y), (x + 2 * w - width // 4, y + h), colour, int(rng.integers(1, 8)), cv2.LINE_AA)
        else:
            corners = np.array((x, y)) + rng.integers(-w, w + 1, (4, 2))
            cv2.fillConvexPoly(image, cv2.convexHull(corners.astype(np.int32)), colour, cv2.LINE_AA)
