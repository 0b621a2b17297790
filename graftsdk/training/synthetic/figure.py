"""A person as solid parts in metres; painted from far to near, all points projected at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, cos, hypot, pi, sin

import numpy as np

from graftsdk.training.synthetic.camera import Camera, Points
from graftsdk.training.synthetic.canvas import SHIFT, Canvas, Material

__all__ = ["Figure", "Vector", "vector"]

Vector = Points  # float64[3]: left-right, up, forward of the body, metres

_TURNS = np.arange(12) * (2 * pi / 12)
_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], 1)
_FARTHEST = 6000.0  # pixels from the picture's corner that a point may lie outside


def vector(x: float, y: float, z: float) -> Vector:
    """float64[3]."""
    return np.array((x, y, z))


@dataclass(frozen=True)
class _Part:
    key: float
    points: Points
    shapes: Sequence[tuple[int, int]]
    material: Material
    thickness: float
    convex: bool


class Figure:
    """Parts of one body, in the body's own axes: x to the right of who looks at its front, y up, z forward.

    Args:
        camera: that sees it.
        position: (x, z) of its feet, metres.
        turn: radians between where it faces and the direction to the camera: 0 front, pi / 2 profile, pi back.
        height: metres, of the body.

    Attributes:
        towards: float64[3], unit vector from the middle of the body to the camera.
        scale: pixels a metre at the middle of the body.
    """

    def __init__(self, camera: Camera, position: tuple[float, float], turn: float, height: float) -> None:
        self.camera = camera
        x, y, z = camera.position
        facing = atan2(x - position[0], z - position[1]) + turn
        forward = np.array((sin(facing), 0.0, cos(facing)))
        side = np.array((cos(facing), 0.0, -sin(facing)))
        body = np.stack([side, (0.0, 1.0, 0.0), forward])  # rows in the world
        axes = camera.axes()
        self._into = body @ axes.T  # body's axes -> camera's axes
        self._origin = (np.array((position[0], 0.0, position[1])) - (x, y, z)) @ axes.T
        right, down = self._into[:, 0], self._into[:, 1]
        self._disc = _CIRCLE @ np.stack([right, down])
        middle = np.array((0.0, 0.6 * height, 0.0))
        eye = body @ (np.array((x, y, z)) - (position[0], 0.0, position[1]))
        self.towards: Vector = (eye - middle) / np.linalg.norm(eye - middle)
        flat = hypot(self.towards[0], self.towards[2]) or 1.0
        self._flat = (self.towards[0] / flat, self.towards[2] / flat)
        self.scale = camera.focal / max(float((middle @ self._into + self._origin)[2]), 0.3)
        self._parts: list[_Part] = []

    def nearness(self, point: Vector) -> float:
        """Metres that a point is nearer to the camera than the body's axis, measured along the floor."""
        return float(point[0] * self._flat[0] + point[2] * self._flat[1])

    def chain(self, centres: Sequence[Vector], radii: Sequence[float], material: Material, key: float) -> None:
        """Balls, each joined to the next: a limb."""
        points = np.array(centres)[:, None] + np.array(radii)[:, None, None] * self._disc
        count, corners = len(centres), len(_CIRCLE)
        last = max(count - 1, 1)
        shapes = [(i * corners, min(i + 2, count) * corners) for i in range(last)]
        self._parts.append(_Part(key, points.reshape(-1, 3), shapes, material, max(radii), True))

    def rings(self, rings: Points, material: Material, key: float) -> None:
        """Flat ellipses above each other, each joined to the next: a trunk, a skirt, a coat.

        Args:
            rings: float64[N, 5]: centre x, y, z, half width, half depth.
        """
        points = np.empty((len(rings), len(_CIRCLE), 3))
        points[:, :, 0] = rings[:, None, 0] + rings[:, None, 3] * _CIRCLE[:, 0]
        points[:, :, 1] = rings[:, None, 1]
        points[:, :, 2] = rings[:, None, 2] + rings[:, None, 4] * _CIRCLE[:, 1]
        corners = len(_CIRCLE)
        shapes = [(i * corners, (i + 2) * corners) for i in range(len(rings) - 1)]
        thickness = float(rings[:, 4].max())
        self._parts.append(_Part(key, points.reshape(-1, 3), shapes, material, thickness, True))

    def ellipsoid(
        self, centre: Vector, radii: Vector, material: Material, key: float, axes: Points | None = None
    ) -> None:
        """An ellipsoid: its outline is c + A A' d / |A' d| for the directions d of the picture.

        Args:
            centre: metres.
            radii: along its own axes.
            material: of it.
            key: nearness at which it is painted.
            axes: float64[3, 3], its axes as rows; None: the body's.
        """
        own = self._disc if axes is None else self._disc @ axes.T
        spread = own * radii
        outline = spread * radii / np.sqrt((spread * spread).sum(1, keepdims=True))
        points = centre + (outline if axes is None else outline @ axes)
        self._parts.append(_Part(key, points, [(0, len(points))], material, float(radii.min()), True))

    def hull(self, points: Points, material: Material, key: float, thickness: float = 0.0) -> None:
        """The convex hull of points: boxes, bags."""
        if len(points) > 2:
            self._parts.append(_Part(key, points, [(0, len(points))], material, thickness, True))

    def polygon(self, points: Points, material: Material, key: float) -> None:
        """A flat polygon of any outline: what is printed or sewn on something."""
        if len(points) > 2:
            self._parts.append(_Part(key, points, [(0, len(points))], material, 0.0, False))

    def paint(self, canvas: Canvas) -> None:
        """Everything, from far to near."""
        seen = np.concatenate([part.points for part in self._parts]) @ self._into + self._origin
        pixels = np.clip(self.camera.project(seen), -_FARTHEST, _FARTHEST)
        fixed = np.rint(pixels * (1 << SHIFT)).astype(np.int32)
        starts = np.cumsum([0] + [len(part.points) for part in self._parts])
        for i in sorted(range(len(self._parts)), key=lambda i: self._parts[i].key):
            part = self._parts[i]
            points = fixed[starts[i] : starts[i + 1]]
            canvas.paint(points, part.shapes, part.material, part.thickness * self.scale * 0.8, self.scale, part.convex)
