"""The dynamic graph: a trunk and one head a label, of which a forward pass runs only those it is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from graftsdk.models import Trunk
from graftsdk.models.random_weights import RandomBits
from graftsdk.training.trunk.options import TrunkOptions

__all__ = ["DynamicGraph", "dynamic_loss", "low_precision_blocks", "new_optimizer", "set_momentum"]

BETAS = (0.9, 0.99)  # of AdamW; 0.99: trainings here are thousands of steps, not hundreds of thousands
MOMENTUM = 0.9


class DynamicGraph(nn.Module):
    """Paper 3.3: a trunk, global average pooling, and a fully connected head for each sub-dataset.

    Args:
        trunk: it is trained in place.
        classes: of each sub-dataset, how many.
        seed: of the heads.
    """

    def __init__(self, trunk: Trunk, classes: Sequence[int], seed: int) -> None:
        super().__init__()
        self.trunk = trunk
        channels, bits = trunk.channels(len(trunk.backbone.blocks)), RandomBits(seed)
        self.heads = nn.ModuleList(
            nn.Linear(channels, count, device="meta").to_empty(device="cpu") for count in classes
        )
        with torch.no_grad():
            for head in self.heads:
                assert isinstance(head, nn.Linear)
                # Pooled features are near 1, so logits differ by a tenth: the first losses are log C.
                head.weight.copy_(bits.uniform(tuple(head.weight.shape), 0.1 * channels**-0.5, centred=True))
                head.bias.zero_()

    def features(self, crops: torch.Tensor, low: int = -1) -> torch.Tensor:
        """float32[N, C], the mean of the last tap over its cells, of crops[N, 3, H, W].

        Args:
            crops: prepared.
            low: stem and so many blocks run in bfloat16 (autocast); -1: nothing does.
        """
        blocks = self.trunk.backbone.blocks
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=low >= 0):
            last = self.trunk.tap(crops, len(blocks) if low < 0 else low)
        if low >= 0:
            last = last.float()
            for name in blocks[low:]:
                last = self.trunk.get_submodule(name)(last)
        return last.mean(dim=(2, 3))

    def answers(self, features: torch.Tensor, parts: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """Logits of each part in turn; the other heads have no place in the graph.

        Args:
            features: float32[N, C].
            parts: (task, rows) of consecutive rows, N in all.
        """
        rows = torch.split(features, [count for _, count in parts])
        return [self.heads[task](own) for (task, _), own in zip(parts, rows, strict=True)]

    def forward(self, crops: torch.Tensor, parts: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """`answers` of `features`."""
        return self.answers(self.features(crops), parts)


def dynamic_loss(logits: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], smoothing: float) -> torch.Tensor:
    """The mean over sub-batches of softmax cross entropy / log C, so that heads of two and three classes start at 1."""
    losses = [
        functional.cross_entropy(each, wanted, label_smoothing=smoothing) / math.log(each.shape[1])
        for each, wanted in zip(logits, targets, strict=True)
    ]
    return torch.stack(losses).mean()


def new_optimizer(model: nn.Module, options: TrunkOptions) -> torch.optim.Optimizer:
    """The optimizer that the options name; BatchNorm's factors and all biases do not decay."""
    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    # Fused: 5 ms a step in place of 16 for InceptionV3 of width 0.25 on one thread. A state that is read again has its
    # counters on the CPU, where a GPU's fused kernel does not want them.
    fused = all(each.device.type == "cpu" for each in parameters)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, options.learning_rate, BETAS, fused=fused)
    return torch.optim.SGD(groups, options.learning_rate, MOMENTUM, nesterov=True, fused=fused)


def set_momentum(model: nn.Module, momentum: float) -> None:
    """BatchNorm's statistics take this share of each batch's."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


def low_precision_blocks(trunk: Trunk) -> int:
    """How many blocks after the stem bfloat16 may run on a CPU: all, or those before the maps get too narrow for it.

    oneDNN (torch 2.14) leaves memory uninitialised in the output of a 3x3 convolution with stride 2 whose map is one
    column wide, and in the gradient of the weights of one that reads a map of one cell. -1: not even the stem.
    """
    for tap in range(len(trunk.backbone.blocks) + 1):
        if trunk.tap_shape(tap)[2] == 1:
            return tap - 1
    return len(trunk.backbone.blocks)
