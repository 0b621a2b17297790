"""Boxes: parcels, food boxes, what couriers hold or wear on the back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graftsdk.training.synthetic.canvas import Material, scaled
from graftsdk.training.synthetic.clothes import band
from graftsdk.training.synthetic.figure import Figure, Vector, vector
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import SIDES, Puppet

__all__ = ["CORNERS", "add_box", "add_box_on_the_back", "add_food_box", "add_parcel", "back_of"]

CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)  # of a unit box


def add_box(
    figure: Figure, centre: Vector, half: Vector, material: Material, key: float, turn: float = 0.0, faces: bool = True
) -> None:
    """A box, its faces lit differently."""
    c, s = np.cos(turn), np.sin(turn)
    axes = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    figure.hull(centre + (CORNERS * half) @ axes, replace(material, low=0.7), key, 0.2 * float(half.min()))
    if not faces:
        return
    for axis, light in ((1, 1.12), (0, 0.78), (2, 0.95)):
        for sign in SIDES:
            normal = sign * axes[axis]
            if normal @ figure.towards > 0.08:
                corners = CORNERS[CORNERS[:, axis] == sign][[0, 1, 3, 2]]
                shaded = replace(material, colour=scaled(material.colour, light))
                figure.polygon(centre + (corners * half) @ axes, shaded, key + 0.0005)


def add_parcel(figure: Figure, body: Puppet, person: Persona) -> None:
    """A taped carton in both arms."""
    _in_the_arms(figure, body, person, vector(0.17, 0.12, 0.12), person.cloths["carton"], "tape")


def add_food_box(figure: Figure, body: Puppet, person: Persona) -> None:
    """An insulated box with a print in both arms."""
    _in_the_arms(figure, body, person, vector(0.18, 0.16, 0.15), person.cloths["top"], "print")


def _in_the_arms(figure: Figure, body: Puppet, person: Persona, half: Vector, material: Material, mark: str) -> None:
    at = (body.wrist[-1] + body.wrist[1]) / 2
    centre = at + vector(0, half[1] * 0.6, half[2] * 0.5 + 0.04)
    key = figure.nearness(centre) + 0.12 + (0.02 if figure.towards[2] > 0 else -0.1)
    add_box(figure, centre, half, material, key)
    if mark == "print":
        _label(figure, centre, half, person.cloths["accent"], key + 0.002)
    elif figure.towards[1] > 0:
        tape = np.array([(-0.12, 1, -1), (0.12, 1, -1), (0.12, 1, 1), (-0.12, 1, 1)]) * half
        figure.polygon(centre + tape, Material((150, 190, 205), low=0.8), key + 0.002)


def add_box_on_the_back(figure: Figure, body: Puppet, person: Persona) -> None:
    """A deliverer's large box on two straps."""
    y = body.y_chest + 0.02
    half = vector(0.21, 0.22, 0.17)
    centre = vector(body.trunk.at(y)[0], y, back_of(body, y) - half[2] - 0.03)
    add_box(figure, centre, half, person.cloths["top"], figure.nearness(centre) + 0.1)
    _label(figure, centre, half, person.cloths["accent"], figure.nearness(centre) + 0.102)
    for side in SIDES:
        if body.trunk.seen(side * 0.6, body.y_chest):
            path = [(side * 0.9, body.y_shoulder + 0.03), (side * 0.66, body.y_chest), (side * 1.2, body.y_waist)]
            band(figure, body, path, 0.022, person.cloths["strap"], 0.05, 0.035)


def _label(figure: Figure, centre: Vector, half: Vector, material: Material, key: float) -> None:
    """A print on the faces that look forward or back."""
    for sign in SIDES:
        if sign * figure.towards[2] > 0.1:
            corners = (
                np.array([(-0.55, -0.3, sign), (0.55, -0.3, sign), (0.55, 0.35, sign), (-0.55, 0.35, sign)]) * half
            )
            figure.polygon(centre + corners, material, key)


def back_of(body: Puppet, y: float) -> float:
    """Where the back is, metres forward of the axis."""
    _, _, z, _, deep = body.trunk.at(y)
    return float(z - deep)
