"""What a crop is: one specification for training and serving, part of every fingerprint and stored in every file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

from graftsdk.errors import InputError
from graftsdk.plan.strict_json import Fields

__all__ = ["CropSpec"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MIN_SIDE, MAX_SIDE = 8, 4096


@dataclass(frozen=True)
class CropSpec:
    """How a person is cut out of an image and becomes the network's input.

    The value of a pixel is `(x / 255 - mean) / std`, x in 0..255. Order of work: the box is padded by `pad`, its
    edges go to the floor and the ceiling, it is clamped to the image; background (mask <= 0.5 at source pixels) is
    set to `fill`, and only then the crop is resized.

    Attributes:
        size: (H, W) of the network's input, pixels.
        mean, std: per channel, in the channel order `order`, in units of 1 (not 255).
        fill: background value, uint8, before normalising; also the border of a letterboxed crop.
        order: channel order of the network's input, "rgb" or "bgr".
        antialias: bilinear with the filter widened where the crop shrinks (Pillow's and torchvision's form), or not.
        background: "fill", or "keep" for trunks that were trained on box crops.
        fit: "stretch" to `size`, or "letterbox" (aspect kept, the rest filled).
        pad: added on each side of the box, as a fraction of the box's width and height.
        box: "given", or "mask" to cut along the mask's own bounding box.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    fill: int = 0
    order: Literal["rgb", "bgr"] = "rgb"
    antialias: bool = True
    background: Literal["fill", "keep"] = "fill"
    fit: Literal["stretch", "letterbox"] = "stretch"
    pad: float = 0.0
    box: Literal["given", "mask"] = "given"

    def __post_init__(self) -> None:
        def refuse(name: str, expected: str) -> None:
            raise InputError(f"CropSpec.{name}: expected {expected}, found {getattr(self, name)!r}")

        object.__setattr__(self, "size", tuple(int(side) for side in self.size))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        object.__setattr__(self, "pad", float(self.pad))
        if len(self.size) != 2 or not all(MIN_SIDE <= side <= MAX_SIDE for side in self.size):
            refuse("size", f"(H, W), each from {MIN_SIDE} to {MAX_SIDE}")
        if len(self.mean) != 3 or not all(math.isfinite(value) and abs(value) <= 255 for value in self.mean):
            refuse("mean", "three finite numbers")
        if len(self.std) != 3 or not all(math.isfinite(value) and 1e-6 <= value <= 255 for value in self.std):
            refuse("std", "three numbers from 1e-6 to 255")
        if isinstance(self.fill, bool) or not isinstance(self.fill, int) or not 0 <= self.fill <= 255:
            refuse("fill", "an integer from 0 to 255")
        if not 0.0 <= self.pad <= 4.0:
            refuse("pad", "a fraction from 0 to 4")
        if not isinstance(self.antialias, bool):
            refuse("antialias", "True or False")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                refuse(name, " or ".join(map(repr, allowed)))

    def to_dict(self) -> dict[str, Any]:
        """The specification as JSON types."""
        return {
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "fill": self.fill,
            "order": self.order,
            "antialias": self.antialias,
            "background": self.background,
            "fit": self.fit,
            "pad": self.pad,
            "box": self.box,
        }

    @classmethod
    def from_dict(cls, value: Any, where: str = "crop") -> CropSpec:
        """The specification in a file's JSON.

        Raises:
            PlanCorrupt: a field is missing, unknown, of another type or out of range.
        """
        fields = Fields(value, where)
        size = fields.integers("size", MIN_SIDE, MAX_SIDE, count=(2, 2))
        mean = fields.numbers("mean", -255.0, 255.0, count=(3, 3))
        std = fields.numbers("std", 1e-6, 255.0, count=(3, 3))
        choices = {name: fields.choice(name, allowed) for name, allowed in _CHOICES.items()}
        spec = cls(
            size=(size[0], size[1]),
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            fill=fields.integer("fill", 0, 255),
            antialias=fields.boolean("antialias"),
            pad=fields.number("pad", 0.0, 4.0),
            **cast(Any, choices),
        )
        fields.done()
        return spec


_CHOICES: dict[str, tuple[str, ...]] = {
    "order": ("rgb", "bgr"),
    "background": ("fill", "keep"),
    "fit": ("stretch", "letterbox"),
    "box": ("given", "mask"),
}
