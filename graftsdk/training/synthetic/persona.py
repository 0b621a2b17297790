"""Who is drawn: labels first, then build, pose, clothes and things that mostly, not always, go with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graftsdk.training.synthetic.canvas import Colour, Material
from graftsdk.training.synthetic.draws import one_of, pick
from graftsdk.training.synthetic.palette import SHADOWED, cloth, hair_colour, skin_colour
from graftsdk.training.synthetic.puppet import Build, Pose

__all__ = ["AGES", "GENDERS", "Persona", "Value", "sample_persona"]

Value = str | bool | float

AGES = {"child": 0.14, "youth": 0.30, "middle": 0.36, "old": 0.20}
GENDERS = {"male": 0.46, "female": 0.46, "other": 0.08}
_ROLES = {"plain": 0.63, "suit": 0.13, "courier": 0.08, "deliverer": 0.08, "maintenance": 0.08}
_WEAK = 0.13  # how often a weak cue contradicts its label


@dataclass
class Persona:
    """Everything that is decided about a person before anything is drawn.

    Attributes:
        labels: what is true of this person, for annotations; look-alikes under "lookalike_<attribute>".
        build, pose: the body.
        turn: radians; 0 faces the camera, pi shows the back.
        skin, hair: surfaces.
        hair_style: "none", "buzz", "receding", "short", "bob", "long", "tail" or "bun".
        beard: shown on the face.
        lines: wrinkles, 0 to 1.
        hat: "", "cap", "beanie", "brim", "skin_cap", "helmet", "hard_hat" or "hood".
        top, sleeves, bottom, shoes: kinds of clothes.
        tie: with a suit or shirt.
        cloths: part of the clothes -> surface.
        things: what is carried or worn over the clothes.
        side: -1 or 1, the side on which one-sided things are.
    """

    labels: dict[str, Value]
    build: Build
    pose: Pose
    turn: float
    skin: Material
    hair: Material
    hair_style: str = "short"
    beard: bool = False
    lines: float = 0.0
    hat: str = ""
    top: str = "tee"
    sleeves: str = "long"
    bottom: str = "trousers"
    shoes: str = "shoes"
    tie: bool = False
    cloths: dict[str, Material] = field(default_factory=dict)
    things: tuple[str, ...] = ()
    side: int = 1


def sample_persona(rng: np.random.Generator) -> Persona:
    """A person, decided by `rng` alone."""
    role = pick(rng, _ROLES)
    age = pick(rng, AGES) if role == "plain" else pick(rng, {"youth": 0.45, "middle": 0.45, "old": 0.10})
    gender = pick(rng, GENDERS if role in ("plain", "suit") else {"male": 0.62, "female": 0.32, "other": 0.06})
    labels: dict[str, Value] = {"age": age, "gender": gender, "role": role}
    person = Persona(
        labels,
        _build(rng, age, gender, labels),
        Pose(),
        0.0,
        Material(skin_colour(rng), low=SHADOWED, gloss=0.12),
        Material((40, 40, 40)),
        side=1 if rng.random() < 0.5 else -1,
    )
    _turn(rng, person)
    _hair(rng, person, age, gender)
    _dress(rng, person, role, age, gender)
    _hat(rng, person, role)
    _carry(rng, person, role, age, gender)
    _things(rng, person)
    _finish(person, role, age, gender)
    return person


def _turn(rng: np.random.Generator, person: Persona) -> None:
    turn_bin = pick(rng, {0: 0.2, 1: 0.15, 2: 0.11, 3: 0.1, 4: 0.14, 5: 0.1, 6: 0.1, 7: 0.1})
    person.turn = (turn_bin + rng.uniform(-0.5, 0.5)) * np.pi / 4
    person.labels["yaw_bin"] = float(turn_bin)


def _weak(rng: np.random.Generator, holds: bool) -> bool:
    """A cue of something that holds or not: wrong in `_WEAK` of all cases."""
    return holds != (rng.random() < _WEAK)


def _masculine(rng: np.random.Generator, gender: str) -> bool:
    return _weak(rng, gender == "male") if gender != "other" else bool(rng.random() < 0.5)


def _build(rng: np.random.Generator, age: str, gender: str, labels: dict[str, Value]) -> Build:
    male = _masculine(rng, gender)
    if age == "child":
        heads = rng.uniform(4.1, 5.9)
        height = 0.98 + 0.23 * (heads - 4.1) + rng.normal(0, 0.05)
        return Build(height, heads, rng.uniform(0.95, 1.3), rng.uniform(0.108, 0.122), rng.uniform(0.088, 0.098))
    height = rng.normal(1.74 if male else 1.64, 0.07) - (0.05 if age == "old" else 0.0)
    girth = float(np.clip(rng.normal({"youth": 0.98, "middle": 1.12, "old": 1.1}[age], 0.14), 0.82, 1.6))
    stoop = 0.0
    if age == "old":
        stoop = float(np.clip(rng.normal(0.45, 0.3), 0, 1))
    elif rng.random() < 0.1:
        stoop = rng.uniform(0.1, 0.5)
    belly, belly_height, pregnant, alike = 0.0, 0.3, False, ""
    if gender == "female" and age in ("youth", "middle") and rng.random() < 0.22:
        pregnant, belly, belly_height = True, rng.uniform(0.11, 0.21), rng.uniform(0.30, 0.40)
    elif age in ("middle", "old") and rng.random() < 0.25:
        alike, belly, belly_height = "beer_belly", rng.uniform(0.06, 0.19), rng.uniform(0.16, 0.3)
    labels["pregnant"] = pregnant
    labels["lookalike_pregnant"] = alike
    shoulders = rng.normal(0.133 if male else 0.119, 0.005)
    hips = rng.normal(0.092 if male else 0.100, 0.004)
    bust = max(0.0, rng.normal(0.0 if male else 0.06, 0.02))
    return Build(
        float(np.clip(height, 1.42, 2.0)),
        rng.uniform(6.7, 7.6),
        girth,
        shoulders,
        hips,
        stoop,
        bust,
        belly,
        belly_height,
    )


def _hair(rng: np.random.Generator, person: Persona, age: str, gender: str) -> None:
    male = _masculine(rng, gender)
    grey = {"child": 0.0, "youth": 0.02, "middle": 0.25, "old": 0.85}[age]
    share = float(np.clip(rng.normal(grey, 0.15), 0, 1)) if rng.random() > 0.1 else rng.random()
    person.hair = Material(
        hair_colour(rng, share if age != "child" else 0.0), low=0.55, gloss=0.25, texture="folds", offset=_place(rng)
    )
    person.labels["grey"] = round(share, 2)
    if male:
        style = pick(rng, {"short": 0.58, "buzz": 0.1, "bob": 0.06, "tail": 0.02})
        if age in ("middle", "old"):
            style = pick(rng, {style: 0.6, "receding": 0.22 if age == "middle" else 0.35})
    else:
        style = pick(rng, {"long": 0.42, "bob": 0.25, "tail": 0.16, "bun": 0.1, "short": 0.1})
    bald = age != "child" and rng.random() < (0.17 if male else 0.04) * (1.3 if age != "youth" else 0.7)
    person.hair_style = "none" if bald else style
    person.labels["bald"] = bald
    person.labels["lookalike_bald"] = "buzz_cut" if style == "buzz" and not bald else ""
    person.beard = bool(male and age in ("youth", "middle", "old") and rng.random() < 0.3)
    person.lines = {"child": 0.0, "youth": 0.1, "middle": 0.45, "old": 0.9}[age] * rng.uniform(0.4, 1.1)


def _dress(rng: np.random.Generator, person: Persona, role: str, age: str, gender: str) -> None:
    labels = person.labels
    male = _masculine(rng, gender)
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


def _hat(rng: np.random.Generator, person: Persona, role: str) -> None:
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
        colour = Material(_near(rng, person.skin.colour), low=0.55, texture="weave", offset=_place(rng))
        labels["lookalike_bald"] = labels["lookalike_bald"] or "skin_coloured_cap"
    person.cloths["hat"] = colour
    labels["hat"] = person.hat in ("cap", "beanie", "brim", "skin_cap")
    labels["lookalike_hat"] = (
        person.hat if person.hat in ("helmet", "hard_hat", "hood") else "bun" if person.hair_style == "bun" else ""
    )


def _carry(rng: np.random.Generator, person: Persona, role: str, age: str, gender: str) -> None:
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


def _things(rng: np.random.Generator, person: Persona) -> None:
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
            fur = Material((80 * brown, 120 * brown, 170 * brown), texture="leaves", low=0.6, offset=_place(rng))
            person.cloths[name] = fur if rng.random() < 0.5 else cloth(rng, kind="any")
        elif name == "baby_skin":
            tone = _near(rng, person.skin.colour)
            person.cloths[name] = Material(tone, low=0.65)
            person.cloths["baby_hair"] = Material(hair_colour(rng, 0.0) if rng.random() < 0.7 else tone, low=0.7)
        elif name == "screen":
            light = (rng.uniform(200, 255), rng.uniform(190, 250), rng.uniform(150, 245))
            person.cloths[name] = Material(light, low=0.9, gloss=0.3)


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


def _near(rng: np.random.Generator, colour: Colour) -> Colour:
    b, g, r = (float(np.clip(value + rng.normal(0, 12), 5, 250)) for value in colour)
    return (b, g, r)


def _place(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(0, 800)), int(rng.integers(0, 800))
