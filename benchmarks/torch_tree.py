"""The reference plan as one torch module, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from plans import SIZE, reference

from graftsdk.engines import default_threads
from graftsdk.models import Trunk


def torch_runners(crops: np.ndarray, compiled: bool) -> dict[str, Callable[[], object]]:
    """The same tree in torch, channels last; eager, and compiled by its default backend."""
    torch.set_num_threads(default_threads())
    tree = _Tree().eval().to(memory_format=torch.channels_last)
    x = torch.from_numpy(crops).contiguous(memory_format=torch.channels_last)

    def run(model: Callable[[torch.Tensor], object]) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                return model(x)

        return call

    found = {"torch eager, channels last": run(tree)}
    if compiled:
        found["torch.compile, channels last"] = run(torch.compile(tree))
    return found


class _Tree(torch.nn.Module):
    """The reference plan as one torch module: the trunk once, then every branch."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk.create("inception_v3", input_size=SIZE, seed=0)
        self.branches = torch.nn.ModuleList(reference(self.trunk, 1.0))

    def forward(self, crops: torch.Tensor) -> list[torch.Tensor]:
        deepest = max(branch.tap for branch in self.branches)
        taps = [crops]
        for name in self.trunk.backbone.stem:
            taps[0] = self.trunk.get_submodule(name)(taps[0])
        for block in self.trunk.blocks[:deepest]:
            taps.append(block(taps[-1]))
        return [torch.softmax(branch(taps[branch.tap]), 1) for branch in self.branches]
