"""Colours of skin, hair and cloth. None depends on age, gender or role, so none gives them away."""

from __future__ import annotations

import colorsys

import numpy as np

from graftsdk.training.synthetic.canvas import Colour, Material
from graftsdk.training.synthetic.draws import one_of, pick

__all__ = ["SHADOWED", "cloth", "hair_colour", "hsv", "mixed", "near", "place_of_texture", "skin_colour"]

SHADOWED = 0.62  # brightness of the edges of skin

_SKINS = ((178, 205, 240), (150, 185, 228), (120, 160, 210), (90, 130, 185), (65, 95, 150), (45, 62, 98), (32, 42, 66))
_HAIRS = ((22, 20, 20), (30, 34, 45), (38, 55, 88), (60, 95, 140), (95, 150, 195), (40, 60, 120), (150, 185, 215))
_HAIR_SHARES = (0.36, 0.22, 0.16, 0.1, 0.06, 0.06, 0.04)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Blue, green, red of a hue (0 to 1 around the circle), saturation and value (0 to 1)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (255 * blue, 255 * green, 255 * red)


def skin_colour(rng: np.random.Generator) -> Colour:
    """Between two neighbouring tones."""
    at = rng.random() * (len(_SKINS) - 1)
    low = int(at)
    return mixed(_SKINS[low], _SKINS[min(low + 1, len(_SKINS) - 1)], at - low)


def hair_colour(rng: np.random.Generator, grey: float) -> Colour:
    """A natural tone, mixed with grey."""
    base = pick(rng, dict(zip(_HAIRS, _HAIR_SHARES, strict=True)))
    light = rng.uniform(130, 225)
    return mixed(base, (light, light, light * 0.98), grey)


def cloth(rng: np.random.Generator, kind: str) -> Material:
    """A cloth.

    Args:
        rng: decides.
        kind: "any", "plain", "bright", "dull", "dark", "light", "suit", "shirt", "trousers" or "accent".
    """
    hue, draw = rng.random(), rng.random()
    saturation, value = rng.uniform(0.0, 0.85) * rng.random() ** 0.3, rng.uniform(0.12, 0.97)
    if kind == "bright":
        saturation, value = rng.uniform(0.6, 1.0), rng.uniform(0.65, 1.0)
    elif kind == "dull":
        saturation, value = rng.uniform(0.03, 0.35), rng.uniform(0.2, 0.75)
    elif kind == "dark":
        saturation, value = rng.uniform(0.0, 0.4), rng.uniform(0.07, 0.32)
    elif kind == "light":
        saturation, value = rng.uniform(0.0, 0.12), rng.uniform(0.8, 1.0)
    elif kind == "suit":
        hue, saturation, value = rng.uniform(0.55, 0.7), rng.uniform(0.0, 0.45), rng.uniform(0.1, 0.45)
        if draw < 0.15:
            hue, saturation, value = rng.uniform(0.05, 0.12), rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.7)
    elif kind == "shirt":
        saturation, value = rng.uniform(0.0, 0.25), rng.uniform(0.8, 1.0)
    elif kind == "trousers":
        hue = rng.uniform(0.55, 0.66) if draw < 0.4 else hue  # jeans
        saturation = rng.uniform(0.2, 0.65) if draw < 0.4 else rng.uniform(0.0, 0.4)
        value = rng.uniform(0.1, 0.65)
    elif kind == "accent":
        saturation, value = (rng.uniform(0, 0.15), 0.95) if draw < 0.5 else (rng.uniform(0.5, 1), rng.uniform(0.4, 1))
    design, second, period = _design(rng, kind, hue, saturation, value)
    return Material(
        hsv(hue, saturation, value),
        low=rng.uniform(0.35, 0.62),
        texture=one_of(rng, ("folds", "folds", "crumpled", "weave")),
        design=design,
        second=second,
        period=period,
        offset=(int(rng.integers(0, 800)), int(rng.integers(0, 800))),
    )


def _design(
    rng: np.random.Generator, kind: str, hue: float, saturation: float, value: float
) -> tuple[str | None, Colour, float]:
    """Pattern, its colour and period in metres."""
    if kind == "suit" and rng.random() < 0.2:
        return "pinstripes", hsv(hue, saturation, min(1.0, value * 1.5 + 0.05)), 0.05
    if kind not in ("any", "bright", "dull", "shirt") or rng.random() > (0.34 if kind != "shirt" else 0.15):
        return None, (0.0, 0.0, 0.0), 0.1
    design = one_of(rng, ("stripes", "pinstripes", "checks", "dots", "blotches"))
    contrast = value * rng.uniform(0.3, 0.75) if value > 0.5 else min(1.0, value + rng.uniform(0.2, 0.6))
    return (
        design,
        hsv(hue + one_of(rng, (0.0, 0.5, rng.random())), saturation * rng.random(), contrast),
        rng.uniform(0.03, 0.14),
    )


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """Between two colours."""
    b, g, r = (a + (z - a) * share for a, z in zip(one, other, strict=True))
    return (b, g, r)


def near(rng: np.random.Generator, colour: Colour) -> Colour:
    """A colour that is hard to tell from another."""
    b, g, r = (float(np.clip(value + rng.normal(0, 12), 5, 250)) for value in colour)
    return (b, g, r)


def place_of_texture(rng: np.random.Generator) -> tuple[int, int]:
    """Where in a texture a surface begins, pixels."""
    return int(rng.integers(0, 800)), int(rng.integers(0, 800))
