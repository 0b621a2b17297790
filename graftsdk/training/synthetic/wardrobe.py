"""What is worn: clothes for roles, ages and genders, hats, and their look-alikes."""

from __future__ import annotations

import numpy as np

from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.draws import pick
from graftsdk.training.synthetic.looks import looks_masculine
from graftsdk.training.synthetic.palette import cloth, near, place_of_texture
from graftsdk.training.synthetic.persona import Persona

__all__ = ["AGES", "dress", "put_on_hat"]

AGES = {"child": 0.14, "youth": 0.30, "middle": 0.36, "old": 0.20}


def dress(rng: np.random.Generator, person: Persona, role: str, age: str, gender: str) -> None:
    """Clothes and shoes; adds "suit", "sport_style" and their look-alikes to the labels."""
    labels = person.labels
    male = looks_masculine(rng, gender)
    style = age if rng.random() < 0.6 else pick(rng, AGES)  # clothes tell the age in 60% of all cases
    warm = rng.random()
    labels["suit"] = role == "suit"
    labels["sport_style"] = False
    labels["lookalike_suit"] = labels["lookalike_sport_style"] = ""
    person.cloths["inner"] = cloth(rng, kind="light" if rng.random() < 0.75 else "plain")
    if role == "suit":
        person.top, person.bottom = "suit", "trousers" if male or rng.random() < 0.6 else "skirt"
        person.tie = bool(rng.random() < (0.85 if male else 0.25))
        person.shoes = "shoes" if male else "heels"
        person.cloths["top"] = person.cloths["bottom"] = cloth(rng, kind="suit")
        person.cloths["inner"] = cloth(rng, kind="shirt")
    elif role in ("courier", "deliverer", "maintenance"):
        person.top = pick(rng, {"vest": 0.5, "zip": 0.25, "tee": 0.25})
        if role == "maintenance":
            person.top = pick(rng, {"vest": 0.4, "overall": 0.4, "zip": 0.2})
        person.cloths["top"] = cloth(rng, kind="bright" if rng.random() < 0.75 else "plain")
        person.cloths["bottom"] = person.cloths["top"] if person.top == "overall" else cloth(rng, kind="dark")
        person.sleeves = "short" if warm < 0.4 else "long"
        person.shoes = "sneakers" if rng.random() < 0.5 else "boots"
    elif rng.random() < {"child": 0.15, "youth": 0.25, "middle": 0.15, "old": 0.1}[age]:
        labels["sport_style"] = True
        person.top, person.shoes = pick(rng, {"track": 0.7, "tee": 0.3}), "sneakers"
        person.bottom = "shorts" if rng.random() < 0.3 else "trousers"
        person.cloths["top"] = cloth(rng, kind="bright" if rng.random() < 0.5 else "dark")
        person.cloths["bottom"] = person.cloths["top"] if rng.random() < 0.6 else cloth(rng, kind="dark")
        person.sleeves = "short" if person.top == "tee" else "long"
        person.things += ("side_stripes",)
    else:
        tops = {
            "child": {"tee": 0.4, "hoodie": 0.3, "jumper": 0.3},
            "youth": {"tee": 0.35, "hoodie": 0.22, "zip": 0.13, "shirt": 0.15, "coat": 0.15},
            "middle": {"shirt": 0.3, "jumper": 0.2, "zip": 0.2, "coat": 0.2, "cardigan": 0.12},
            "old": {"cardigan": 0.25, "shirt": 0.25, "jumper": 0.2, "coat": 0.25, "zip": 0.1},
        }[style]
        person.top = pick(rng, tops)
        if not male:
            person.top = pick(rng, {person.top: 0.7, "dress": 0.2, "blouse": 0.1})
        person.bottom = "trousers" if male else pick(rng, {"trousers": 0.62, "skirt": 0.22, "long_skirt": 0.16})
        if style in ("child", "youth") and warm < 0.3 and person.top != "dress":
            person.bottom = "shorts"
        person.sleeves = "short" if warm < 0.45 and person.top in ("tee", "shirt", "dress", "blouse") else "long"
        person.shoes = pick(rng, {"sneakers": 0.4, "shoes": 0.35, "boots": 0.15, "heels": 0.0 if male else 0.2})
        kind = {"child": "bright", "youth": "any", "middle": "any", "old": "dull"}[style]
        person.cloths["top"] = cloth(rng, kind=kind)
        person.cloths["bottom"] = cloth(rng, kind="trousers")
        if person.top in ("cardigan", "zip"):
            labels["lookalike_suit"] = "cardigan" if person.top == "cardigan" else "zipped_jacket"
        if person.top == "coat" and rng.random() < 0.4:
            labels["lookalike_pregnant"] = labels.get("lookalike_pregnant") or "loose_coat"
            person.things += ("loose",)
        if rng.random() < 0.12 and person.bottom == "trousers":
            labels["lookalike_sport_style"] = "sneakers" if person.shoes == "sneakers" else "striped_shirt"
            person.shoes = "sneakers"
    person.cloths["shoes"] = cloth(rng, kind="light" if person.shoes == "sneakers" and rng.random() < 0.6 else "dark")
    person.cloths["accent"] = cloth(rng, kind="accent")


def put_on_hat(rng: np.random.Generator, person: Persona, role: str) -> None:
    """A hat, helmet or hood, mostly none; adds "hat" and its look-alikes to the labels."""
    labels = person.labels
    if role == "deliverer" and rng.random() < 0.8:
        person.hat = "helmet"
    elif role == "maintenance" and rng.random() < 0.75:
        person.hat = "hard_hat"
    elif role == "courier":
        person.hat = pick(rng, {"cap": 0.5, "helmet": 0.15, "": 0.35})
    elif role != "suit":
        person.hat = pick(rng, {"": 0.76, "cap": 0.08, "beanie": 0.06, "brim": 0.05, "skin_cap": 0.05})
        if person.top == "hoodie" and rng.random() < 0.25:
            person.hat = "hood"
    colour = cloth(rng, kind="bright" if person.hat in ("helmet", "hard_hat") else "any")
    if person.hat == "skin_cap":
        colour = Material(near(rng, person.skin.colour), low=0.55, texture="weave", offset=place_of_texture(rng))
        labels["lookalike_bald"] = labels["lookalike_bald"] or "skin_coloured_cap"
    person.cloths["hat"] = colour
    labels["hat"] = person.hat in ("cap", "beanie", "brim", "skin_cap")
    labels["lookalike_hat"] = (
        person.hat if person.hat in ("helmet", "hard_hat", "hood") else "bun" if person.hair_style == "bun" else ""
    )
