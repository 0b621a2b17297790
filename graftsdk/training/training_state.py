"""The state of an unfinished training: one safetensors file, written whole or not at all, from which it goes on.

Tensors: `model.*` and `ema.*` (parameters and buffers), `optimizer.KEY.*` (what torch's optimizer keeps of each
parameter, `momentum_buffer` of SGD's). The metadata key
`graftsdk.training` holds the rest as JSON. No random state is kept: order, augmentation and every draw of a step
follow from the seed and the step's number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from graftsdk.errors import PlanCorrupt, PlanVersionError
from graftsdk.files import atomic_write
from graftsdk.models.checkpoints import check_tensors, read_weights

__all__ = ["Progress", "read_state", "restore", "state_path", "write_state"]

KEY = "graftsdk.training"
VERSION = 1


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: steps taken.
        seconds: spent in them and in evaluations, over all runs.
        evaluated: `seconds` and `step` at the last evaluation.
        best: the score of the checkpoint that is kept (a segmenter's AP); -1 for none yet.
        curve: rows of OUT.curve.csv.
        finished: nothing is left to do, but for a longer training.
    """

    step: int = 0
    seconds: float = 0.0
    evaluated: tuple[float, int] = (0.0, 0)
    best: float = -1.0
    curve: list[dict[str, float]] = field(default_factory=list)
    finished: bool = False


def state_path(output: Path) -> Path:
    """Where the state of the training that writes `output` lies."""
    return output.with_name(output.name + ".state")


def write_state(
    path: Path,
    model: nn.Module,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    lasting: Mapping[str, Any],
) -> None:
    """Write it in place of the former one.

    Args:
        path: of the state file.
        model, ema, optimizer: at rest between two steps.
        lasting: options and digests that a resumed run must share, JSON types.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in ema.module.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if torch.is_tensor(value):
                tensors[f"optimizer.{key}.{name}"] = value
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    document = {"version": VERSION, "progress": asdict(progress), "lasting": lasting, "averaged": int(ema.n_averaged)}
    text = json.dumps(document, allow_nan=False, sort_keys=True)
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(own, metadata={KEY: text}))


def read_state(path: str | os.PathLike[str]) -> tuple[Progress, dict[str, Any], int, dict[str, torch.Tensor]]:
    """(how far it is, what a resumed run must share, how many weights were averaged, the tensors).

    Raises:
        PlanError: the file cannot be read, is damaged or of another version.
    """
    metadata, tensors = read_weights(path)
    try:
        document = json.loads(metadata[KEY])
        if document["version"] != VERSION:
            raise PlanVersionError(
                f"{path}: expected a training state of version {VERSION}, found {document['version']}"
            )
        progress = Progress(**document["progress"])
        seconds, step = progress.evaluated
        progress.evaluated = float(seconds), int(step)
        return progress, dict(document["lasting"]), int(document["averaged"]), tensors
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, PlanVersionError):
            raise
        raise PlanCorrupt(f"{path}: expected the state of a training, found another file: {error!s:.200}") from error


def restore(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    averaged: int,
    model: nn.Module,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put the tensors where they belong.

    Raises:
        PlanCorrupt: they are not those of this network.
    """
    for prefix, module in (("model.", model), ("ema.", ema.module)):
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        check_tensors(own, module.state_dict(), str(path))
        module.load_state_dict(own, strict=True)
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix != "optimizer":
            continue
        key, _, owner = rest.partition(".")
        like = parameters.get(owner)
        if like is None or (tensor.shape != like.shape and tensor.ndim):
            raise PlanCorrupt(f"{path}: {name}: expected a parameter's name and shape, found {list(tensor.shape)}")
        # In the parameter's own memory format: the sums of a step then run in the same order as before.
        kept = torch.empty_like(like.detach()).copy_(tensor) if tensor.ndim else tensor.clone()
        optimizer.state[like][key] = kept
    ema.n_averaged.fill_(averaged)
