"""The one place where a `.pth` is read: tensors alone, never objects."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import Any

import torch

from graftsdk.errors import MissingDependency, PlanCorrupt, PlanLimitError
from graftsdk.models.checkpoints import MAX_FILE_BYTES, read_regular

__all__ = ["check_torch", "read_pth", "state_dict"]

LEAST_TORCH = (2, 10)  # older weights_only unpicklers could be made to run code (CVE-2025-32434, CVE-2026-24747)


def read_pth(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The state dict in a `.pth`, by itself or in a dict under "state_dict" or "model"; the tensors are the caller's.

    Only tensors are unpickled (`weights_only=True`, no fallback).

    Raises:
        PlanPathError, PlanLimitError, PlanCorrupt: no readable file, more than 4 GiB, or not such a state dict.
        MissingDependency: torch is older than 2.10.
    """
    check_torch(torch.__version__)
    data = read_regular(path)
    if data[8:9] == b"{":  # behind a length of eight bytes
        raise PlanCorrupt(
            f"{path}: expected a .pth, found a safetensors file: it needs no import where `graftsdk info` can read it"
        )
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # noqa: TID251 - the one place
    # A hostile file can raise anything in the unpickler and in the zip reader. What torch says is not passed on: it
    # advises to load with weights_only=False.
    except Exception as error:
        raise PlanCorrupt(
            f"{path}: expected a .pth of tensors alone, as torch.load(weights_only=True) reads it, found a file "
            f"that it refuses ({type(error).__name__}); save the state_dict alone"
        ) from error
    return state_dict(content, str(path))


def check_torch(version: str) -> None:
    """Refuse a torch whose unpickler is not safe. Raises MissingDependency."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < LEAST_TORCH:
        raise MissingDependency(
            f"expected torch >= {LEAST_TORCH[0]}.{LEAST_TORCH[1]} to read a .pth, found {version}; "
            f"pip install 'graftsdk[export]'"
        )


def state_dict(content: Any, where: str) -> dict[str, torch.Tensor]:
    """Names and dense tensors in what was unpickled. Raises PlanCorrupt or PlanLimitError, naming `where`."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise PlanCorrupt(f"{where}: expected a state dict, found {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or not _is_dense(tensor):
            raise PlanCorrupt(
                f"{where}: expected names with dense tensors, found {name!r:.80}: {type(tensor).__name__}"
            )
    total = sum(tensor.numel() * tensor.element_size() for tensor in content.values())
    if total > MAX_FILE_BYTES:  # a few stored bytes can be seen as any shape
        raise PlanLimitError(f"{where}: expected at most {MAX_FILE_BYTES} bytes of tensors, found {total}")
    return {name: tensor.detach().contiguous().clone() for name, tensor in content.items()}


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
