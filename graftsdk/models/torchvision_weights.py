"""The one place where a `.pth` is read: torchvision's weights become a trunk checkpoint."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import Any

import torch

from graftsdk.errors import MissingDependency, PlanCorrupt
from graftsdk.models.backbones import backbone
from graftsdk.models.checkpoints import read_regular
from graftsdk.models.trunk import DEFAULT_SIZE, Trunk, without_classifier
from graftsdk.plan.cropspec import CropSpec

__all__ = ["import_torchvision"]

LEAST_TORCH = (2, 10)  # older weights_only unpicklers could be made to run code (CVE-2025-32434, CVE-2026-24747)


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
    _check_torch(torch.__version__)
    found = backbone(arch)
    crop = CropSpec(DEFAULT_SIZE if input_size is None else input_size, mean, std)
    data = read_regular(source_pth)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # noqa: TID251 - the one place
    # A hostile file can raise anything in the unpickler and in the zip reader. What torch says is not passed on: it
    # advises to load with weights_only=False.
    except Exception as error:
        raise PlanCorrupt(
            f"{source_pth}: expected a .pth of tensors alone, as torch.load(weights_only=True) reads it, found a file "
            f"that it refuses ({type(error).__name__}); save the state_dict alone"
        ) from error
    tensors = without_classifier(found, _state_dict(content, str(source_pth)))
    trunk = Trunk.from_tensors(arch, 1.0, crop, tensors, str(source_pth))
    trunk.save(output)
    return trunk


def _check_torch(version: str) -> None:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < LEAST_TORCH:
        raise MissingDependency(
            f"expected torch >= {LEAST_TORCH[0]}.{LEAST_TORCH[1]} to read a .pth, found {version}; "
            f"pip install 'graftsdk[export]'"
        )


def _state_dict(content: Any, where: str) -> dict[str, torch.Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise PlanCorrupt(f"{where}: expected a state dict, found {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise PlanCorrupt(
                f"{where}: expected names with dense tensors, found {name!r:.80}: {type(tensor).__name__}"
            )
    return {name: tensor.detach().contiguous().clone() for name, tensor in content.items()}
