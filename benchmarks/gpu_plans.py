"""The plans of the GPU benchmark: the reference plan, one network, 19 labels; and small ones, to try it on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plans import SIZE, reference

from graftsdk.export import export_plan
from graftsdk.models import Branch, Trunk
from graftsdk.plan import open_plan
from graftsdk.plan.cost import plan_cost
from graftsdk.prediction import reported_labels


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        full: path of the plan with all labels. one: of one whole network. more: of `full` and one label.
        batches: to measure at, the least first. networks: the multiply-adds of `full` in whole networks.
        tree: makes trunk and branches of `full` anew, as torch modules.
    """

    full: Path
    one: Path
    more: Path
    batches: tuple[int, ...]
    networks: float
    tree: Callable[[], tuple[Trunk, Sequence[Branch]]]


def prepare(folder: Path, *, small: bool) -> Workload:
    """Built once into the folder; `small` is a narrow network on small crops, whose times mean nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    size, width = ((128, 128), 0.1) if small else (SIZE, 1.0)
    labels = 3 if small else None

    def tree() -> tuple[Trunk, Sequence[Branch]]:
        trunk = Trunk.create("inception_v3", input_size=size, width=width, seed=0)
        return trunk, reference(trunk, 1.0)[-labels if labels else 0 :]

    full, one, more = (folder / f"{name}{'-small' if small else ''}.plan" for name in ("full", "one", "nineteen"))
    wanted: dict[Path, Callable[[Trunk, Sequence[Branch]], Sequence[Branch]]] = {
        full: lambda trunk, branches: branches,
        one: lambda trunk, branches: [Branch.create(trunk, "label", tap=11)],
        more: lambda trunk, branches: [*branches, Branch.create(trunk, "new", tap=9, init="random", seed=99)],
    }
    if not all(path.exists() for path in wanted):
        trunk, branches = tree()
        for path, choose in wanted.items():
            if not path.exists():
                _export(path, trunk, choose(trunk, branches))
    with open_plan(full) as plan:
        networks = plan_cost(plan.manifest, reported_labels).networks
    return Workload(full, one, more, (1, 4) if small else (1, 8, 32), networks, tree)


def crops_of(path: Path, batch: int, seed: int = 0) -> Any:
    """float32[batch, 3, H, W] of the plan's size."""
    import numpy as np

    with open_plan(path) as plan:
        size = plan.manifest.crop.size
    return np.random.default_rng(seed).normal(size=(batch, 3, *size)).astype(np.float32)


def _export(path: Path, trunk: Trunk, branches: Sequence[Branch]) -> None:
    print(f"exporting {path.name}: {len(branches)} labels", flush=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        trunk.save(Path(folder) / "trunk.safetensors")
        checkpoints = [Path(folder) / f"{branch.label}.safetensors" for branch in branches]
        for branch, checkpoint in zip(branches, checkpoints, strict=True):
            branch.save(checkpoint)
        export_plan(path, trunk=Path(folder) / "trunk.safetensors", branches=checkpoints)
