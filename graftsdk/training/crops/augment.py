"""Crops varied for training, with torchvision's transforms (v2), every draw from one generator that is given.

They work on the crop that serving would cut, so nothing of the way from an image to a crop is done twice. Background
stays `spec.fill`, whatever the colours do: masked crops meet no other value when they are served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2 import functional

from graftsdk.errors import InputError
from graftsdk.plan import CropSpec

__all__ = ["NO_AUGMENTATION", "Augmentation", "augmented"]


_GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as torchvision and OpenCV have it


@dataclass(frozen=True)
class Augmentation:
    """What is done to a crop, and how strongly.

    Attributes:
        shift: the crop is padded with `spec.fill` by this share of its height and cut out again somewhere: 0.04 are
            the usual 10 pixels of 256.
        flip: probability of a mirror image.
        colour: brightness, contrast and saturation, each times a factor from 1 - colour to 1 + colour. Hue stays:
            uniforms are told by it.
        erase: probability that a rectangle becomes `spec.fill`.
        erase_area: of the rectangle, from and to, as shares of the crop.
    """

    shift: float = 0.04
    flip: float = 0.5
    colour: float = 0.2
    erase: float = 0.25
    erase_area: tuple[float, float] = (0.02, 0.2)

    def __post_init__(self) -> None:
        low, high = self.erase_area
        for name, value, most in (
            ("shift", self.shift, 0.5),
            ("flip", self.flip, 1.0),
            ("colour", self.colour, 0.9),
            ("erase", self.erase, 1.0),
            ("erase_area", high, 0.9),
            ("erase_area", low, high),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= most:
                raise InputError(f"{name}: expected a number from 0 to {most:g}, found {value!r:.80}")


NO_AUGMENTATION = Augmentation(shift=0.0, flip=0.0, colour=0.0, erase=0.0)


def augmented(
    pixels: npt.NDArray[np.uint8], spec: CropSpec, how: Augmentation, rng: np.random.Generator
) -> torch.Tensor:
    """uint8[N, H, W, 3]: a varied copy of each crop, by draws from `rng` alone.

    Args:
        pixels: uint8[N, H, W, 3], as `PackedCrops.pixels` has them; only read.
        spec: what the crops are.
        how: what is done to them.
        rng: as many numbers are drawn whatever `how` says.
    """
    count, height, width = pixels.shape[:3]
    draws = rng.random((count, 10))
    own = [_coloured(crop, spec, how.colour, draw[:3]) for crop, draw in zip(pixels, draws, strict=True)]
    images = torch.from_numpy(np.stack(own) if own else np.array(pixels)).permute(0, 3, 1, 2)
    flipped = torch.from_numpy(draws[:, 3] < how.flip)
    images[flipped] = functional.horizontal_flip(images[flipped])
    pad = round(how.shift * height)
    if pad:
        padded = functional.pad(images, [pad], fill=spec.fill)
        for image, wide, (top, left) in zip(images, padded, (draws[:, 4:6] * (2 * pad + 1)).astype(int), strict=True):
            image.copy_(functional.crop(wide, int(top), int(left), height, width))
    for index in np.flatnonzero(draws[:, 6] < how.erase):
        top, left, tall, across = _rectangle(how, height, width, draws[index, 6:])
        functional.erase(images[index], top, left, tall, across, torch.tensor(spec.fill), inplace=True)
    return images.permute(0, 2, 3, 1).contiguous()


def _coloured(
    crop: npt.NDArray[np.uint8], spec: CropSpec, strength: float, draws: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3]: other brightness, contrast and saturation, by torchvision's formulas in one linear map.

    Torchvision's three functions took 3 to 8 ms a crop of 96x48 to 160x80 (one thread), this takes 0.1: a step of a
    small network has no more than 1 to 2 ms for an image.
    """
    if not strength:
        return np.array(crop)
    brightness, contrast, saturation = (1 + strength * (2 * draws - 1)).tolist()
    grey = np.array(_GREY if spec.order == "rgb" else _GREY[::-1])
    mixed = brightness * (saturation * np.eye(3) + (1 - saturation) * grey)
    person = cv2.bitwise_not(cv2.inRange(crop, (spec.fill,) * 3, (spec.fill,) * 3)) if _filled(spec) else None
    middle = float(grey @ (mixed @ np.array(cv2.mean(crop, person)[:3])))
    result: npt.NDArray[Any] = cv2.transform(
        crop, np.column_stack((contrast * mixed, np.full(3, (1 - contrast) * middle)))
    )
    if person is not None:
        result[person == 0] = spec.fill
    return result


def _filled(spec: CropSpec) -> bool:
    return spec.background == "fill" or spec.fit == "letterbox"


def _rectangle(how: Augmentation, height: int, width: int, draws: npt.NDArray[np.float64]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of what is erased; h/w is from 0.3 to 3.3, evenly by its logarithm."""
    low, high = how.erase_area
    where, size, shape, across = (draws / (how.erase, 1, 1, 1)).tolist()
    area, ratio = height * width * (low + (high - low) * size), 0.3 ** (2 * shape - 1)
    tall = max(1, min(height, round((area * ratio) ** 0.5)))
    wide = max(1, min(width, round((area / ratio) ** 0.5)))
    return int(where * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide
