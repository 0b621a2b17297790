"""A person with what is around it, as a picture of its own whose alpha is the mask: what annotators get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.preprocess.boxmasks import BoxMasks, inside
from graftsdk.preprocess.reference import crop_window

__all__ = ["Cutout", "cut_out"]


@dataclass(frozen=True, eq=False)
class Cutout:
    """A part of an image, with one person's mask.

    Attributes:
        pixels: uint8[h, w, 4], BGRA: the image's own colours, inside the mask and outside; alpha is 255 where the mask
            covers the pixel, else 0.
        left, top: where it begins in the image, pixels.
    """

    pixels: npt.NDArray[np.uint8]
    left: int
    top: int

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool[h, w], made anew by each call."""
        mask: npt.NDArray[np.bool_] = self.pixels[:, :, 3] != 0
        return mask


def cut_out(
    image: npt.NDArray[np.uint8],
    box: npt.NDArray[Any],
    masks: npt.NDArray[Any] | BoxMasks | None = None,
    index: int = 0,
    pad: float = 0.0,
) -> Cutout:
    """The pixels that `mask_crop` reads for a person where `spec.pad` is `pad`, by the same rounding.

    So `mask_crop` gives the same bits for `pixels` and `mask`, with the box moved by (-left, -top), as for the whole
    image, as long as `spec.pad` is not greater than `pad`. The whole of `pixels` as the box does too where `spec.pad`
    is `pad`, or where `spec.box` is "mask" and the mask lies in the box.

    Args:
        image: uint8[H, W, 3], BGR.
        box: [4], xyxy in pixels of the image, half-open; shares area with the image.
        masks: as for `mask_crop`; None covers everything.
        index: which of the masks is the person's.
        pad: added on each side of the box, as a fraction of its width and height.
    """
    x0, y0, x1, y1 = crop_window(np.asarray(box, np.float64), image.shape[0], image.shape[1], pad)
    pixels = np.full((y1 - y0, x1 - x0, 4), 255, np.uint8)
    pixels[:, :, :3] = image[y0:y1, x0:x1]
    if masks is not None:
        pixels[:, :, 3] *= inside(masks, index, y0, y1, x0, x1)
    return Cutout(pixels, x0, y0)
