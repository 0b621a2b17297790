"""Legs, trunk and arms, and what they wear, as parts of a figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graftsdk.training.synthetic.camera import Points
from graftsdk.training.synthetic.canvas import Material, scaled
from graftsdk.training.synthetic.figure import Figure, Vector, vector
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import SIDES, Puppet

__all__ = ["add_arms", "add_legs", "add_trunk", "band"]

# Kind of top -> (hem, as a share of the way from shoulder to hip past the hip; ease in metres)
_TOPS = {
    "tee": (-0.02, 0.012),
    "blouse": (0.02, 0.016),
    "shirt": (0.03, 0.014),
    "jumper": (0.0, 0.022),
    "hoodie": (0.03, 0.028),
    "track": (0.0, 0.022),
    "zip": (0.02, 0.028),
    "cardigan": (0.10, 0.024),
    "suit": (0.16, 0.022),
    "vest": (0.0, 0.028),
    "overall": (-0.3, 0.02),
    "coat": (0.75, 0.034),
    "dress": (0.8, 0.012),
}


def add_legs(figure: Figure, body: Puppet, person: Persona) -> None:
    """Legs, shoes, and what is worn from the waist down."""
    tall, girth = body.build.height, body.build.girth
    cloth, skin = person.cloths["bottom"], person.skin
    covered = person.bottom == "trousers" and person.top != "dress"
    wide = 0.010 if covered else 0.0
    thigh, knee, ankle = 0.048 * tall * girth**0.7, 0.031 * tall * girth**0.5, 0.02 * tall
    for side in SIDES:
        near = figure.nearness((body.knee[side] + body.ankle[side]) / 2)
        key = -0.7 + 0.1 * near
        joints = (body.hip[side], body.knee[side], body.ankle[side])
        _add_shoe(figure, body, person, side, key - 0.002)
        if covered:
            end = body.ankle[side] - vector(0, 0.012 * tall, 0)
            figure.chain((joints[0], joints[1], end), (thigh + wide, knee + 1.4 * wide, ankle + 1.6 * wide), cloth, key)
            if "side_stripes" in person.things:
                _stripe(figure, joints, (thigh, knee, ankle), side, person.cloths["accent"], key + 0.001)
        else:
            figure.chain(joints, (thigh, knee, ankle), skin, key)
            if person.bottom == "shorts" and person.top != "dress":
                end = joints[1] + (joints[0] - joints[1]) * 0.12
                figure.chain((joints[0], end), (thigh + 0.014, knee + 0.028), cloth, key + 0.001)
    low, high = body.y_hip - 0.16 * (body.y_shoulder - body.y_hip), body.y_waist
    figure.rings(body.trunk.between(low, high, 0.008), cloth, -0.5)
    if person.top != "dress" and person.bottom in ("skirt", "long_skirt"):
        reach = 0.95 if person.bottom == "skirt" else 1.6
        figure.rings(_skirt(body, body.y_waist - 0.02 * tall, reach, 0.012, 0.05), cloth, -0.45)


def _skirt(body: Puppet, top: float, reach: float, ease: float, flare: float) -> Points:
    """Rings from `top` to `reach` thighs below the hip, wide enough for both knees."""
    tall = body.build.height
    rings = [body.trunk.at(top), body.trunk.at(body.y_hip)]
    thigh = body.y_hip - (body.knee[1][1] + body.knee[-1][1]) / 2
    low = max(body.y_hip - reach * thigh, 0.05 * tall)
    share = min(1.0, (body.y_hip - low) / max(body.y_hip - 0.05 * tall, 0.1))
    ends = [body.hip[s] + (body.ankle[s] - body.hip[s]) * share for s in SIDES]
    middle = (ends[0] + ends[1]) / 2
    wide = abs(ends[0][0] - ends[1][0]) / 2 + (0.05 + flare * 0.6) * tall
    deep = abs(ends[0][2] - ends[1][2]) / 2 + (0.045 + flare * 0.5) * tall
    rings.append(np.array((middle[0], low, middle[2], max(wide, rings[1][3] * 0.92), max(deep, rings[1][4] * 0.95))))
    found = np.array(rings)
    found[:2, 3:] += ease
    return found


def _add_shoe(figure: Figure, body: Puppet, person: Persona, side: int, key: float) -> None:
    tall = body.build.height
    shoe = person.cloths["shoes"]
    ankle = body.ankle[side]
    out = side * 0.02 * tall
    heel = ankle + vector(0, -0.018 * tall, -0.016 * tall)
    toe = ankle + vector(out, -0.027 * tall, 0.085 * tall)
    if person.shoes == "heels":
        heel = heel + vector(0, 0.012 * tall, 0)
        figure.chain((heel - vector(0, 0.02 * tall, 0), heel), (0.007 * tall, 0.012 * tall), shoe, key - 0.001)
    if person.shoes == "sneakers":
        sole = replace(person.cloths["accent"], design=None)
        low = vector(0, -0.009 * tall, 0)
        figure.chain((heel + low, toe + low), (0.021 * tall, 0.019 * tall), sole, key - 0.001)
    radius = 0.022 if person.shoes in ("sneakers", "boots") else 0.019
    if person.shoes == "boots":
        figure.chain((ankle + vector(0, 0.05 * tall, 0), ankle), (0.029 * tall, 0.026 * tall), shoe, key + 0.004)
    figure.chain((heel, toe), (radius * tall, 0.9 * radius * tall), shoe, key)


def _stripe(
    figure: Figure, joints: tuple[Vector, ...], radii: tuple[float, ...], side: int, accent: Material, key: float
) -> None:
    """A stripe along the outside of a limb, where that is seen."""
    out = vector(side * 1.0, 0.0, 0.0)
    facing = float(figure.towards @ out)
    if facing < -0.25:
        return
    at = out if facing > 0.3 else out + 0.5 * figure.towards
    at = at / np.linalg.norm(at)
    middles = [joint + at * radius * 0.95 for joint, radius in zip(joints, radii, strict=True)]
    figure.chain(middles, [0.011] * len(middles), replace(accent, design=None, low=0.8), key)


def add_trunk(figure: Figure, body: Puppet, person: Persona) -> None:
    """The upper body: its clothes and what is on them."""
    span = body.y_shoulder - body.y_hip
    hem, ease = _TOPS[person.top]
    top = person.cloths["top"]
    neck = body.y_shoulder + 0.10 * span
    if "loose" in person.things:
        ease += 0.05
    if person.top in ("coat", "dress"):
        reach = hem * (1.0 if person.top == "coat" else 1.05)
        figure.rings(_skirt(body, body.y_waist, reach, ease, 0.03 if person.top == "coat" else 0.05), top, -0.02)
        low = body.y_waist - 0.02
    else:
        low = body.y_hip - hem * span
    if person.top == "vest":
        figure.rings(body.trunk.between(low, neck, 0.014), person.cloths["inner"], -0.01)
    rings = body.trunk.between(low, neck, ease)
    rings[-1, 3:] -= ease * 0.7
    figure.rings(rings, top, 0.0)
    _add_front(figure, body, person, low, ease)


def _add_front(figure: Figure, body: Puppet, person: Persona, low: float, ease: float) -> None:
    """Lapels, zips, buttons, collars, reflective bands."""
    out = ease + 0.004
    span = body.y_shoulder - body.y_hip
    top, inner, accent = person.cloths["top"], person.cloths["inner"], person.cloths["accent"]
    dark = replace(top, colour=scaled(top.colour, 0.5), design=None, texture=None)
    neck = body.y_shoulder + 0.06 * span
    front = body.trunk.seen(0.0, body.y_chest)
    if person.top in ("suit", "cardigan", "coat") and front:
        opening = {"suit": 0.42, "cardigan": 0.30, "coat": 0.62}[person.top]
        v = body.y_hip + opening * span
        _flat(figure, body, [(-0.5, neck), (0.0, v), (0.5, neck)], inner, 0.010, out)
        if person.tie:
            tie = replace(accent, texture=None)
            _flat(
                figure,
                body,
                [(-0.13, neck - 0.02), (-0.16, v + 0.03), (0.0, v), (0.16, v + 0.03), (0.13, neck - 0.02)],
                tie,
                0.012,
                out,
            )
        if person.top != "cardigan":
            for s in SIDES:
                _flat(
                    figure,
                    body,
                    [
                        (s * 0.45, neck),
                        (s * 0.85, neck - 0.16 * span),
                        (s * 0.7, neck - 0.22 * span),
                        (0.0, v),
                        (s * 0.1, v - 0.01),
                    ],
                    replace(dark, colour=scaled(top.colour, 0.8)),
                    0.014,
                    out,
                )
        band(figure, body, [(0.03, v), (0.05, low + 0.02)], 0.006, dark, 0.013, out)
        for i in range(3):
            y = v - (i + 0.3) * 0.11 * span
            _flat(figure, body, [(0.1, y), (0.18, y), (0.18, y - 0.015), (0.1, y - 0.015)], accent, 0.015, out)
    elif person.top in ("zip", "track", "overall", "shirt", "blouse") and front:
        line = replace(accent if person.top != "shirt" else dark, texture=None, design=None)
        band(
            figure, body, [(0.0, neck), (0.0, low + 0.02)], 0.008 if person.top != "shirt" else 0.004, line, 0.012, out
        )
    elif person.top in ("tee", "jumper", "dress", "hoodie") and front:
        skin = person.skin if person.top != "hoodie" else dark
        _flat(
            figure,
            body,
            [(-0.6, neck + 0.02), (-0.3, neck - 0.03), (0.3, neck - 0.03), (0.6, neck + 0.02)],
            skin,
            0.01,
            out,
        )
        if person.top != "dress" and person.labels["yaw_bin"] in (0.0, 1.0, 7.0) and accent.offset[0] % 3 == 0:
            y = body.y_chest
            _flat(figure, body, [(-0.4, y), (0.4, y), (0.3, y - 0.09), (-0.3, y - 0.11)], accent, 0.011, out)
    if person.top == "vest":
        for along in (0.12, 0.42):
            y = body.y_hip + along * span
            rings = body.trunk.between(y, y + 0.045, ease + 0.005)
            figure.rings(rings, Material((225, 235, 235), low=0.75), 0.013)
    if person.top == "hoodie" and person.hat != "hood":
        centre = body.neck + vector(0, 0.01, -0.05)
        key = 0.3 if figure.nearness(vector(0, 0, -0.1)) > 0 else 0.02
        figure.ellipsoid(centre, vector(0.12, 0.06, 0.08) * body.build.height / 1.7, top, key)
    if person.top in ("suit", "coat", "shirt", "zip", "track"):
        y = body.y_shoulder + 0.1 * span
        rings = body.trunk.between(y - 0.02, y + 0.05 * span, 0.012 if person.top != "coat" else 0.024)
        figure.rings(rings, top if person.top != "suit" else inner, 0.22)


def add_arms(figure: Figure, body: Puppet, person: Persona) -> None:
    """Sleeves, arms and hands."""
    tall, girth = body.build.height, body.build.girth
    upper, fore, end = 0.029 * tall * girth**0.6, 0.023 * tall * girth**0.4, 0.0165 * tall
    sleeve = person.cloths["inner" if person.top == "vest" else "top"]
    thick = {"coat": 0.02, "suit": 0.013, "hoodie": 0.017, "zip": 0.017}.get(person.top, 0.009)
    for side in SIDES:
        shoulder, elbow, wrist = body.shoulder[side], body.elbow[side], body.wrist[side]
        near, far = figure.nearness((shoulder + elbow) / 2), figure.nearness((elbow + 2 * wrist) / 3)
        raised = wrist[1] > body.y_shoulder + 0.05 * tall
        key = near + 0.12
        fore_key = far + 0.13 + (0.5 if raised and figure.nearness(wrist) > -0.02 else 0.0)
        long = person.sleeves == "long"
        if long:
            figure.chain((shoulder, elbow), (upper * 1.04 + 0.6 * thick, fore + thick), sleeve, key)
            figure.chain((elbow, wrist), (fore + thick, end + 0.8 * thick), sleeve, fore_key)
        else:
            figure.chain((shoulder, elbow), (upper, fore), person.skin, key)
            figure.chain((elbow, wrist), (fore, end), person.skin, fore_key)
            half = shoulder + (elbow - shoulder) * 0.55
            figure.chain((shoulder, half), (upper * 1.04 + 0.6 * thick, upper + thick), sleeve, key + 0.001)
        if "side_stripes" in person.things and long:
            _stripe(figure, (shoulder, elbow, wrist), (upper + thick,) * 3, side, person.cloths["accent"], key + 0.002)
        way = wrist - elbow
        hand = wrist + way / (np.linalg.norm(way) + 1e-6) * 0.035 * tall
        figure.chain((wrist, hand), (end * 0.95, 0.0205 * tall), person.skin, fore_key - 0.001)


def band(
    figure: Figure,
    body: Puppet,
    path: list[tuple[float, float]],
    half: float,
    material: Material,
    key: float,
    out: float,
) -> None:
    """A strip along (turn, height) points on the trunk, `half` metres to each side, flattened to what is seen."""
    middles = [body.trunk.surface(turn, y, out) for turn, y in path]
    figure.chain(middles, [half] * len(middles), material, key)


def _flat(
    figure: Figure, body: Puppet, corners: list[tuple[float, float]], material: Material, key: float, out: float
) -> None:
    """A polygon of (turn, height) corners on the trunk."""
    figure.polygon(np.array([body.trunk.surface(turn, y, out) for turn, y in corners]), material, key)
