"""An image in the network's input: as large as fits, its aspect kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.preprocess.tables import letterbox_placement

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
    def fit(cls, image_size: tuple[int, int], input_size: tuple[int, int], *, centred: bool = True) -> Letterbox:
        """An image (H, W) in an input (H, W): as large as fits.

        Centred, the odd pixel of border goes below and right; not centred, all of the border does.
        """
        (height, width), (target_height, target_width) = image_size, input_size
        ratio = min(target_height / height, target_width / width)
        # Python's round, halves to even, as in training; never 0 for an image that is all but a line.
        inner_height, inner_width = max(1, round(height * ratio)), max(1, round(width * ratio))
        return cls(
            height=height,
            width=width,
            scale_y=inner_height / height,
            scale_x=inner_width / width,
            top=round((target_height - inner_height) / 2 - 0.1) if centred else 0,
            left=round((target_width - inner_width) / 2 - 0.1) if centred else 0,
            inner_height=inner_height,
            inner_width=inner_width,
        )

    @classmethod
    def placed(cls, image_size: tuple[int, int], input_size: tuple[int, int]) -> Letterbox:
        """An image (H, W) as a letterboxed crop of all of it, H x W `input_size`, has it.

        That rounds sides half up, `fit` half to even: where they differ, by a pixel, boxes follow what was made.
        """
        top, left, inner_height, inner_width = letterbox_placement(image_size, input_size)
        height, width = image_size
        return cls(height, width, inner_height / height, inner_width / width, top, left, inner_height, inner_width)

    def place(
        self, image: npt.NDArray[np.uint8], input_size: tuple[int, int], border: Sequence[float]
    ) -> npt.NDArray[np.float32]:
        """float32[1, 3, H, W], RGB 0..1: the image resized by OpenCV without antialias, on a border of one colour.

        Values are v / 255 in float32. 1080p to 640x640: 1.2 ms, of which OpenCV's resize takes 0.6.

        Args:
            image: uint8[height, width, 3], BGR.
            input_size: (H, W), the same that it was fitted in.
            border: red, green, blue, 0..1.
        """
        import cv2

        bottom, right = self.top + self.inner_height, self.left + self.inner_width
        inner: npt.NDArray[Any] = np.ascontiguousarray(image)
        if (self.inner_height, self.inner_width) != (self.height, self.width):
            inner = cv2.resize(inner, (self.inner_width, self.inner_height), interpolation=cv2.INTER_LINEAR)
        feed = np.empty((1, 3, *input_size), np.float32)
        colour = np.array(border, np.float32)[:, None, None]
        for edge in (feed[..., : self.top, :], feed[..., bottom:, :], feed[..., : self.left], feed[..., right:]):
            edge[...] = colour
        # Planes first: a division that reads every third byte takes twice as long.
        for plane, target in zip(
            reversed(cv2.split(inner)), feed[0, :, self.top : bottom, self.left : right], strict=True
        ):
            np.divide(plane, np.float32(255), out=target, dtype=np.float32)
        return feed

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
