"""A segmenter from whatever file it is in: a plan, an ONNX file or a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graftsdk.errors import InputError, PlanCorrupt, PlanTruncated
from graftsdk.plan import Plan, open_plan
from graftsdk.segment.demo import named_segmenter
from graftsdk.segmenter import Segmenter

__all__ = ["holds_network", "open_plan_of", "open_segmenter"]

_Path = str | os.PathLike[str]


def holds_network(path: _Path) -> bool:
    """Whether the name is of an ONNX file, of a checkpoint or of the demo; every other one is taken for a plan's."""
    return Path(named_segmenter(path)).suffix.lower() in (".onnx", ".safetensors")


@contextmanager
def open_segmenter(
    path: _Path, *, device: str = "auto", threads: int | None = None, **reading: Any
) -> Iterator[Segmenter]:
    """The segmenter of a plan, or the one that an ONNX file or a checkpoint is, for a `with` block.

    A plan and an ONNX file need no torch.

    Args:
        path: the file, or "demo"; see `holds_network`.
        device, threads: as for `Segmenter`.
        reading: of an ONNX file, as for `graftsdk.export.segmenter.read_segmenter`: `person_class`, `family` and the
            like. What is None counts as not said.

    Raises:
        InputError: a plan without a segmenter, or with something of `reading`, which it says itself; a network that no
            adapter knows. PlanError: the file cannot be read. MissingDependency: a checkpoint, and torch is absent.
        ValidationFailed, EngineError: the network gives NaN, or cannot be opened.
    """
    said = {name: value for name, value in reading.items() if value is not None}
    if holds_network(path):
        from graftsdk.export.segmenter import read_segmenter  # here: onnx is not imported for a plan

        with read_segmenter(path, **said).open(device=device, threads=threads) as segmenter:
            yield segmenter
        return
    with open_plan_of(path) as plan:
        if plan.manifest.segmenter is None:
            raise InputError(
                f"{path}: expected a plan with a segmenter, found none in it; graftsdk-export --segmenter puts one in, "
                f"or name an ONNX file (.onnx)"
            )
        if said:
            raise InputError(f"{', '.join(said)}: expected an ONNX file, found the plan {path}, which says it itself")
        with Segmenter.of_plan(plan, device=device, threads=threads) as segmenter:
            yield segmenter


def open_plan_of(path: _Path) -> Plan:
    """The plan where `holds_network` says that it is one. Raises PlanError: a file that is none names what would do."""
    try:
        return open_plan(path)
    except (PlanCorrupt, PlanTruncated) as error:
        if Path(path).suffix.lower() == ".plan":
            raise
        raise type(error)(f"{error}; a network is told by its name: .onnx, .safetensors or demo") from error
