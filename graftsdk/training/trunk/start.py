"""A trunk's training before its first step: the network and the crops."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from graftsdk.errors import InputError
from graftsdk.models import Trunk
from graftsdk.plan import CropSpec
from graftsdk.text import listed
from graftsdk.training.crops.packed import PackedCrops, pack_crops
from graftsdk.training.labels import LabelSet
from graftsdk.training.trunk.options import TrunkNetwork

__all__ = ["new_trunk", "packed_splits"]

Folder = str | os.PathLike[str]


def new_trunk(trunk: TrunkNetwork | Folder | None, weights: Folder | None, seed: int) -> Trunk:
    """The network, with random weights, torchvision's, or those of a checkpoint; see `train_trunk`."""
    if trunk is not None and not isinstance(trunk, TrunkNetwork):
        if weights is not None:
            raise InputError("weights: expected none together with a trunk's checkpoint, found both; choose one")
        return Trunk.load(trunk)
    network = TrunkNetwork() if trunk is None else trunk
    return Trunk.create(network.arch, width=network.width, seed=seed, weights=weights, crop=network.crop)


def packed_splits(
    sets: Sequence[LabelSet], spec: CropSpec, folder: Path, threads: int, progress: bool
) -> tuple[list[PackedCrops], list[PackedCrops | None]]:
    """(training crops, validation crops or None) of each sub-dataset, decoded into `folder` where they are not yet.

    Raises:
        InputError: a class without training crops.
    """
    train = [pack_crops(each, "train", spec, folder, threads=threads, progress=progress) for each in sets]
    for crops in train:
        if 0 in crops.counts():
            raise InputError(
                f"{crops.label!r}: expected training crops of every class {listed(crops.classes)}, "
                f"found {crops.counts()} of them; add some, or leave the class out"
            )
    val = [
        pack_crops(each, "val", spec, folder, threads=threads, progress=progress) if each.val else None for each in sets
    ]
    return train, val
