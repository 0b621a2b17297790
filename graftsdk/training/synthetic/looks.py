"""Build, hair and face: what follows from age and gender, with cues that are wrong now and then."""

from __future__ import annotations

import numpy as np

from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.draws import pick
from graftsdk.training.synthetic.palette import hair_colour, place_of_texture
from graftsdk.training.synthetic.persona import Persona, Value
from graftsdk.training.synthetic.puppet import Build

__all__ = ["dress_hair", "looks_masculine", "sample_build"]

_WEAK = 0.13  # how often a weak cue contradicts its label


def sample_build(rng: np.random.Generator, age: str, gender: str, labels: dict[str, Value]) -> Build:
    """Proportions; adds "pregnant" and its look-alike to the labels of adults."""
    male = looks_masculine(rng, gender)
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


def dress_hair(rng: np.random.Generator, person: Persona, age: str, gender: str) -> None:
    """Hair, beard and wrinkles; adds "grey", "bald" and its look-alike to the labels."""
    male = looks_masculine(rng, gender)
    grey = {"child": 0.0, "youth": 0.02, "middle": 0.25, "old": 0.85}[age]
    share = float(np.clip(rng.normal(grey, 0.15), 0, 1)) if rng.random() > 0.1 else rng.random()
    colour = hair_colour(rng, share if age != "child" else 0.0)
    person.hair = Material(colour, low=0.55, gloss=0.25, texture="folds", offset=place_of_texture(rng))
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


def looks_masculine(rng: np.random.Generator, gender: str) -> bool:
    """One weak cue of gender: as the label says, wrong in 13% of all cases, even for "other"."""
    return _weak(rng, gender == "male") if gender != "other" else bool(rng.random() < 0.5)


def _weak(rng: np.random.Generator, holds: bool) -> bool:
    """A cue of something that holds or not: wrong in `_WEAK` of all cases."""
    return holds != (rng.random() < _WEAK)
