"""The same tree in torch, in fp16 and channels last, compiled with CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from gpu_plans import Workload, crops_of
from torch_tree import _Tree

from graftsdk.models import Branch, Trunk


class Tree(_Tree):
    """Trunk and branches as given; one tensor with all scores, so that they come in one copy."""

    def __init__(self, trunk: Trunk, branches: Sequence[Branch]) -> None:
        torch.nn.Module.__init__(self)
        self.trunk, self.branches = trunk, torch.nn.ModuleList(branches)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return torch.cat([scores.float() for scores in super().forward(crops)], 1)


def compiled(work: Workload, mode: str, place: str) -> tuple[dict[str, Callable[[int], Callable[[], object]]], str]:
    """Cases for `gpu_engines.compare`, and what compiling took. Crops are fp16 and channels last before a call.

    On a CPU, in a dry run, the tree runs as it is, in float32.
    """
    tree = Tree(*work.tree()).eval().to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = torch.float32 if place == "cpu" else torch.float16
    tree = tree.to(dtype)
    model = tree if place == "cpu" else torch.compile(tree, mode=mode, dynamic=False)
    said: list[str] = []

    def case(batch: int) -> Callable[[], object]:
        crops = torch.tensor(crops_of(work.full, batch), device=place, dtype=dtype)
        crops = crops.contiguous(memory_format=torch.channels_last)

        def call() -> object:
            with torch.inference_mode():
                return model(crops).cpu()

        started = time.perf_counter()
        for _ in range(4):  # compiled, warmed, captured
            call()
        said.append(f"batch {batch}: {time.perf_counter() - started:.0f} s")
        return call

    title = "torch eager" if place == "cpu" else f"torch.compile, {mode}"
    return {title: case}, title
