"""From an image to crops: what a crop is, cutting it, decoding images."""

from __future__ import annotations

from graftsdk.plan.cropspec import CropSpec
from graftsdk.preprocess.boxmasks import BoxMasks, LazyMask
from graftsdk.preprocess.crop import mask_boxes, mask_crop
from graftsdk.preprocess.crop_file import read_crop
from graftsdk.preprocess.decode import IMAGE_SUFFIXES, decode_image, list_images
from graftsdk.preprocess.golden import golden_crops
from graftsdk.preprocess.image import check_image
from graftsdk.preprocess.reference import mask_crop_reference

__all__ = [
    "IMAGE_SUFFIXES",
    "BoxMasks",
    "CropSpec",
    "LazyMask",
    "check_image",
    "decode_image",
    "golden_crops",
    "list_images",
    "mask_boxes",
    "mask_crop",
    "mask_crop_reference",
    "read_crop",
]
