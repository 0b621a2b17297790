"""The plans that are measured: InceptionV3 at 299x299 with random weights. Built once into a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graftsdk.export import export_plan
from graftsdk.models import Branch, Trunk

SIZE = (299, 299)
# The reference plan: nine branches at tap 9, five at tap 8, two at tap 10, one at tap 6, and `child`.
TAPS = (9, 9, 9, 9, 9, 9, 9, 9, 9, 8, 8, 8, 8, 8, 10, 10, 6)


@dataclass(frozen=True)
class Plans:
    """Paths: 18 labels at three widths of their own blocks, 18 heads on the last tap, one whole network, 19 labels."""

    full: Path
    half: Path
    quarter: Path
    heads: Path
    one: Path
    nineteen: Path


def build(folder: Path) -> Plans:
    """The plans in `folder`; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Plans(*(folder / f"{name}.plan" for name in Plans.__annotations__))
    wanted = {
        found.full: lambda trunk: reference(trunk, 1.0),
        found.half: lambda trunk: reference(trunk, 0.5),
        found.quarter: lambda trunk: reference(trunk, 0.25),
        found.heads: lambda trunk: [Branch.create(trunk, f"label{i}", tap=11, seed=i) for i in range(18)],
        found.one: lambda trunk: [Branch.create(trunk, "label", tap=11)],
        found.nineteen: lambda trunk: [
            *reference(trunk, 1.0),
            Branch.create(trunk, "new", tap=9, init="random", seed=99),
        ],
    }
    if all(path.exists() for path in wanted):
        return found
    trunk = Trunk.create("inception_v3", input_size=SIZE, seed=0)
    for path, make in wanted.items():
        if not path.exists():
            _export(path, trunk, make(trunk))
    return found


def build_front(folder: Path, segmenter: Path) -> Path:
    """The reference plan with a segmenter in front; kept as the others are, under the segmenter's name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{segmenter.stem}.plan"
    if not path.exists():
        trunk = Trunk.create("inception_v3", input_size=SIZE, seed=0)
        _export(path, trunk, reference(trunk, 1.0), segmenter)
    return path


def _export(path: Path, trunk: Trunk, branches: Sequence[Branch], segmenter: Path | None = None) -> None:
    print(f"exporting {path.name}: {len(branches)} labels", flush=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        trunk.save(Path(folder) / "trunk.safetensors")
        checkpoints = [Path(folder) / f"{branch.label}.safetensors" for branch in branches]
        for branch, checkpoint in zip(branches, checkpoints, strict=True):
            branch.save(checkpoint)
        export_plan(path, trunk=Path(folder) / "trunk.safetensors", branches=checkpoints, segmenter=segmenter)


def reference(trunk: Trunk, width: float) -> list[Branch]:
    """The branches of the reference plan, their own blocks at `width`.

    Every branch has weights of its own, as trained ones have: OpenVINO merges equal ones (measured: branches that all
    started from the trunk's blocks took it 59 ms instead of four times that), and so would measure another graph.
    """
    branches = [_branch(trunk, f"label{i}", tap, width, i) for i, tap in enumerate(TAPS)]
    child = Branch.create(trunk, "child", tap=6, until=8, pooling="bilinear", width=width, init="random", seed=17)
    return [*branches, child]


def _branch(trunk: Trunk, label: str, tap: int, width: float, seed: int) -> Branch:
    return Branch.create(trunk, label, tap=tap, width=width, init="random", seed=seed)
