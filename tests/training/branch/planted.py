"""Crops and features of which the answer is known: a bright square in one class, none in the other."""

from __future__ import annotations

import numpy as np
import torch

from graftsdk.models import Trunk
from graftsdk.plan import CropSpec
from graftsdk.training.branch.features import frozen

SPEC = CropSpec(size=(32, 32))


def small_trunk(seed=0):
    return frozen(Trunk.create("resnet18", width=0.1, crop=SPEC, seed=seed))


def planted(count, seed=0):
    """(float32[count, 3, 32, 32], int64[count]): noise, and in every second one a bright square."""
    rng = np.random.default_rng(seed)
    crops, targets = rng.standard_normal((count, 3, 32, 32)).astype(np.float32), np.arange(count) % 2
    for crop, target in zip(crops, targets, strict=True):
        if target:
            top, left = rng.integers(2, 18, 2)
            crop[:, top : top + 12, left : left + 12] += 4.0
    return crops, targets.astype(np.int64)


class ArrayCrops:
    """Crops in memory; view v is v times darker."""

    def __init__(self, crops, digest="data", recipe="darker"):
        self.crops, self.digest, self.recipe, self.taken = crops, digest, recipe, 0

    def __len__(self):
        return len(self.crops)

    def take(self, indices, view):
        self.taken += len(indices)
        return torch.from_numpy(self.crops[np.asarray(indices)]) / (1 + view)
