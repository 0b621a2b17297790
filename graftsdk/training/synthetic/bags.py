"""Backpacks and bags."""

from __future__ import annotations

import numpy as np

from graftsdk.training.synthetic.boxes import CORNERS, add_box, back_of
from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.clothes import band
from graftsdk.training.synthetic.figure import Figure, vector
from graftsdk.training.synthetic.held import hand_of
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import SIDES, Puppet

__all__ = ["add_backpack", "add_briefcase", "add_cross_strap", "add_ladys_bag", "add_shopping_bag", "add_suitcase"]


def add_backpack(figure: Figure, body: Puppet, person: Persona) -> None:
    """Two straps from the front, a box with a pocket from behind."""
    tall = body.build.height
    cloth, strap = person.cloths["bag"], person.cloths["strap"]
    size = 0.9 + 0.35 * (cloth.offset[0] % 7) / 7
    half = vector(0.082, 0.118, 0.046) * tall * size
    y = body.y_shoulder - 0.105 * tall * size
    centre = vector(body.trunk.at(y)[0], y, back_of(body, y) - half[2] - 0.015)
    key = figure.nearness(centre) + 0.1
    figure.ellipsoid(centre + vector(0, 0.04 * tall, 0), half * (1.0, 0.85, 0.9), cloth, key)
    figure.hull(centre + CORNERS * half * (0.95, 0.8, 0.8) - vector(0, 0.015 * tall, 0), cloth, key, 0.5 * half[2])
    if figure.towards[2] < -0.1:
        pocket = centre - vector(0, 0.4 * half[1], half[2])
        corners = pocket + np.array([(-0.65, -0.35, 0), (0.65, -0.35, 0), (0.65, 0.4, 0), (-0.65, 0.4, 0)]) * half
        figure.polygon(corners, person.cloths["bag_pocket"], key + 0.002)
        figure.chain(
            (pocket + vector(-0.6, 1.0, 0) * half, pocket + vector(0.6, 1.0, 0) * half),
            (0.008, 0.008),
            strap,
            key + 0.003,
        )
    for side in SIDES:
        if body.trunk.seen(side * 0.6, body.y_chest):
            path = [
                (side * 1.0, body.y_shoulder + 0.03 * tall),
                (side * 0.66, body.y_shoulder - 0.01 * tall),
                (side * 0.68, body.y_chest - 0.02 * tall),
                (side * 1.2, body.y_waist + 0.03 * tall),
            ]
            band(figure, body, path, 0.019, strap, 0.05, 0.035)


def add_cross_strap(figure: Figure, body: Puppet, person: Persona) -> None:
    """One strap across the trunk and a small bag at the hip: a backpack's look-alike."""
    tall, s = body.build.height, person.side
    strap = person.cloths["strap"]
    front = [
        (s * 0.9, body.y_shoulder + 0.02 * tall),
        (s * 0.3, body.y_chest),
        (-s * 0.7, body.y_waist),
        (-s * 1.3, body.y_hip),
    ]
    behind = [(np.pi - a, y) for a, y in front]
    for path in (front, behind):
        if any(body.trunk.seen(a, y) for a, y in path[1:3]):
            band(figure, body, [path[0], path[1], path[2], path[3]], 0.014, strap, 0.05, 0.03)
    at = body.trunk.at(body.y_hip)
    centre = vector(at[0] - s * (at[3] + 0.04), body.y_hip - 0.03 * tall, 0.0)
    add_box(
        figure, centre, vector(0.03, 0.075, 0.095) * tall / 1.7, person.cloths["bag"], figure.nearness(centre) + 0.16
    )


def add_ladys_bag(figure: Figure, body: Puppet, person: Persona) -> None:
    """A small bag that narrows upwards, with a clasp: in the hand, the crook of the arm or under the shoulder."""
    tall, side = body.build.height / 1.65, -person.side
    cloth, strap = person.cloths["ladys_bag"], person.cloths["strap"]
    half = vector(0.055, 0.095, 0.14) * tall * (0.85 + 0.3 * (cloth.offset[0] % 5) / 5)
    if "on_the_shoulder" in person.things:
        top = body.shoulder[side] + vector(side * 0.01, 0.05, 0)
        centre = vector(body.shoulder[side][0] + side * 0.06, body.y_waist - 0.02, -0.01)
    elif "in_the_crook" in person.things:
        top = (body.elbow[side] + body.wrist[side]) / 2 + vector(0, 0.02, 0)
        centre = top - vector(-side * 0.0, 0.17 * tall + half[1], 0)
    else:
        top = hand_of(body, side)
        centre = top - vector(0, 0.12 * tall + half[1], 0)
    key = figure.nearness(centre) + 0.19
    for ahead in (-0.7, 0.7):
        base = centre + vector(0, half[1] * 0.9, ahead * half[2])
        figure.chain((base, top), (0.009, 0.009), strap, key - 0.001)
    corners = CORNERS.copy()
    corners[corners[:, 1] > 0] *= (0.7, 1, 0.78)
    figure.hull(centre + corners * half, cloth, key, 0.9 * half[0])
    for side_on in SIDES:
        if side_on * figure.towards[0] > 0.2:
            at = centre + vector(side_on * half[0] * 0.9, 0.3 * half[1], 0)
            figure.chain((at,), (0.018,), Material((90, 190, 225), gloss=0.5), key + 0.001)
            flap = np.array(
                [(side_on * 0.8, 0.9, -0.7), (side_on * 0.8, 0.9, 0.7), (side_on, 0.2, 0.55), (side_on, 0.2, -0.55)]
            )
            figure.polygon(centre + flap * half, person.cloths["bag_pocket"], key + 0.0005)


def add_shopping_bag(figure: Figure, body: Puppet, person: Persona) -> None:
    """A large paper bag with a print in the hand."""
    side = -person.side
    hand = hand_of(body, side)
    half = vector(0.07, 0.19, 0.16)
    centre = hand - vector(0, half[1] + 0.10, 0)
    centre[1] = max(centre[1], half[1] + 0.02)
    key = figure.nearness(centre) + 0.18
    for ahead in (-0.4, 0.4):
        figure.chain(
            (centre + vector(0, half[1], ahead * half[2]), hand), (0.006, 0.006), person.cloths["strap"], key - 0.001
        )
    add_box(figure, centre, half, person.cloths["paper"], key)
    for face in SIDES:
        if face * figure.towards[0] > 0.1:
            corners = np.array([(face, -0.3, -0.5), (face, -0.3, 0.5), (face, 0.4, 0.5), (face, 0.4, -0.5)]) * half
            figure.polygon(centre + corners, person.cloths["accent"], key + 0.002)


def add_briefcase(figure: Figure, body: Puppet, person: Persona) -> None:
    """A flat case in the hand."""
    hand = hand_of(body, -person.side)
    half = vector(0.045, 0.13, 0.2)
    centre = hand - vector(0, half[1] + 0.05, 0)
    key = figure.nearness(centre) + 0.18
    figure.chain(
        (centre + vector(0, half[1] + 0.03, -0.06), centre + vector(0, half[1] + 0.03, 0.06)),
        (0.012, 0.012),
        person.cloths["strap"],
        key,
    )
    add_box(figure, centre, half, person.cloths["strap"], key)


def add_suitcase(figure: Figure, body: Puppet, person: Persona) -> None:
    """A case on wheels that is pulled behind."""
    hand = hand_of(body, -person.side)
    half = vector(0.12, 0.27, 0.19)
    centre = vector(hand[0] - person.side * 0.14, half[1] + 0.06, hand[2] - 0.1)
    key = figure.nearness(centre) * 0.4 + (-0.42 if figure.nearness(centre) < 0.05 else 0.1)
    figure.chain((centre + vector(0, half[1], 0), hand), (0.012, 0.012), Material((60, 60, 60)), key)
    add_box(figure, centre, half, person.cloths["bag"], key)
    for z in (-0.7, 0.7):
        figure.chain(
            (vector(centre[0], 0.035, centre[2] + z * half[2]),), (0.035,), Material((25, 25, 25)), key - 0.001
        )
