"""Every exported part against torch, on generated and on real crops, through the engine that the product runs.

Sessions are compiled as a split layout's are, and for this process only: verifying never writes the engine cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from graftsdk.engines import Engine
from graftsdk.errors import ValidationFailed
from graftsdk.export.opening import open_part
from graftsdk.models import Branch, Trunk, branch_cost
from graftsdk.plan import BranchDocument, ExportedBranch, Part, TrunkDocument
from graftsdk.plan.documents import GOLDEN_COUNT
from graftsdk.prediction import decisions
from graftsdk.preprocess import golden_crops

__all__ = ["END_TOLERANCE", "TAP_TOLERANCE", "TOLERANCE", "BranchSource", "TrunkSource", "validate"]

# Of a probability, torch and engine reading the same tap. Both are float32 with sums in another order, and BatchNorm
# is folded: 1e-7 to 2e-6 was measured on every backbone. Fifty times that moves no decision at a threshold of two
# digits; more is a wrong graph.
TOLERANCE = 1e-4
# Of a tap's value, relative to the tap's greatest. Measured 1e-6 (resnet18, mobilenet_v3_large) to 2e-4 (tap 11 of a
# random inception_v3 at 299, where torch itself is 1.4e-4 from the same network in float64).
TAP_TOLERANCE = 1e-3
# Of a probability from the crop on, so that both kinds of rounding add up: 2e-4 on the same random inception_v3.
END_TOLERANCE = 1e-2

_BATCH = 8  # crops that torch runs at once, of which it holds every tap: 100 MB for inception_v3 at 299

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
    difference: float = 0.0
    flips: int = 0
    samples: int = 0
    golden: tuple[tuple[float, ...], ...] = ()


def validate(
    trunk: TrunkSource,
    branches: Sequence[BranchSource],
    samples: Iterable[_Array] = (),
    step: Callable[[], object] = lambda: None,
) -> tuple[float | None, tuple[BranchDocument, ...]]:
    """The trunk's greatest difference at a tap, relative to the tap's greatest value, and the branches' documents.

    The difference is None where the trunk arrived exported. A document gets its record of the export: golden scores,
    and over generated and real crops the greatest difference of a probability, from the crop on, and over the real
    ones the decisions that flip. A branch that arrived exported keeps its record, and its golden scores are compared
    with it.

    Args:
        trunk, branches: what to verify; every branch fits the trunk.
        samples: real crops float32[N, 3, H, W], in rounds; the taps of one round are held in memory, and sessions
            but the trunk's are opened for each round.
        step: called for the trunk and for each branch, in each round.

    Raises:
        ValidationFailed: a part differs from torch by more than the tolerance, or gives NaN; names label or tap.
        EngineBuildError: the runtime refuses a part.
    """
    tallies = [_Tally(source) for source in branches]
    difference = 0.0
    with ExitStack() as stack:
        engine = stack.enter_context(open_part(trunk.part))
        for module in (trunk.module, *(source.module for source in branches)):
            if module is not None:
                stack.enter_context(evaluating(module))
        stack.enter_context(torch.inference_mode())
        for crops, generated in _rounds(golden_crops(trunk.document.crop), samples):
            found, expected, here = _taps(trunk, engine, crops, {source.document.tap for source in branches})
            difference = max(difference, here)
            step()
            for tally in tallies:
                tap = tally.source.document.tap
                _tally(tally, found[tap], expected[tap], generated)
                step()
    return (None if trunk.module is None else difference), tuple(_document(tally) for tally in tallies)


def _rounds(golden: _Array, samples: Iterable[_Array]) -> Iterator[tuple[_Array, int]]:
    """(crops, how many of them, from the front, are generated): the generated ones go with the first real ones."""
    generated = golden
    for crops in samples:
        yield np.concatenate((generated, crops)), len(generated)
        generated = golden[:0]
    if len(generated):
        yield generated, len(generated)


def _taps(
    trunk: TrunkSource, engine: Engine, crops: _Array, read: set[int]
) -> tuple[dict[int, _Array], dict[int, torch.Tensor], float]:
    """The taps that branches read, from the engine and from torch, and the trunk's greatest relative difference."""
    names = engine.outputs if trunk.module is not None else tuple(f"tap_{k}" for k in sorted(read))
    found: dict[int, list[_Array]] = {k: [] for k in read}
    expected: dict[int, list[torch.Tensor]] = {k: [] for k in read}
    difference = 0.0
    for start in range(0, len(crops), _BATCH):
        batch = crops[start : start + _BATCH]
        ours = engine.run({"crops": batch}, names)
        if trunk.module is None:
            theirs = {k: torch.from_numpy(ours[f"tap_{k}"]) for k in read}
        else:
            taps = trunk.module.taps(torch.from_numpy(batch).to(device_of(trunk.module)))
            theirs = {k: tap.cpu() for k, tap in enumerate(taps)}
            here = (_tap_difference(k, ours[f"tap_{k}"], tap.numpy()) for k, tap in theirs.items())
            difference = max(difference, *here)
        for k in read:
            found[k].append(ours[f"tap_{k}"])
            expected[k].append(theirs[k])
    joined = {k: np.concatenate(arrays) for k, arrays in found.items()}
    return joined, {k: torch.cat(tensors) for k, tensors in expected.items()}, difference


def _tap_difference(k: int, found: _Array, expected: _Array) -> float:
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(found - expected).max()) / scale
    if not difference <= TAP_TOLERANCE:  # a NaN too
        raise ValidationFailed(
            f"trunk: expected tap {k} within {TAP_TOLERANCE:g} of torch's, relative to its greatest value, found a "
            f"difference of {difference:.1e}; its weights may overflow float32: train it again"
        )
    return difference


def _tally(tally: _Tally, found: _Array, expected: torch.Tensor, generated: int) -> None:
    """Run one branch on the taps of one round. Of `found`, the first `generated` crops are generated."""
    document, module = tally.source.document, tally.source.module
    with open_part(tally.source.part) as engine:
        scores = engine.run({"tap": found})["scores"]
        on_torch_tap = scores if module is None else engine.run({"tap": expected.numpy()})["scores"]
    if not np.isfinite(scores).all():
        raise ValidationFailed(
            f"label {document.label!r}: expected probabilities, found NaN on crop {_first_odd(scores)}; "
            f"its weights may overflow float32: train it again"
        )
    if generated:
        tally.golden = tuple(tuple(min(float(value), 1.0) for value in row) for row in scores[:generated])
    if module is None:
        record = np.array(document.exported.scores, np.float32) if document.exported else scores[:generated]
        if generated:
            _check(document.label, scores[:generated], record, END_TOLERANCE, "its own record of the export")
        return
    rows = _torch_scores(module, expected)
    _check(document.label, on_torch_tap, rows, TOLERANCE, "torch on the same tap")
    difference = _check(document.label, scores, rows, END_TOLERANCE, "torch from the crop on")
    tally.difference = max(tally.difference, difference)
    for ours, theirs in zip(scores[generated:], rows[generated:], strict=True):
        now, then = (decisions(document.classes, row, document.thresholds) for row in (ours, theirs))
        tally.flips += now != then
        tally.samples += 1


def _torch_scores(module: Branch, tap: torch.Tensor) -> _Array:
    device = device_of(module)
    batches = (
        torch.softmax(module(batch.to(device)) / module.temperature, 1).cpu() for batch in torch.split(tap, _BATCH)
    )
    scores: _Array = torch.cat(list(batches)).numpy()
    return scores


def _check(label: str, found: _Array, expected: _Array, tolerance: float, what: str) -> float:
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance:  # a NaN too
        raise ValidationFailed(
            f"label {label!r}: expected probabilities within {tolerance:g} of {what}, found a difference of "
            f"{difference:.1e} on crop {int(np.abs(found - expected).max(axis=1).argmax())}"
        )
    return difference


def _first_odd(scores: _Array) -> int:
    return int(np.argmin(np.isfinite(scores).all(axis=1)))


def _document(tally: _Tally) -> BranchDocument:
    module = tally.source.module
    if module is None:
        return tally.source.document
    macs, parameters = branch_cost(module)
    assert len(tally.golden) == GOLDEN_COUNT
    record = ExportedBranch(macs, parameters, tally.golden, tally.difference, tally.samples, tally.flips)
    return replace(tally.source.document, exported=record)


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode for the block; every module inside is put back as it was."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training
