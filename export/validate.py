"""Every exported part against torch, on generated and on real crops, through the engine that the product runs.

Sessions are compiled as a split layout's are, and for this process only: verifying never writes the engine cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from graftsdk.engines import Engine, Graph, open_engine
from graftsdk.errors import ValidationFailed
from graftsdk.graft import externalize
from graftsdk.models import Branch, Trunk, branch_cost
from graftsdk.plan import BranchDocument, ExportedBranch, Part, TrunkDocument
from graftsdk.plan.documents import GOLDEN_COUNT
from graftsdk.plan.onnx_part import model_from_part
from graftsdk.prediction import decisions
from graftsdk.preprocess import golden_crops

__all__ = ["TAP_TOLERANCE", "TOLERANCE", "BranchSource", "TrunkSource", "open_part", "validate"]

# Of a probability. Float32 with BatchNorm folded, sums in another order: 1e-7 to 1e-6 is measured on every backbone.
# A hundred times that is still no decision at any threshold that two digits can state; more is a wrong graph.
TOLERANCE = 1e-4
# Of a tap's value, relative to the tap's greatest. Measured 1e-6 (resnet18, mobilenet_v3_large) to 1e-5 (inception_v3).
TAP_TOLERANCE = 1e-3

_Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TrunkSource:
    """A trunk to be verified: the part, and the module it was made from, None where it arrived exported."""

    part: Part
    document: TrunkDocument
    module: Trunk | None


@dataclass(frozen=True)
class BranchSource:
    """A branch to be verified: the part, and the module it was made from, None where it arrived exported."""

    part: Part
    document: BranchDocument
    module: Branch | None


@dataclass
class _Tally:
    """What the crops so far have shown of one branch."""

    source: BranchSource
    engine: Engine
    difference: float = 0.0
    flips: int = 0
    samples: int = 0
    golden: list[tuple[float, ...]] = field(default_factory=list)


def validate(
    trunk: TrunkSource,
    branches: Sequence[BranchSource],
    samples: Iterable[_Array] = (),
    step: Callable[[], object] = lambda: None,
) -> tuple[float | None, tuple[BranchDocument, ...]]:
    """The trunk's greatest difference at a tap, relative to the tap's greatest value, and the branches' documents.

    The difference is None where the trunk arrived exported. A document gets its record of the export: golden scores,
    greatest difference of a probability and flipped decisions over the samples. A branch that arrived exported keeps
    its own record, and its golden scores are compared with it.

    Args:
        trunk, branches: what to verify; every branch fits the trunk.
        samples: batches of real crops float32[N, 3, H, W].
        step: called for each part compiled, and for each batch.

    Raises:
        ValidationFailed: a part differs from torch by more than the tolerance, or gives NaN; names label or tap.
        EngineBuildError: the runtime refuses a part.
    """
    with ExitStack() as stack:
        engine = stack.enter_context(open_part(trunk.part))
        step()
        tallies = []
        for source in branches:
            tallies.append(_Tally(source, stack.enter_context(open_part(source.part))))
            step()
        for module in (trunk.module, *(source.module for source in branches)):
            if module is not None:
                stack.enter_context(_evaluating(module))
        stack.enter_context(torch.inference_mode())
        difference = _batch(trunk, engine, tallies, golden_crops(trunk.document.crop), golden=True)
        step()
        for crops in samples:
            difference = max(difference, _batch(trunk, engine, tallies, crops, golden=False))
            step()
        return (None if trunk.module is None else difference), tuple(_document(tally) for tally in tallies)


def open_part(part: Part) -> Engine:
    """The part alone on the CPU, compiled as the product does it."""
    model = model_from_part(part)
    inputs = {str(value.name): str(value.name) for value in model.graph.inputs}
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    graph = Graph(part.digest, inputs, outputs, lambda: externalize(model_from_part(part)))
    return open_engine([graph], device="cpu", cache=False)


def _batch(trunk: TrunkSource, engine: Engine, tallies: Sequence[_Tally], crops: _Array, *, golden: bool) -> float:
    """Run one batch through everything; the trunk's greatest relative difference at a tap."""
    read = {f"tap_{tally.source.document.tap}" for tally in tallies}
    names = [name for name in engine.outputs if trunk.module is not None or name in read]
    found = engine.run({"crops": crops}, names)
    difference, expected = 0.0, {name: torch.from_numpy(value) for name, value in found.items()}
    if trunk.module is not None:
        taps = trunk.module.taps(torch.from_numpy(crops).to(_device(trunk.module)))
        expected = {f"tap_{k}": tap.cpu() for k, tap in enumerate(taps)}
        difference = max(_tap_difference(name, found[name], expected[name].numpy()) for name in names)
    for tally in tallies:
        tap = f"tap_{tally.source.document.tap}"
        _tally(tally, found[tap], expected[tap], golden=golden)
    return difference


def _tap_difference(name: str, found: _Array, expected: _Array) -> float:
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(found - expected).max()) / scale
    if not difference <= TAP_TOLERANCE:  # a NaN too
        raise ValidationFailed(
            f"trunk: expected {name} within {TAP_TOLERANCE:g} of torch's, relative to its greatest value, found a "
            f"difference of {difference:.1e}; its weights may overflow float32"
        )
    return difference


def _tally(tally: _Tally, found: _Array, expected: torch.Tensor, *, golden: bool) -> None:
    document, module = tally.source.document, tally.source.module
    scores = tally.engine.run({"tap": found})["scores"]
    if not np.isfinite(scores).all():
        raise ValidationFailed(
            f"label {document.label!r}: expected probabilities, found NaN on {'generated' if golden else 'real'} "
            f"crops; its weights may overflow float32: train it again"
        )
    if golden:
        tally.golden = [tuple(min(float(value), 1.0) for value in row) for row in scores]
    if module is not None:
        logits = module(expected.to(_device(module)))
        rows = torch.softmax(logits / document.temperature, 1).cpu().numpy()
    elif golden and document.exported is not None:
        rows = np.array(document.exported.scores, np.float32)
    else:
        return
    difference = float(np.abs(scores - rows).max())
    if not difference <= TOLERANCE:
        raise ValidationFailed(
            f"label {document.label!r}: expected probabilities within {TOLERANCE:g} of "
            f"{'its own record' if module is None else 'torch'}, found a difference of {difference:.1e}"
        )
    tally.difference = max(tally.difference, difference)
    if not golden:
        tally.samples += len(scores)
        for ours, theirs in zip(scores, rows, strict=True):
            now, then = (decisions(document.classes, row, document.thresholds) for row in (ours, theirs))
            tally.flips += now != then


def _document(tally: _Tally) -> BranchDocument:
    module = tally.source.module
    if module is None:
        return tally.source.document
    macs, parameters = branch_cost(module)
    assert len(tally.golden) == GOLDEN_COUNT
    record = ExportedBranch(macs, parameters, tuple(tally.golden), tally.difference, tally.samples, tally.flips)
    return replace(tally.source.document, exported=record)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode for the block; every module inside is put back as it was."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training
