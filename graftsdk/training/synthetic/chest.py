"""At the chest: babies, and the toys and groceries that are held like them."""

from __future__ import annotations

from graftsdk.training.synthetic.boxes import add_box
from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.clothes import band
from graftsdk.training.synthetic.figure import Figure, Vector, vector
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import SIDES, Puppet

__all__ = ["add_baby", "add_carrier", "add_grocery", "add_plush"]


def add_baby(figure: Figure, body: Puppet, person: Persona) -> None:
    """A baby that lies in the arms."""
    _infant(figure, body, person, 0.35)


def add_carrier(figure: Figure, body: Puppet, person: Persona) -> None:
    """A baby upright in a carrier, which leaves the arms free."""
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


def add_plush(figure: Figure, body: Puppet, person: Persona) -> None:
    """A toy bear in the arms."""
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


def add_grocery(figure: Figure, body: Puppet, person: Persona) -> None:
    """A paper bag with bottles and bread in the arms."""
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


def _held(body: Puppet, up: float, out: float) -> Vector:
    x, _, z, _, deep = body.trunk.at(body.y_chest - 0.03)
    return vector(x, body.y_chest + up, z + deep + out)
