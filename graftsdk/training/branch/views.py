"""Packed crops as the views that a trunk is shown: the first as serving cuts it, the others augmented."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch

from graftsdk.training.crops.augment import Augmentation, augmented
from graftsdk.training.crops.packed import PackedCrops, normalised

__all__ = ["CropViews"]

VERSION = 1  # of how a view is drawn


class CropViews:
    """Crops in any number of views; view v of image i is the same whatever else is asked for with it.

    Attributes:
        digest, recipe: see `Crops`.
    """

    def __init__(self, crops: PackedCrops, data: str, how: Augmentation, seed: int) -> None:
        """Args: data: digest of the sub-dataset. how: of views 1 and on. seed: of the views."""
        self._crops, self._how, self._seed = crops, how, seed
        told = json.dumps([data, crops.split, len(crops), hashlib.sha256(crops.targets.tobytes()).hexdigest()])
        self.digest = hashlib.sha256(told.encode()).hexdigest()
        self.recipe = json.dumps({"version": VERSION, "augmentation": asdict(how), "seed": seed}, sort_keys=True)

    def __len__(self) -> int:
        return len(self._crops)

    def take(self, indices: npt.NDArray[np.int64], view: int) -> torch.Tensor:
        """float32[n, 3, H, W]: view `view` of these images, the specification's own pixels where it is 0."""
        pixels = self._crops.pixels[indices]
        if view == 0 or not len(indices):
            return normalised(torch.from_numpy(pixels), self._crops.spec)
        drawn = [
            augmented(crop[None], self._crops.spec, self._how, np.random.default_rng((self._seed, view, int(index))))
            for crop, index in zip(pixels, indices, strict=True)
        ]
        return normalised(torch.cat(drawn), self._crops.spec)
