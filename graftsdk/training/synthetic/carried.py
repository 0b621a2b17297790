"""Bags, boxes, phones, babies and toys: what a person carries or wears over the clothes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.clothes import band
from graftsdk.training.synthetic.figure import Figure, Vector, vector
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import SIDES, Puppet

__all__ = ["add_box", "add_things"]

_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def add_things(figure: Figure, body: Puppet, person: Persona) -> None:
    """Everything in `person.things`."""
    for thing in person.things:
        draw = _THINGS.get(thing)
        if draw is not None:
            draw(figure, body, person)


def add_box(
    figure: Figure, centre: Vector, half: Vector, material: Material, key: float, turn: float = 0.0, faces: bool = True
) -> None:
    """A box, its faces lit differently."""
    c, s = np.cos(turn), np.sin(turn)
    axes = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    figure.hull(centre + (_CORNERS * half) @ axes, replace(material, low=0.7), key, 0.2 * float(half.min()))
    if not faces:
        return
    for axis, light in ((1, 1.12), (0, 0.78), (2, 0.95)):
        for sign in SIDES:
            normal = sign * axes[axis]
            if normal @ figure.towards > 0.08:
                corners = _CORNERS[_CORNERS[:, axis] == sign][[0, 1, 3, 2]]
                shaded = replace(material, colour=tuple(min(255.0, v * light) for v in material.colour))  # type: ignore[arg-type]
                figure.polygon(centre + (corners * half) @ axes, shaded, key + 0.0005)


def _hand(body: Puppet, side: int) -> Vector:
    way = body.wrist[side] - body.elbow[side]
    placed: Vector = body.wrist[side] + way / (np.linalg.norm(way) + 1e-6) * 0.045 * body.build.height
    return placed


def _behind(body: Puppet, y: float) -> float:
    """Where the back is, metres forward of the axis."""
    _, _, z, _, deep = body.trunk.at(y)
    return float(z - deep)


def _backpack(figure: Figure, body: Puppet, person: Persona) -> None:
    tall = body.build.height
    cloth, strap = person.cloths["bag"], person.cloths["strap"]
    size = 0.9 + 0.35 * (cloth.offset[0] % 7) / 7
    half = vector(0.082, 0.118, 0.046) * tall * size
    y = body.y_shoulder - 0.105 * tall * size
    centre = vector(body.trunk.at(y)[0], y, _behind(body, y) - half[2] - 0.015)
    key = figure.nearness(centre) + 0.1
    figure.ellipsoid(centre + vector(0, 0.04 * tall, 0), half * (1.0, 0.85, 0.9), cloth, key)
    figure.hull(centre + _CORNERS * half * (0.95, 0.8, 0.8) - vector(0, 0.015 * tall, 0), cloth, key, 0.5 * half[2])
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


def _cross_strap(figure: Figure, body: Puppet, person: Persona) -> None:
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


def _box_on_the_back(figure: Figure, body: Puppet, person: Persona) -> None:
    y = body.y_chest + 0.02
    half = vector(0.21, 0.22, 0.17)
    centre = vector(body.trunk.at(y)[0], y, _behind(body, y) - half[2] - 0.03)
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


def _parcel(figure: Figure, body: Puppet, person: Persona) -> None:
    _in_the_arms(figure, body, person, vector(0.17, 0.12, 0.12), person.cloths["carton"], "tape")


def _food_box(figure: Figure, body: Puppet, person: Persona) -> None:
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


def _phone(figure: Figure, body: Puppet, person: Persona) -> None:
    hand = _hand(body, person.side) + vector(0, 0.025, 0.015)
    key = figure.nearness(hand) + 0.2
    tilt = (
        np.array([(-0.036, -0.055, 0.02), (0.036, -0.055, 0.02), (0.036, 0.06, -0.045), (-0.036, 0.06, -0.045)]) * 1.1
    )
    # the screen looks back at its owner's face and up; from the front its dark back is seen
    tilt[:, 2] *= -1
    facing = figure.towards @ vector(0.0, 0.75, -0.66)
    screen = facing > 0.05
    case = Material((30, 28, 28), low=0.8)
    figure.hull(hand + tilt * 1.12, case, key)
    if screen:
        figure.polygon(hand + tilt * 0.95, person.cloths["screen"], key + 0.001)


def _at_the_ear(figure: Figure, body: Puppet, person: Persona) -> None:
    hand = _hand(body, person.side)
    way = vector(0, 0.065, -0.01)
    figure.chain(
        (hand - way, hand + way), (0.014, 0.014), Material((30, 28, 28), low=0.8), figure.nearness(hand) + 0.64
    )


def _watch(figure: Figure, body: Puppet, person: Persona) -> None:
    wrist, elbow = body.wrist[person.side], body.elbow[person.side]
    way = (elbow - wrist) / np.linalg.norm(elbow - wrist) * 0.025
    figure.chain((wrist, wrist + way), (0.036, 0.037), person.cloths["strap"], figure.nearness(wrist) + 0.2)
    face = wrist + way / 2 + figure.towards * 0.036
    figure.chain((face,), (0.02,), Material((215, 225, 225), low=0.7), figure.nearness(wrist) + 0.201)


def _cup(figure: Figure, body: Puppet, person: Persona) -> None:
    hand = _hand(body, person.side)
    low, high = hand - vector(0, 0.05, 0), hand + vector(0, 0.08, 0)
    rings = np.array([(*low, 0.028, 0.028), (*high, 0.04, 0.04)])
    figure.rings(rings, person.cloths["accent"], figure.nearness(hand) + 0.21)
    figure.rings(
        np.array([(*high, 0.042, 0.042), (*(high + vector(0, 0.012, 0)), 0.04, 0.04)]),
        Material((225, 228, 230)),
        figure.nearness(hand) + 0.211,
    )


def _ladys_bag(figure: Figure, body: Puppet, person: Persona) -> None:
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
        top = _hand(body, side)
        centre = top - vector(0, 0.12 * tall + half[1], 0)
    key = figure.nearness(centre) + 0.19
    for ahead in (-0.7, 0.7):
        base = centre + vector(0, half[1] * 0.9, ahead * half[2])
        figure.chain((base, top), (0.009, 0.009), strap, key - 0.001)
    corners = _CORNERS.copy()
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


def _shopping_bag(figure: Figure, body: Puppet, person: Persona) -> None:
    side = -person.side
    hand = _hand(body, side)
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


def _briefcase(figure: Figure, body: Puppet, person: Persona) -> None:
    hand = _hand(body, -person.side)
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


def _suitcase(figure: Figure, body: Puppet, person: Persona) -> None:
    hand = _hand(body, -person.side)
    half = vector(0.12, 0.27, 0.19)
    centre = vector(hand[0] - person.side * 0.14, half[1] + 0.06, hand[2] - 0.1)
    key = figure.nearness(centre) * 0.4 + (-0.42 if figure.nearness(centre) < 0.05 else 0.1)
    figure.chain((centre + vector(0, half[1], 0), hand), (0.012, 0.012), Material((60, 60, 60)), key)
    add_box(figure, centre, half, person.cloths["bag"], key)
    for z in (-0.7, 0.7):
        figure.chain(
            (vector(centre[0], 0.035, centre[2] + z * half[2]),), (0.035,), Material((25, 25, 25)), key - 0.001
        )


def _held(body: Puppet, up: float, out: float) -> Vector:
    x, _, z, _, deep = body.trunk.at(body.y_chest - 0.03)
    return vector(x, body.y_chest + up, z + deep + out)


def _baby(figure: Figure, body: Puppet, person: Persona) -> None:
    _infant(figure, body, person, 0.35)


def _carrier(figure: Figure, body: Puppet, person: Persona) -> None:
    _infant(figure, body, person, 0.0)
    strap = person.cloths["strap"]
    for side in SIDES:
        band(
            figure,
            body,
            [(side * 0.9, body.y_shoulder + 0.03), (side * 0.6, body.y_chest), (side * 0.9, body.y_waist)],
            0.022,
            strap,
            0.05,
            0.03,
        )


def _infant(figure: Figure, body: Puppet, person: Persona, slope: float) -> None:
    """A baby at the chest: body in a blanket, a head against the shoulder, an arm."""
    s = person.side
    seat, neck = _held(body, -0.13, 0.07), _held(body, 0.03, 0.085)
    seat = seat - vector(s * 0.16 * slope, 0, 0)
    neck = neck + vector(s * 0.24 * slope, 0, 0)
    key = figure.nearness(seat) + 0.11
    wrap = person.cloths["blanket"]
    figure.chain((seat, neck), (0.098, 0.078), wrap, key)
    head = neck + vector(s * 0.04, 0.115, 0.01)
    skin = person.cloths["baby_skin"]
    figure.ellipsoid(head, vector(0.068, 0.076, 0.07), skin, key + 0.002)
    figure.ellipsoid(
        head + vector(0, 0.026, 0.018), vector(0.066, 0.056, 0.06), person.cloths["baby_hair"], key + 0.0025
    )
    figure.chain(
        (neck + vector(-s * 0.03, -0.02, 0.05), neck + vector(s * 0.05, -0.07, 0.075)), (0.026, 0.02), wrap, key + 0.003
    )
    for leg in SIDES:
        foot = seat + vector(leg * 0.09, -0.14, 0.03)
        figure.chain((seat + vector(leg * 0.05, -0.04, 0.03), foot), (0.045, 0.03), wrap, key - 0.001)
        figure.chain((foot,), (0.032,), skin, key - 0.0005)


def _plush(figure: Figure, body: Puppet, person: Persona) -> None:
    s = person.side
    fur = person.cloths["fur"]
    seat, head = _held(body, -0.09, 0.08), _held(body, 0.08, 0.09) + vector(s * 0.03, 0, 0)
    key = figure.nearness(seat) + 0.11
    figure.chain((seat,), (0.105,), fur, key)
    figure.chain((head,), (0.078,), fur, key + 0.002)
    for side in SIDES:
        figure.chain((head + vector(side * 0.062, 0.06, 0),), (0.032,), fur, key + 0.001)
        figure.chain((seat, seat + vector(side * 0.13, -0.06, 0.05)), (0.05, 0.042), fur, key + 0.001)
        figure.chain(
            (seat + vector(side * 0.06, 0.06, 0.03), seat + vector(side * 0.13, 0.02, 0.07)),
            (0.036, 0.032),
            fur,
            key + 0.001,
        )
        if figure.towards[2] > 0.1:
            figure.chain((head + vector(side * 0.03, 0.02, 0.07),), (0.009,), Material((20, 20, 20)), key + 0.004)
    if figure.towards[2] > 0.1:
        figure.chain((head + vector(0, -0.015, 0.06),), (0.032,), Material((150, 190, 215)), key + 0.003)


def _grocery(figure: Figure, body: Puppet, person: Persona) -> None:
    centre = _held(body, -0.05, 0.10)
    half = vector(0.12, 0.17, 0.085)
    key = figure.nearness(centre) + 0.11
    for x, high, colour in ((-0.06, 0.13, (60, 130, 190)), (0.0, 0.10, (60, 150, 70)), (0.06, 0.15, (90, 160, 215))):
        figure.chain(
            (centre + vector(x, half[1] - 0.03, 0), centre + vector(x * 1.2, half[1] + high, 0)),
            (0.03, 0.022),
            Material(colour),
            key - 0.001,
        )
    add_box(figure, centre, half, person.cloths["paper"], key)


def _tool_belt(figure: Figure, body: Puppet, person: Persona) -> None:
    y = body.y_hip + 0.08
    leather = person.cloths["leather"]
    figure.rings(body.trunk.between(y, y + 0.05, 0.035), leather, 0.06)
    for turn in (-2.3, -1.2, -0.6, 0.8, 1.5, 2.6):
        if body.trunk.seen(turn, y):
            at = body.trunk.surface(turn, y - 0.02, 0.05)
            figure.hull(at + _CORNERS * (0.045, 0.07, 0.03), leather, 0.07, 0.02)
            figure.chain(
                (at + vector(0, 0.06, 0), at + vector(0.01, 0.13, 0)), (0.012, 0.009), Material((60, 90, 200)), 0.069
            )


_THINGS = {
    "backpack": _backpack,
    "cross_strap": _cross_strap,
    "box_on_the_back": _box_on_the_back,
    "parcel": _parcel,
    "food_box": _food_box,
    "phone": _phone,
    "ear": _at_the_ear,
    "watch": _watch,
    "cup": _cup,
    "ladys_bag": _ladys_bag,
    "shopping_bag": _shopping_bag,
    "briefcase": _briefcase,
    "suitcase": _suitcase,
    "baby": _baby,
    "carrier": _carrier,
    "plush": _plush,
    "grocery": _grocery,
    "tool_belt": _tool_belt,
}
