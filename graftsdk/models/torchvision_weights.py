"""Torchvision's weights, a `.pth`, become a trunk checkpoint."""

from __future__ import annotations

import os

from graftsdk.models.backbones import backbone
from graftsdk.models.pth import read_pth
from graftsdk.models.trunk import DEFAULT_SIZE, Trunk, without_classifier
from graftsdk.plan.cropspec import CropSpec

__all__ = ["import_torchvision"]


def import_torchvision(
    source_pth: str | os.PathLike[str],
    arch: str,
    output: str | os.PathLike[str],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    input_size: tuple[int, int] | None = None,
) -> Trunk:
    """The trunk written to `output`, with torchvision's weights and the crops they were trained on.

    Only tensors are unpickled (`weights_only=True`, no fallback); classifier and AuxLogits are dropped.

    Args:
        source_pth: a state dict, or a dict that holds one under "state_dict" or "model".
        arch: a registered backbone.
        output: the trunk checkpoint.
        mean: of the crops, RGB, in units of 1: ImageNet's (0.485, 0.456, 0.406) for most networks, three times 0.5
            for InceptionV3, whose transform_input it replaces.
        std: likewise, ImageNet's (0.229, 0.224, 0.225), or three times 0.5.
        input_size: (H, W) of the crops, 299x299 where none is given.

    Raises:
        InputError, ImageTooSmall: an argument out of range.
        PlanError: the file is no such state dict, or `output` cannot be written.
        MissingDependency: torch is older than 2.10.
    """
    found = backbone(arch)
    crop = CropSpec(DEFAULT_SIZE if input_size is None else input_size, mean, std)
    tensors = without_classifier(found, read_pth(source_pth))
    trunk = Trunk.from_tensors(arch, 1.0, crop, tensors, str(source_pth))
    trunk.save(output)
    return trunk
