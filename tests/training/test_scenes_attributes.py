"""How often each attribute is drawn, what contradicts it, and that it leaves a trace in the picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from graftsdk.training.synthetic.attributes import ATTRIBUTES, sample_persona
from graftsdk.training.synthetic.camera import Camera
from graftsdk.training.synthetic.canvas import Canvas
from graftsdk.training.synthetic.person import draw_person
from graftsdk.training.synthetic.persona import Persona


@pytest.fixture(scope="module")
def people() -> list[Persona]:
    return [sample_persona(np.random.default_rng([1, number])) for number in range(1500)]


# attribute: least and greatest share of all people; look-alikes that have to occur
EXPECTED = {
    "suit": (0.09, 0.18, {"cardigan", "zipped_jacket"}),
    "watching_phone": (0.10, 0.20, {"wristwatch", "hand_at_ear", "cup"}),
    "bald": (0.06, 0.16, {"skin_coloured_cap", "buzz_cut"}),
    "food_deliverer": (0.05, 0.12, {"courier", "maintenance"}),
    "ladys_bag": (0.08, 0.18, {"shopping_bag", "briefcase", "suitcase"}),
    "youth": (0.28, 0.45, set()),
    "middle_age": (0.30, 0.48, set()),
    "oldage": (0.10, 0.22, set()),
    "child": (0.05, 0.12, {"short_adult"}),
    "adult_holding_baby": (0.04, 0.10, {"baby_carrier", "plush_toy", "grocery_bag"}),
    "baby": (0.05, 0.12, {"plush_toy", "grocery_bag"}),
    "sport_style": (0.07, 0.16, {"sneakers", "striped_shirt"}),
    "maintenance": (0.05, 0.12, {"courier", "food_deliverer"}),
    "courier": (0.05, 0.13, {"food_deliverer", "maintenance", "parcel_alone"}),
    "backpack": (0.10, 0.22, {"cross_body_strap", "hood", "large_collar", "delivery_box"}),
    "pregnant": (0.04, 0.10, {"beer_belly", "loose_coat"}),
    "male": (0.42, 0.58, set()),
    "female": (0.35, 0.50, set()),
    "hat": (0.13, 0.26, {"helmet", "hard_hat", "hood", "bun"}),
}


def test_the_table_is_that_of_the_paper_and_hats() -> None:
    assert set(EXPECTED) == set(ATTRIBUTES)
    assert len(ATTRIBUTES) == 19


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_prevalence_and_look_alikes(name: str, people: list[Persona]) -> None:
    low, high, alike = EXPECTED[name]
    values = [person.labels[name] for person in people]
    assert all(isinstance(value, bool) for value in values)
    assert low < np.mean(values) < high
    if alike:
        found = {str(person.labels[f"lookalike_{name}"]) for person in people if not person.labels[name]}
        assert alike <= found


def test_everybody_has_every_label_and_one_age_and_at_most_one_gender(people: list[Persona]) -> None:
    assert len({frozenset(person.labels) for person in people}) == 1
    for person in people:
        assert sum(bool(person.labels[name]) for name in ("child", "youth", "middle_age", "oldage")) == 1
        assert person.labels["male"] + person.labels["female"] == (person.labels["gender"] != "other")
        assert all(isinstance(value, str | bool | float) for value in person.labels.values())


def test_what_cannot_be_is_never_drawn(people: list[Persona]) -> None:
    for person in people:
        labels = person.labels
        assert not (labels["pregnant"] and (labels["male"] or labels["child"]))
        assert not (labels["child"] and (labels["bald"] or labels["adult_holding_baby"] or labels["courier"]))
        assert labels["baby"] or not labels["adult_holding_baby"]
        assert (labels["baby"]) == bool({"baby", "carrier"} & set(person.things))
        assert labels["backpack"] == ("backpack" in person.things)


def test_cues_of_gender_are_weak(people: list[Persona]) -> None:
    long = {"long", "bob", "tail", "bun"}
    for gender, low, high in (("male", 0.06, 0.3), ("female", 0.55, 0.9), ("other", 0.2, 0.75)):
        share = np.mean([person.hair_style in long for person in people if person.labels["gender"] == gender])
        assert low < share < high, gender


def test_colours_tell_nothing(people: list[Persona]) -> None:
    """Skin is drawn before and apart from every label: its mean brightness differs by less than chance allows."""
    light = {name: np.array([np.mean(p.skin.colour) for p in people if p.labels[name]]) for name in ATTRIBUTES}
    everyone = np.array([np.mean(p.skin.colour) for p in people])
    for name, values in light.items():
        spread = everyone.std() / np.sqrt(len(values))
        assert abs(values.mean() - everyone.mean()) < 4 * spread, name


def test_all_directions_and_poses(people: list[Persona]) -> None:
    turns = Counter(person.labels["yaw_bin"] for person in people)
    assert set(turns) == set(range(8))
    assert min(turns.values()) > 0.06 * len(people)
    assert {"stand", "walk", "lean", "phone", "hold"} <= {person.labels["pose"] for person in people}


@pytest.mark.parametrize(
    "thing",
    ["backpack", "cross_strap", "ladys_bag", "shopping_bag", "baby", "plush", "grocery", "phone", "cup", "parcel"],
)
def test_a_thing_is_seen(thing: str, people: list[Persona]) -> None:
    camera = Camera((0.0, 1.6, -3.0), 0.0, 0.1, 500.0, (400, 300))
    person = next(person for person in people if thing in person.things and abs(person.turn % (2 * np.pi) - 1.6) < 1.6)
    images = []
    for each in (person, replace(person, things=tuple(name for name in person.things if name != thing))):
        image = np.full((400, 300, 3), 128, np.uint8)
        draw_person(Canvas(image), camera, (0.0, 0.0), each)
        images.append(image)
    assert (images[0] != images[1]).any(2).sum() > 12
