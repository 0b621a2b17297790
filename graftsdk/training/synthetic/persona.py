"""What is decided about a person before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

from graftsdk.training.synthetic.canvas import Material
from graftsdk.training.synthetic.puppet import Build, Pose

__all__ = ["Persona", "Value"]

Value = str | bool | float


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
