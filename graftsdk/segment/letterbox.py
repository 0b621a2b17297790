"""An image in the network's input: as large as fits, its aspect kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Letterbox"]


@dataclass(frozen=True)
class Letterbox:
    """How an image lies in the network's input.

    Attributes:
        height, width: of the image, pixels.
        scale_y, scale_x: pixels of the input for one pixel of the image; they differ by rounding only.
        top, left: where the image begins in the input, pixels.
        inner_height, inner_width: of the image in the input, pixels.
    """

    height: int
    width: int
    scale_y: float
    scale_x: float
    top: int
    left: int
    inner_height: int
    inner_width: int

    @classmethod
    def fit(cls, image_size: tuple[int, int], input_size: tuple[int, int]) -> Letterbox:
        """An image (H, W) in an input (H, W): as large as fits, centred; the odd pixel goes below and right."""
        (height, width), (target_height, target_width) = image_size, input_size
        ratio = min(target_height / height, target_width / width)
        # Python's round, halves to even, as in training; never 0 for an image that is all but a line.
        inner_height, inner_width = max(1, round(height * ratio)), max(1, round(width * ratio))
        return cls(
            height=height,
            width=width,
            scale_y=inner_height / height,
            scale_x=inner_width / width,
            top=round((target_height - inner_height) / 2 - 0.1),
            left=round((target_width - inner_width) / 2 - 0.1),
            inner_height=inner_height,
            inner_width=inner_width,
        )

    def to_image(self, boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """float64[..., 4]: boxes, xyxy in pixels of the input, in pixels of the image. Not clamped."""
        moved = boxes.astype(np.float64) - (self.left, self.top, self.left, self.top)
        scaled: npt.NDArray[np.float64] = moved / (self.scale_x, self.scale_y, self.scale_x, self.scale_y)
        return scaled

    def to_input(self, boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """float64[..., 4]: the way back."""
        scaled = boxes.astype(np.float64) * (self.scale_x, self.scale_y, self.scale_x, self.scale_y)
        moved: npt.NDArray[np.float64] = scaled + (self.left, self.top, self.left, self.top)
        return moved
