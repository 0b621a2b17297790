"""Head, face, hair and hats as parts of a figure."""

from __future__ import annotations

from dataclasses import replace
from math import cos, sin

import numpy as np

from graftsdk.training.synthetic.camera import Points
from graftsdk.training.synthetic.canvas import Material, scaled
from graftsdk.training.synthetic.figure import Figure, Vector, vector
from graftsdk.training.synthetic.palette import mixed
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import SIDES, Puppet

__all__ = ["add_head"]

_NECK, _HAIR_BEHIND, _HEAD, _FACE, _HAT = 0.45, 0.44, 0.5, 0.51, 0.53  # nearness at which each is painted
_EYE = Material((38, 32, 30), low=0.8)


class _Skull:
    """Points on the head's surface by (turn, rise) from its face, moved to its edge where they are behind it."""

    def __init__(self, body: Puppet, figure: Figure) -> None:
        self.centre, self.axes, self.radii = body.head, body.head_axes, body.head_radii
        view = (self.axes @ figure.towards) / self.radii
        self._view = view / np.linalg.norm(view)

    def at(self, turn: float, rise: float, out: float = 1.01) -> Vector:
        """float64[3]: the point, or the nearest one of the outline where it is on the far side."""
        ball = vector(sin(turn) * cos(rise), sin(rise), cos(turn) * cos(rise))
        facing = float(ball @ self._view)
        if facing < 0.05:
            ball = ball + self._view * (0.05 - facing)
            ball = ball / np.linalg.norm(ball)
        placed: Vector = self.centre + (ball * self.radii * out) @ self.axes
        return placed

    def seen(self, turn: float, rise: float) -> bool:
        """Whether the surface there faces the camera."""
        return self._facing(turn, rise) > 0.12

    def outline(self, corners: list[tuple[float, float]], out: float = 1.01) -> Points:
        """Corners on the surface; those far behind are left out, as they would come back on the other side."""
        kept = [self.at(turn, rise, out) for turn, rise in corners if self._facing(turn, rise) > -0.6]
        return np.array(kept).reshape(-1, 3)

    def _facing(self, turn: float, rise: float) -> float:
        return float(vector(sin(turn) * cos(rise), sin(rise), cos(turn) * cos(rise)) @ self._view)


def add_head(figure: Figure, body: Puppet, person: Persona) -> None:
    """All of it."""
    skull = _Skull(body, figure)
    tall = body.build.height
    back = figure.nearness(vector(0.0, 0.0, -1.0)) > 0
    chin = body.head + vector(0.0, -0.3, -0.02) * body.head_radii[1] * 2 * 0.9
    figure.chain((body.neck, chin), (0.034 * tall, 0.03 * tall), replace(person.skin, low=0.5), _NECK)
    _add_hair_behind(figure, body, person, back)
    bare = person.hair_style == "none"
    size = {"none": 1.0, "buzz": 1.02, "receding": 1.04}.get(person.hair_style, 1.09)
    cap = person.skin if bare else person.hair
    if person.hair_style == "buzz":
        cap = replace(cap, colour=mixed(person.skin.colour, cap.colour, 0.55))
    figure.ellipsoid(body.head, body.head_radii * (size, size, size), cap, _HEAD, body.head_axes)
    _add_face(figure, skull, person)
    if person.hat:
        _add_hat(figure, body, person, skull, back)


def _add_hair_behind(figure: Figure, body: Puppet, person: Persona, back: bool) -> None:
    """What falls down or is tied behind."""
    tall, r = body.build.height, body.head_radii
    style = person.hair_style
    if style in ("long", "bob"):
        drop = (1.0 if style == "bob" else 2.3) * r[1]
        low = body.head + vector(0.0, -drop, -0.5 * r[2] - (0.02 * tall if style == "long" else 0))
        key = 0.46 if back else _HAIR_BEHIND - 0.1
        middle = body.head + vector(0, -0.2 * r[1], -0.25 * r[2])
        points = []
        for side in SIDES:
            points += [
                middle + vector(side * 1.05 * r[0], 0, 0),
                low + vector(side * (1.0 if style == "bob" else 1.1) * r[0], 0, 0.2 * r[2]),
            ]
        figure.chain([points[0], points[2], points[3], points[1], points[0]], [0.35 * r[0]] * 5, person.hair, key)
        figure.hull(np.array(points), person.hair, key, 0.4 * r[0])
    elif style == "tail":
        start = body.head + vector(0.0, 0.35 * r[1], -1.05 * r[2])
        end = body.head + vector(0.0, -1.3 * r[1], -1.25 * r[2])
        figure.chain((start, end), (0.3 * r[0], 0.16 * r[0]), person.hair, 0.6 if back else _HAIR_BEHIND)
    elif style == "bun":
        at = body.head + vector(0.0, 0.75 * r[1], -0.85 * r[2]) @ body.head_axes
        figure.ellipsoid(at, r * 0.42, person.hair, 0.6 if back else 0.47)


def _add_face(figure: Figure, skull: _Skull, person: Persona) -> None:
    style = person.hair_style
    brow = {"none": 1.35, "receding": 0.95, "buzz": 0.62}.get(style, 0.5)
    wide = 1.0 if style in ("long", "bob") else 1.25
    if style != "none" and any(skull.seen(turn, -0.2) for turn in (-1.0, 0.0, 1.0)):
        corners = [
            (-wide, -0.25),
            (-wide * 0.95, 0.2),
            (-0.6 * wide, brow),
            (0.0, brow + 0.08),
            (0.6 * wide, brow),
            (wide * 0.95, 0.2),
            (wide, -0.25),
            (0.8, -0.95),
            (0.25, -1.25),
            (-0.25, -1.25),
            (-0.8, -0.95),
        ]
        figure.hull(skull.outline(corners), person.skin, _FACE, 0.25 * skull.radii[0])
    if style in ("short", "buzz", "none", "receding", "tail", "bun"):
        for side in SIDES:
            if skull.seen(side * 1.45, -0.1):
                ear = skull.at(side * 1.5, -0.1, 1.03)
                figure.ellipsoid(ear, skull.radii * (0.16, 0.26, 0.2), person.skin, _FACE + 0.001)
    if style in ("none", "receding") and skull.seen(0.3, 1.0):
        figure.ellipsoid(
            skull.at(0.3, 1.0, 0.86), skull.radii * 0.14, replace(person.skin, colour=_lit(person.skin)), _FACE + 0.001
        )
    _add_features(figure, skull, person)


def _add_features(figure: Figure, skull: _Skull, person: Persona) -> None:
    skin = person.skin.colour
    shade = Material(scaled(skin, 0.66), low=0.8)
    lips = Material((skin[0] * 0.62, skin[1] * 0.6, min(255.0, skin[2] * 0.92)), low=0.8)
    brows = replace(person.hair, texture=None) if person.hair_style != "none" else shade
    for side in SIDES:
        if skull.seen(side * 0.42, 0.08):
            s = side
            figure.polygon(
                skull.outline([(s * 0.22, 0.1), (s * 0.4, 0.17), (s * 0.62, 0.08), (s * 0.4, 0.02)], 1.02),
                _EYE,
                _FACE + 0.003,
            )
            figure.polygon(
                skull.outline([(s * 0.18, 0.26), (s * 0.45, 0.36), (s * 0.72, 0.25), (s * 0.45, 0.28)], 1.02),
                brows,
                _FACE + 0.003,
            )
            if person.lines > 0.45:
                figure.polygon(
                    skull.outline([(s * 0.3, -0.28), (s * 0.5, -0.62), (s * 0.42, -0.64), (s * 0.25, -0.3)], 1.02),
                    shade,
                    _FACE + 0.002,
                )
    if person.beard and skull.seen(0.0, -0.7):
        corners = [
            (-1.05, -0.35),
            (-0.55, -0.5),
            (0.0, -0.42),
            (0.55, -0.5),
            (1.05, -0.35),
            (0.8, -0.95),
            (0.25, -1.28),
            (-0.25, -1.28),
            (-0.8, -0.95),
        ]
        figure.polygon(skull.outline(corners, 1.02), person.hair, _FACE + 0.002)
    if skull.seen(0.0, -0.1):
        nose = skull.at(0.0, -0.12, 1.06)
        figure.ellipsoid(nose, skull.radii * (0.13, 0.2, 0.14), Material(scaled(skin, 0.9), low=0.7), _FACE + 0.004)
        figure.polygon(
            skull.outline([(-0.32, -0.58), (0.0, -0.53), (0.32, -0.58), (0.0, -0.68)], 1.02), lips, _FACE + 0.004
        )
    if person.lines > 0.6 and skull.seen(0.0, 0.5) and person.hat == "":
        figure.polygon(
            skull.outline([(-0.4, 0.48), (0.4, 0.48), (0.4, 0.51), (-0.4, 0.51)], 1.02), shade, _FACE + 0.002
        )


def _add_hat(figure: Figure, body: Puppet, person: Persona, skull: _Skull, back: bool) -> None:
    """Domes cover the upper part of the head: an ellipsoid cut below by its own rim."""
    r, cloth = body.head_radii, person.cloths["hat"]
    kind = person.hat
    full = kind in ("helmet", "hood")
    size = {"helmet": 1.28, "hard_hat": 1.2, "hood": 1.22, "beanie": 1.13}.get(kind, 1.1)
    low = -0.55 if full else 0.22 if kind != "beanie" else 0.12
    rings = []
    for rise in (low, 0.35 + low * 0.3, 0.75, 1.1, 1.5):
        rings.append((rise, cos(rise) * size))
    points = []
    for rise, wide in rings:
        for i in range(12):
            turn = i * np.pi / 6
            if full and rise < 0.2 and abs(((turn + np.pi) % (2 * np.pi)) - np.pi) < 0.9:
                continue
            ball = vector(sin(turn) * wide, sin(rise) * size, cos(turn) * wide)
            points.append(body.head + (ball * r) @ body.head_axes)
    dome = np.array(points)
    if full:
        _add_open_dome(figure, body, skull, cloth, dome, back)
        return
    figure.hull(dome, cloth, _HAT, 0.5 * r[0])
    if kind in ("cap", "skin_cap", "hard_hat"):
        reach = 1.95 if kind != "hard_hat" else 1.55
        peak = [
            body.head + (vector(sin(t) * size, 0.26, cos(t) * reach) * r) @ body.head_axes
            for t in np.linspace(-0.9, 0.9, 7)
        ]
        peak += [
            body.head + (vector(sin(t) * size, 0.26, cos(t) * size) * r) @ body.head_axes
            for t in np.linspace(0.9, -0.9, 5)
        ]
        key = _HAT + 0.01 if not back else _HEAD - 0.01
        figure.hull(np.array(peak), replace(cloth, colour=scaled(cloth.colour, 0.85)), key)
    elif kind == "brim":
        brim = [
            body.head + (vector(sin(t) * 1.9, 0.28, cos(t) * 1.75) * r) @ body.head_axes
            for t in np.arange(14) * np.pi / 7
        ]
        figure.hull(np.array(brim), replace(cloth, colour=scaled(cloth.colour, 0.8)), _HAT - 0.005)


def _add_open_dome(figure: Figure, body: Puppet, skull: _Skull, cloth: Material, dome: np.ndarray, back: bool) -> None:
    """A helmet or hood: around the head, the face stays open."""
    r = body.head_radii
    figure.hull(dome, cloth, _HEAD + 0.005 if not back else _HAT, 0.5 * r[0])
    upper = [skull.at(t, rise, 1.22) for rise in (0.42, 0.8, 1.2) for t in np.linspace(-1.6, 1.6, 7)]
    if not back:
        figure.hull(np.array(upper), cloth, _HAT, 0.4 * r[0])


def _lit(material: Material) -> tuple[float, float, float]:
    b, g, r = (min(255.0, value * 1.18 + 14) for value in material.colour)
    return (b, g, r)
