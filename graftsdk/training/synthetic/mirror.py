"""A mirror on a lift's back wall: it brightens the wall and shows the passengers faintly, as nobody to be found."""

from __future__ import annotations

from dataclasses import replace
from math import atan2, pi

import cv2
import numpy as np
import numpy.typing as npt

from graftsdk.training.synthetic.cabin import Cabin
from graftsdk.training.synthetic.camera import NEAREST
from graftsdk.training.synthetic.canvas import Canvas
from graftsdk.training.synthetic.person import draw_person
from graftsdk.training.synthetic.persona import Persona

__all__ = ["draw_mirror"]


def draw_mirror(
    rng: np.random.Generator,
    image: npt.NDArray[np.uint8],
    cabin: Cabin,
    passengers: list[tuple[tuple[float, float], Persona]],
) -> None:
    """Draw the mirror with what it reflects, on the empty lift.

    Args:
        rng: decides how large and how faint.
        image: the empty lift; changed in place.
        cabin: it.
        passengers: position (x, z) and looks of each.
    """
    pane = _pane(rng, cabin)
    if pane is None:
        return
    shape = np.zeros(image.shape[:2], np.uint8)
    cv2.fillConvexPoly(shape, pane, 255, cv2.LINE_8, 4)
    strength = rng.uniform(0.15, 0.4)
    bright = float(rng.uniform(150, 235))
    pale = np.full_like(image, round(bright))
    glass = np.asarray(cv2.addWeighted(image, 1 - strength, pale, strength, 0), np.uint8)
    reflected = glass.copy()
    canvas = Canvas(reflected)
    for (x, z), person in sorted(passengers, key=lambda each: each[0][1]):
        behind = 2 * cabin.deep - z
        draw_person(canvas, cabin.camera, (x, behind), replace(person, turn=_mirrored_turn(cabin, x, z, person.turn)))
    faint = float(rng.uniform(0.12, 0.4))
    cv2.copyTo(cv2.addWeighted(glass, 1 - faint, reflected, faint, 0), shape, image)
    cv2.polylines(image, [pane], True, (bright * 0.4,) * 3, 1, cv2.LINE_AA, 4)


def _pane(rng: np.random.Generator, cabin: Cabin) -> npt.NDArray[np.int32] | None:
    """int32[4, 2] corners in 1/16 pixels; None where one is behind the camera."""
    left, right = sorted(rng.uniform(0.05, cabin.wide - 0.05, 2))
    if right - left < 0.6:
        left, right = 0.1, cabin.wide - 0.1
    low, high = rng.uniform(0.0, 1.0), cabin.high - rng.uniform(0.1, 0.5)
    corners = np.array([(x, y, cabin.deep) for x, y in ((left, low), (right, low), (right, high), (left, high))])
    seen = cabin.camera.view(corners)
    if seen[:, 2].min() < NEAREST:
        return None
    return np.rint(np.clip(cabin.camera.project(seen), -4000, 4000) * 16).astype(np.int32)


def _mirrored_turn(cabin: Cabin, x: float, z: float, turn: float) -> float:
    """The turn to the camera of who is reflected by the wall z = deep."""
    eye_x, _, eye_z = cabin.camera.position
    facing = atan2(eye_x - x, eye_z - z) + turn
    return pi - facing - atan2(eye_x - x, eye_z - (2 * cabin.deep - z))
