"""Pictures and masks changed together: torchvision's transforms v2, and three of its kind that are cheaper here.

A training image is first shrunk to `MARGIN` times the network's input, so that colours, crops and masks are worked
on at few pixels; the last transform stretches to the input's size, as serving does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from graftsdk.training.segmenter.matching import box_iou

__all__ = [
    "MARGIN",
    "PhotometricDistort",
    "Picture",
    "RandomIoUCrop",
    "ZoomOut",
    "augmentation",
    "augmented",
    "mask_boxes",
    "paste",
    "shrunk",
]

MARGIN = 1.25  # a crop of 0.8 of the sides still has every pixel of the input
LEAST_SHARE = 0.25  # of an instance's pixels that a crop or a paste leaves; less is neutral, as a crowd is


@dataclass(frozen=True)
class Picture:
    """One image on its way through training.

    Attributes:
        image: uint8[H, W, 3], RGB.
        masks: uint8[N, H, W], 0 and 1.
        labels: int64[N].
        crowds: bool[N].
    """

    image: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    crowds: npt.NDArray[np.bool_]


def shrunk(
    image: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.uint8]], size: tuple[int, int], smooth: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(image uint8[h, w, 3], masks uint8[N, h, w]) stretched to `size` (height, width).

    Args:
        image: uint8[H, W, 3]; its channels keep their order.
        masks: N masks uint8[H, W].
        size: of the result.
        smooth: by areas, not bilinearly. Serving stretches bilinearly, which aliases where an image is much larger
            than the input; both kinds in training make a network that does not mind.
    """
    height, width = size
    flags = cv2.INTER_AREA if smooth and image.shape[0] > height else cv2.INTER_LINEAR
    made = np.empty((len(masks), height, width), np.uint8)
    for index, mask in enumerate(masks):
        made[index] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return cv2.resize(image, (width, height), interpolation=flags).astype(np.uint8, copy=False), made


class PhotometricDistort(v2.Transform):  # type: ignore[misc]  # torchvision is shipped without types
    """Brightness, contrast, saturation and hue, each with probability 0.5, in random order (Liu et al. 2016).

    As `v2.RandomPhotometricDistort`, which takes 17 ms for 240x400 pixels on one core, hue for the most part; on
    OpenCV's 8-bit HSV it is 1 ms. Pixels differ by rounding.
    """

    brightness, contrast, saturation, hue = 0.125, 0.5, 0.5, 0.05

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The factors; 1, and a turn of 0, where a part is left out."""
        on, draw = torch.rand(4) < 0.5, 2 * torch.rand(4) - 1
        spans = (self.brightness, self.contrast, self.saturation)
        factors = [1 + span * float(draw[i]) if on[i] else 1.0 for i, span in enumerate(spans)]
        return {"factors": factors, "turn": self.hue * float(draw[3]) if on[3] else 0.0, "late": torch.rand(()) < 0.5}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Images change, all else stays."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        (brightness, contrast, saturation), turn = params["factors"], params["turn"]
        image = inpt.permute(1, 2, 0).numpy()
        if brightness != 1.0:
            image = cv2.convertScaleAbs(image, alpha=brightness)
        if not params["late"]:
            image = _contrast(image, contrast)
        if saturation != 1.0 or turn:
            hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
            values = np.arange(256, dtype=np.float32)
            table = np.empty((1, 256, 3), np.uint8)
            table[0, :, 0] = np.round(values + 180 * turn) % 180
            table[0, :, 1] = np.clip(np.round(values * saturation), 0, 255)
            table[0, :, 2] = values
            image = cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)
        if params["late"]:
            image = _contrast(image, contrast)
        return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))


def _contrast(image: npt.NDArray[np.uint8], factor: float) -> npt.NDArray[np.uint8]:
    if factor == 1.0:
        return image
    middle = float(cv2.mean(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY))[0])
    table = np.clip(np.round(middle + factor * (np.arange(256) - middle)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


class ZoomOut(v2.Transform):  # type: ignore[misc]  # torchvision is shipped without types
    """The picture smaller, somewhere on a plain ground, the canvas as large as before.

    As `v2.RandomZoomOut` and a resize, which work on canvases of up to 16 times the pixels, once for every mask.

    Args:
        most: the canvas has up to this many times the picture's sides.
    """

    fill = (123.0, 116.0, 103.0)  # RGB, ImageNet's mean as in the original

    def __init__(self, most: float = 2.0) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Size of the picture and its place."""
        height, width = v2.query_size(flat_inputs)
        times = 1 + (self.most - 1) * float(torch.rand(()))
        size = max(1, round(height / times)), max(1, round(width / times))
        top = int((height - size[0] + 1) * float(torch.rand(())))
        left = int((width - size[1] + 1) * float(torch.rand(())))
        return {"size": size, "padding": [left, top, width - size[1] - left, height - size[0] - top]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resized and padded."""
        small = self._call_kernel(F.resize, inpt, list(params["size"]), antialias=True)
        fill = list(self.fill) if isinstance(inpt, tv_tensors.Image) else 0
        return self._call_kernel(F.pad, small, params["padding"], fill=fill)


class RandomIoUCrop(v2.RandomIoUCrop):  # type: ignore[misc]  # torchvision is shipped without types
    """torchvision's, whose choice among windows takes 6 to 12 ms of small tensors; here all are drawn at once.

    Windows have sides of 0.3 to 1 of the picture's and a ratio of 0.5 to 2; the first of `trials` is taken that has a
    box's centre inside and the least IoU that was drawn with one such box. What is cut off is judged by masks later.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """As the original: "is_within_crop_area" is left to `transform`, which keeps every box."""
        height, width = v2.query_size(flat_inputs)
        boxes = next(item for item in flat_inputs if isinstance(item, tv_tensors.BoundingBoxes)).numpy()
        least = self.options[int(torch.randint(len(self.options), ()))]
        if least >= 1.0 or not len(boxes):
            return {}
        draws = torch.rand(self.trials, 4).numpy().astype(np.float64)
        sides = self.min_scale + (self.max_scale - self.min_scale) * draws[:, :2]
        sizes = np.floor(sides * (width, height)).astype(np.int64)
        corner = np.floor((np.array((width, height)) - sizes) * draws[:, 2:]).astype(np.int64)
        windows = np.concatenate((corner, corner + sizes), 1).astype(np.float32)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centre > windows[:, None, :2]) & (centre < windows[:, None, 2:])).all(-1)  # [trials, N]
        ratio = sizes[:, 0] / np.maximum(sizes[:, 1], 1)
        good = np.where(inside, box_iou(windows, boxes), -1.0).max(1) >= max(least, 0.0)
        good &= (sizes > 0).all(1) & (ratio >= self.min_aspect_ratio) & (ratio <= self.max_aspect_ratio)
        if not good.any():
            return {}
        chosen = int(good.argmax())
        left, top = (int(value) for value in corner[chosen])
        return {"top": top, "left": left, "height": int(sizes[chosen, 1]), "width": int(sizes[chosen, 0])}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut."""
        if not params:
            return inpt
        return self._call_kernel(F.crop, inpt, params["top"], params["left"], params["height"], params["width"])


def augmentation(size: tuple[int, int]) -> v2.Transform:
    """Colours, then zoomed out (1 in 4), cut (1 in 2; random IoU crop) or neither, mirrored (1 in 2), stretched to
    `size` (height, width). Takes an Image, BoundingBoxes (for the crop's choice only) and a Mask.
    """
    return v2.Compose(
        [
            PhotometricDistort(),
            v2.RandomChoice([ZoomOut(), RandomIoUCrop(), v2.Identity()], p=[0.25, 0.5, 0.25]),
            v2.RandomHorizontalFlip(0.5),
            v2.Resize(size, antialias=False),
        ]
    )


def augmented(picture: Picture, transform: v2.Transform) -> Picture:
    """The picture through `transform`; instances of which little is left are neutral, those of which nothing is gone.

    Draws from torch's global generator, which the caller seeds.
    """
    height, width = picture.image.shape[:2]
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(mask_boxes(picture.masks)), format="XYXY", canvas_size=(height, width)
    )
    image = tv_tensors.Image(torch.from_numpy(picture.image).permute(2, 0, 1))
    before = _areas(picture.masks) / (height * width)
    changed, _, masks = transform(image, boxes, tv_tensors.Mask(torch.from_numpy(picture.masks)))
    made = np.ascontiguousarray(masks.numpy())
    pixels = np.ascontiguousarray(changed.permute(1, 2, 0).numpy())
    # A crop enlarges what it keeps and a zoom shrinks it: compared is what the frame shows of each to the largest.
    share = _areas(made) / (made.shape[1] * made.shape[2]) / np.maximum(before, 1e-9)
    scale = max(float(share.max(initial=0.0)), 1e-9)
    return _kept(Picture(pixels, made, picture.labels, picture.crowds), share / scale)


def _kept(picture: Picture, share: npt.NDArray[np.floating[Any]]) -> Picture:
    stays = np.array([cv2.countNonZero(mask) > 0 for mask in picture.masks], np.bool_)
    neutral = picture.crowds | (share < LEAST_SHARE)
    return Picture(picture.image, picture.masks[stays], picture.labels[stays], neutral[stays])


def paste(onto: Picture, source: Picture, rng: np.random.Generator) -> Picture:
    """Some instances of `source` in front of `onto`, mirrored or not, moved and scaled (Ghiasi et al. 2021).

    Masks of what stood there lose what is hidden; what is hidden for the most part is neutral, fully: gone.
    """
    able = np.flatnonzero(~source.crowds)
    if not len(able):
        return onto
    chosen = able[rng.random(len(able)) < 0.5] if len(able) > 1 else able
    if not len(chosen):
        chosen = able[:1]
    height, width = onto.image.shape[:2]
    scale = float(np.exp(rng.uniform(np.log(0.6), np.log(1.25))))
    turn = -1.0 if rng.random() < 0.5 else 1.0
    centre = np.array((width, height)) / 2
    move = rng.uniform(-0.25, 0.25, 2) * (width, height)
    matrix = np.array([[turn * scale, 0, 0], [0, scale, 0]])
    matrix[:, 2] = centre + move - matrix[:, :2] @ centre
    image = cv2.warpAffine(source.image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    masks = np.stack(
        [cv2.warpAffine(source.masks[i], matrix, (width, height), flags=cv2.INTER_NEAREST) for i in chosen]
    )
    cover = masks.max(axis=0) > 0
    before = _areas(onto.masks)
    left = onto.masks * ~cover
    whole = _areas(source.masks[chosen]) * scale**2
    share = np.concatenate(
        (_areas(left) / np.maximum(before, 1), _areas(masks.astype(np.uint8, copy=False)) / np.maximum(whole, 1))
    )
    return _kept(
        Picture(
            np.where(cover[:, :, None], image, onto.image),
            np.concatenate((left, masks)),
            np.concatenate((onto.labels, source.labels[chosen])),
            np.concatenate((onto.crowds, np.zeros(len(chosen), bool))),
        ),
        share,
    )


def mask_boxes(masks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """float32[N, 4], xyxy, half-open, in pixels: the tight box of each mask; zeros for an empty one."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for index, mask in enumerate(masks):
        x, y, width, height = cv2.boundingRect(mask)
        boxes[index] = x, y, x + width, y + height
    return boxes


def _areas(masks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.array([cv2.countNonZero(mask) for mask in masks], np.float64)
