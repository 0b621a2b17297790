"""Colours and cloths of the things that a person carries."""

from __future__ import annotations

import numpy as np

from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.draws import pick
from graftsdk.training.synthetic.palette import cloth, hair_colour, near, place_of_texture
from graftsdk.training.synthetic.persona import Persona

__all__ = ["give_surfaces"]

# Thing -> its surfaces.
_SURFACES = {
    "backpack": ("bag", "bag_pocket", "strap"),
    "cross_strap": ("bag", "strap"),
    "box_on_the_back": ("strap",),
    "parcel": ("carton",),
    "phone": ("screen",),
    "watch": ("strap",),
    "ladys_bag": ("ladys_bag", "bag_pocket", "strap"),
    "shopping_bag": ("paper", "strap"),
    "briefcase": ("strap",),
    "suitcase": ("bag",),
    "baby": ("blanket", "baby_skin"),
    "carrier": ("blanket", "baby_skin", "strap"),
    "plush": ("fur",),
    "grocery": ("paper",),
    "tool_belt": ("leather",),
}

# Surface -> kinds of cloth.
_KINDS = {
    "bag": {"any": 0.4, "dark": 0.4, "bright": 0.2},
    "bag_pocket": {"dark": 1.0},
    "ladys_bag": {"bright": 0.5, "any": 0.3, "dark": 0.2},
    "strap": {"dark": 0.7, "dull": 0.3},
    "paper": {"light": 0.4, "bright": 0.2, "any": 0.4},
    "blanket": {"light": 0.4, "any": 0.6},
}


def give_surfaces(rng: np.random.Generator, person: Persona) -> None:
    """Surfaces of what is carried."""
    needed = {name for thing in person.things for name in _SURFACES.get(thing, ())}
    for name in sorted(needed):
        if name in _KINDS:
            person.cloths[name] = cloth(rng, kind=pick(rng, _KINDS[name]))
        elif name == "leather":
            leather = (rng.uniform(20, 60), rng.uniform(50, 90), rng.uniform(80, 140))
            person.cloths[name] = Material(leather, texture="crumpled")
        elif name == "carton":
            carton = (rng.uniform(80, 130), rng.uniform(130, 170), rng.uniform(165, 210))
            person.cloths[name] = Material(carton, texture="weave")
        elif name == "fur":
            brown = rng.uniform(0.5, 1.1)
            colour = (80 * brown, 120 * brown, 170 * brown)
            fur = Material(colour, texture="leaves", low=0.6, offset=place_of_texture(rng))
            person.cloths[name] = fur if rng.random() < 0.5 else cloth(rng, kind="any")
        elif name == "baby_skin":
            tone = near(rng, person.skin.colour)
            person.cloths[name] = Material(tone, low=0.65)
            person.cloths["baby_hair"] = Material(hair_colour(rng, 0.0) if rng.random() < 0.7 else tone, low=0.7)
        elif name == "screen":
            light = (rng.uniform(200, 255), rng.uniform(190, 250), rng.uniform(150, 245))
            person.cloths[name] = Material(light, low=0.9, gloss=0.3)
