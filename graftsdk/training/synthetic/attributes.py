"""Who is drawn: labels first, then build, pose, clothes and things that mostly, not always, go with them."""

from __future__ import annotations

import numpy as np

from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.draws import pick
from graftsdk.training.synthetic.looks import dress_hair, sample_build
from graftsdk.training.synthetic.palette import SHADOWED, skin_colour
from graftsdk.training.synthetic.persona import Persona, Value
from graftsdk.training.synthetic.possessions import give_things
from graftsdk.training.synthetic.puppet import Pose
from graftsdk.training.synthetic.surfaces import give_surfaces
from graftsdk.training.synthetic.wardrobe import AGES, dress, put_on_hat

__all__ = ["ATTRIBUTES", "GENDERS", "sample_persona"]

# The paper's table, and hats: each is a bool in every person's labels.
ATTRIBUTES = (
    "suit",
    "watching_phone",
    "bald",
    "food_deliverer",
    "ladys_bag",
    "youth",
    "middle_age",
    "adult_holding_baby",
    "sport_style",
    "maintenance",
    "backpack",
    "pregnant",
    "courier",
    "oldage",
    "baby",
    "male",
    "female",
    "child",
    "hat",
)

GENDERS = {"male": 0.46, "female": 0.46, "other": 0.08}
_ROLES = {"plain": 0.63, "suit": 0.13, "courier": 0.08, "deliverer": 0.08, "maintenance": 0.08}


def sample_persona(rng: np.random.Generator) -> Persona:
    """A person, decided by `rng` alone."""
    role = pick(rng, _ROLES)
    age = pick(rng, AGES) if role == "plain" else pick(rng, {"youth": 0.45, "middle": 0.45, "old": 0.10})
    gender = pick(rng, GENDERS if role in ("plain", "suit") else {"male": 0.62, "female": 0.32, "other": 0.06})
    labels: dict[str, Value] = {"age": age, "gender": gender, "role": role}
    person = Persona(
        labels,
        sample_build(rng, age, gender, labels),
        Pose(),
        0.0,
        Material(skin_colour(rng), low=SHADOWED, gloss=0.12),
        Material((40, 40, 40)),
        side=1 if rng.random() < 0.5 else -1,
    )
    _turn(rng, person)
    dress_hair(rng, person, age, gender)
    dress(rng, person, role, age, gender)
    put_on_hat(rng, person, role)
    give_things(rng, person, role, age, gender)
    give_surfaces(rng, person)
    _finish(person, role, age, gender)
    return person


def _turn(rng: np.random.Generator, person: Persona) -> None:
    turn_bin = pick(rng, {0: 0.2, 1: 0.15, 2: 0.11, 3: 0.1, 4: 0.14, 5: 0.1, 6: 0.1, 7: 0.1})
    person.turn = (turn_bin + rng.uniform(-0.5, 0.5)) * np.pi / 4
    person.labels["yaw_bin"] = float(turn_bin)


def _finish(person: Persona, role: str, age: str, gender: str) -> None:
    labels = person.labels
    labels["courier"] = role == "courier"
    labels["food_deliverer"] = role == "deliverer"
    labels["maintenance"] = role == "maintenance"
    for name, alike in (
        ("courier", {"deliverer": "food_deliverer", "maintenance": "maintenance"}),
        ("food_deliverer", {"courier": "courier", "maintenance": "maintenance"}),
        ("maintenance", {"deliverer": "food_deliverer", "courier": "courier"}),
    ):
        labels[f"lookalike_{name}"] = labels.get(f"lookalike_{name}") or alike.get(role, "")
    labels.setdefault("pregnant", False)
    labels.setdefault("lookalike_pregnant", "")
    for name, value in (("child", "child"), ("youth", "youth"), ("middle_age", "middle"), ("oldage", "old")):
        labels[name] = age == value
    labels["lookalike_child"] = "short_adult" if age != "child" and person.build.height < 1.55 else ""
    labels["male"], labels["female"] = gender == "male", gender == "female"
    if labels["lookalike_sport_style"] == "striped_shirt":
        top = person.cloths["top"]
        person.cloths["top"] = Material(
            top.colour,
            low=top.low,
            texture=top.texture,
            design="stripes",
            second=person.cloths["accent"].colour,
            period=0.1,
            offset=top.offset,
        )
