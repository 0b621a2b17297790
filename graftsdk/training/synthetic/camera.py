"""The camera that looks at a scene: metres of the floor plan to pixels of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import numpy as np
import numpy.typing as npt

__all__ = ["NEAREST", "Camera", "Points"]

NEAREST = 0.12  # metres; what is nearer is drawn as if it were there

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    The world: x to the right, y up, z away from the observer; metres; the floor is y = 0.

    Attributes:
        position: where it hangs, metres.
        yaw: radians, from +z towards +x.
        pitch: radians below the horizon.
        focal: pixels.
        size: (height, width) of the picture, pixels.
    """

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    focal: float
    size: tuple[int, int]

    def axes(self) -> Points:
        """float64[3, 3]: right, down and forward of the picture as rows, in the world."""
        sy, cy, sp, cp = sin(self.yaw), cos(self.yaw), sin(self.pitch), cos(self.pitch)
        return np.array([[cy, 0.0, -sy], [-sy * sp, -cp, -cy * sp], [sy * cp, -sp, cy * cp]])

    def view(self, world: Points) -> Points:
        """float64[N, 3] of the world -> float64[N, 3]: right, down, forward of the camera, metres."""
        seen: Points = (world - np.array(self.position)) @ self.axes().T
        return seen

    def project(self, seen: Points) -> Points:
        """float64[N, 3] in the camera's axes (`view`) -> float64[N, 2] x, y pixels."""
        depth = np.maximum(seen[:, 2:], NEAREST)
        height, width = self.size
        pixels: Points = seen[:, :2] * (self.focal / depth) + (width / 2, height / 2)
        return pixels
