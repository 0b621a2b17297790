"""Everything that a person carries or wears over the clothes, by name."""

from __future__ import annotations

from graftsdk.training.synthetic.bags import (
    add_backpack,
    add_briefcase,
    add_cross_strap,
    add_ladys_bag,
    add_shopping_bag,
    add_suitcase,
)
from graftsdk.training.synthetic.boxes import add_box_on_the_back, add_food_box, add_parcel
from graftsdk.training.synthetic.chest import add_baby, add_carrier, add_grocery, add_plush
from graftsdk.training.synthetic.figure import Figure
from graftsdk.training.synthetic.held import add_cup, add_phone, add_phone_at_the_ear, add_tool_belt, add_watch
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import Puppet

__all__ = ["add_things"]


def add_things(figure: Figure, body: Puppet, person: Persona) -> None:
    """Everything in `person.things`."""
    for thing in person.things:
        draw = _THINGS.get(thing)
        if draw is not None:
            draw(figure, body, person)


_THINGS = {
    "backpack": add_backpack,
    "cross_strap": add_cross_strap,
    "box_on_the_back": add_box_on_the_back,
    "parcel": add_parcel,
    "food_box": add_food_box,
    "phone": add_phone,
    "ear": add_phone_at_the_ear,
    "watch": add_watch,
    "cup": add_cup,
    "ladys_bag": add_ladys_bag,
    "shopping_bag": add_shopping_bag,
    "briefcase": add_briefcase,
    "suitcase": add_suitcase,
    "baby": add_baby,
    "carrier": add_carrier,
    "plush": add_plush,
    "grocery": add_grocery,
    "tool_belt": add_tool_belt,
}
