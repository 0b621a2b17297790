"""What is carried, held or worn over the clothes, the pose that goes with it, and the look-alikes."""

from __future__ import annotations

import numpy as np

from graftsdk.training.synthetic.draws import one_of, pick
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import Pose

__all__ = ["give_things"]


def give_things(rng: np.random.Generator, person: Persona, role: str, age: str, gender: str) -> None:
    """Things, the pose that they ask for, and the labels of both."""
    labels = person.labels
    for name in ("watching_phone", "baby", "adult_holding_baby", "ladys_bag", "backpack"):
        labels[name] = False
        labels[f"lookalike_{name}"] = ""
    left_free = _with_both_hands(rng, person, role, age, gender)
    arms = list(person.pose.arms)
    one, other = (0, 1) if person.side < 0 else (1, 0)
    if left_free:
        _with_one_hand(rng, person, arms, one, age)
        _with_bag(rng, person, arms, other, age, gender)
    _on_the_back(rng, person, role, age)
    walking = left_free and rng.random() < 0.3
    bow = rng.uniform(0.35, 0.75) if labels["watching_phone"] and rng.random() < 0.9 else rng.normal(0.05, 0.12)
    if labels["lookalike_watching_phone"] == "wristwatch":
        bow = rng.uniform(0.2, 0.7)
    leaning = rng.random() < 0.15
    person.pose = Pose(
        (arms[0], arms[1]),
        stride=one_of(rng, (-1, 1)) * rng.uniform(0.4, 1.3) if walking else rng.normal(0, 0.12),
        stance=rng.uniform(0.02, 0.05) if walking else rng.uniform(0.035, 0.1),
        lean=rng.normal(0, 0.10 if leaning else 0.02),
        bend=rng.normal(0.03 if walking else 0.0, 0.07 if leaning else 0.03),
        bow=bow,
        look=rng.normal(0, 0.35),
        swing=rng.normal(0, 1.0 if walking else 0.25),
        shift=rng.normal(0, 0.02 if leaning else 0.007),
    )
    phone = labels["watching_phone"]
    labels["pose"] = (
        "phone" if phone else "walk" if walking else "lean" if leaning else "stand" if left_free else "hold"
    )


def _with_both_hands(rng: np.random.Generator, person: Persona, role: str, age: str, gender: str) -> bool:
    """Things that both arms hold in front; True where the arms are free."""
    labels = person.labels
    one, other = ("hold", "support") if person.side > 0 else ("support", "hold")
    if role in ("courier", "deliverer") and rng.random() < 0.6:
        person.things += ("parcel" if role == "courier" else "food_box",)
        person.pose = Pose(("carry", "carry"))
        return False
    if role in ("courier", "deliverer", "maintenance", "suit") or (age == "child" and rng.random() < 0.6):
        return True
    what = pick(
        rng,
        {"": 0.68, "baby": 0.11, "carrier": 0.04, "plush": 0.06, "grocery": 0.06, "parcel": 0.04}
        if age != "child"
        else {"": 0.6, "plush": 0.4},
    )
    if not what:
        return True
    person.things += (what,)
    if what in ("baby", "carrier"):
        labels["baby"] = True
        labels["adult_holding_baby"] = what == "baby"
        if what == "carrier":
            labels["lookalike_adult_holding_baby"] = "baby_carrier"
            return True
    elif what != "parcel":
        labels["lookalike_baby"] = "plush_toy" if what == "plush" else "grocery_bag"
        labels["lookalike_adult_holding_baby"] = labels["lookalike_baby"]
    else:
        labels["lookalike_courier"] = "parcel_alone"
        one = other = "carry"
    person.pose = Pose((one, other))
    return False


def _with_one_hand(rng: np.random.Generator, person: Persona, arms: list[str], hand: int, age: str) -> None:
    labels = person.labels
    small = age == "child" and rng.random() < 0.5
    rate = 0.19 if not small else 0.05
    does = pick(
        rng,
        {"": 1 - rate - 0.24, "phone": rate, "watch": 0.05, "ear": 0.05, "cup": 0.05, "rail": 0.03, "pocket": 0.06},
    )
    if does == "phone":
        labels["watching_phone"] = True
        arms[hand] = "phone" if rng.random() < 0.6 else "phone_low"
        if rng.random() < 0.35:
            arms[1 - hand] = arms[hand]
        person.things += ("phone",)
    elif does:
        arms[hand] = does
        if does in ("watch", "ear", "cup"):
            alike = {"watch": "wristwatch", "ear": "hand_at_ear", "cup": "cup"}
            labels["lookalike_watching_phone"] = alike[does]
            person.things += (does,)
    elif rng.random() < 0.25:
        arms[0] = arms[1] = pick(rng, {"crossed": 0.3, "back": 0.3, "hips": 0.15, "pocket": 0.25})


def _with_bag(rng: np.random.Generator, person: Persona, arms: list[str], hand: int, age: str, gender: str) -> None:
    labels = person.labels
    if age == "child" and rng.random() < 0.8:
        return
    rate = {"male": 0.06, "female": 0.42, "other": 0.22}[gender]
    bag = pick(rng, {"": 1.0 - rate, "ladys_bag": rate, "shopping_bag": 0.12, "briefcase": 0.06, "suitcase": 0.05})
    if not bag:
        return
    person.things += (bag,)
    arms[hand] = "hang"
    if bag == "ladys_bag":
        labels["ladys_bag"] = True
        if rng.random() < 0.35:
            arms[hand] = "crook"
            person.things += ("in_the_crook",)
        elif rng.random() < 0.5:
            person.things += ("on_the_shoulder",)
    else:
        labels["lookalike_ladys_bag"] = bag


def _on_the_back(rng: np.random.Generator, person: Persona, role: str, age: str) -> None:
    labels = person.labels
    if role == "deliverer" and not {"food_box", "parcel"} & set(person.things) and rng.random() < 0.6:
        person.things += ("box_on_the_back",)
        labels["lookalike_backpack"] = "delivery_box"
        return
    rate = {"child": 0.35, "youth": 0.3, "middle": 0.15, "old": 0.1}[age] * (0.5 if role != "plain" else 1.0)
    what = pick(rng, {"": 0.9 - rate, "backpack": rate, "cross_strap": 0.1})
    if what == "backpack":
        labels["backpack"] = True
    elif what == "cross_strap":
        labels["lookalike_backpack"] = "cross_body_strap"
    elif person.top in ("hoodie", "coat"):
        labels["lookalike_backpack"] = "hood" if person.top == "hoodie" else "large_collar"
    if what:
        person.things += (what,)
    if role == "maintenance" and rng.random() < 0.85:
        person.things += ("tool_belt",)
