"""Small things in one hand or at the belt: phones, watches, cups, tools."""

from __future__ import annotations

import numpy as np

from graftsdk.training.synthetic.boxes import CORNERS
from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.figure import Figure, Vector, vector
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import Puppet

__all__ = ["add_cup", "add_phone", "add_phone_at_the_ear", "add_tool_belt", "add_watch", "hand_of"]


def hand_of(body: Puppet, side: int) -> Vector:
    """float64[3]: the middle of a hand."""
    way = body.wrist[side] - body.elbow[side]
    placed: Vector = body.wrist[side] + way / (np.linalg.norm(way) + 1e-6) * 0.045 * body.build.height
    return placed


def add_phone(figure: Figure, body: Puppet, person: Persona) -> None:
    """A phone before the face: its screen towards its owner, its dark back towards others."""
    hand = hand_of(body, person.side) + vector(0, 0.025, 0.015)
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


def add_phone_at_the_ear(figure: Figure, body: Puppet, person: Persona) -> None:
    """A phone at the ear, its edge seen."""
    hand = hand_of(body, person.side)
    way = vector(0, 0.065, -0.01)
    figure.chain(
        (hand - way, hand + way), (0.014, 0.014), Material((30, 28, 28), low=0.8), figure.nearness(hand) + 0.64
    )


def add_watch(figure: Figure, body: Puppet, person: Persona) -> None:
    """A wristwatch on the raised arm."""
    wrist, elbow = body.wrist[person.side], body.elbow[person.side]
    way = (elbow - wrist) / np.linalg.norm(elbow - wrist) * 0.025
    figure.chain((wrist, wrist + way), (0.036, 0.037), person.cloths["strap"], figure.nearness(wrist) + 0.2)
    face = wrist + way / 2 + figure.towards * 0.036
    figure.chain((face,), (0.02,), Material((215, 225, 225), low=0.7), figure.nearness(wrist) + 0.201)


def add_cup(figure: Figure, body: Puppet, person: Persona) -> None:
    """A paper cup with a lid in the raised hand."""
    hand = hand_of(body, person.side)
    low, high = hand - vector(0, 0.05, 0), hand + vector(0, 0.08, 0)
    rings = np.array([(*low, 0.028, 0.028), (*high, 0.04, 0.04)])
    figure.rings(rings, person.cloths["accent"], figure.nearness(hand) + 0.21)
    figure.rings(
        np.array([(*high, 0.042, 0.042), (*(high + vector(0, 0.012, 0)), 0.04, 0.04)]),
        Material((225, 228, 230)),
        figure.nearness(hand) + 0.211,
    )


def add_tool_belt(figure: Figure, body: Puppet, person: Persona) -> None:
    """A belt with pouches and the handles of tools."""
    y = body.y_hip + 0.08
    leather = person.cloths["leather"]
    figure.rings(body.trunk.between(y, y + 0.05, 0.035), leather, 0.06)
    for turn in (-2.3, -1.2, -0.6, 0.8, 1.5, 2.6):
        if body.trunk.seen(turn, y):
            at = body.trunk.surface(turn, y - 0.02, 0.05)
            figure.hull(at + CORNERS * (0.045, 0.07, 0.03), leather, 0.07, 0.02)
            figure.chain(
                (at + vector(0, 0.06, 0), at + vector(0.01, 0.13, 0)), (0.012, 0.009), Material((60, 90, 200)), 0.069
            )
