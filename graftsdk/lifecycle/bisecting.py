"""Which part is wrong: each block and each branch alone is given what the engine gave it, and asked on a second way.

Comparing the taps themselves would not do: rounding grows from block to block (measured on InceptionV3 with random
weights, engine against reference: 1e-6 of the greatest activation after the stem, 1.6e-4 at tap 11), while each block
alone stays within 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Engine
from graftsdk.graft import scores_names, tap_name
from graftsdk.graft.group import CROPS
from graftsdk.lifecycle.comparing import Comparison, ScoreTally, TapTally
from graftsdk.lifecycle.references import Reference
from graftsdk.plan import Manifest

__all__ = ["Bisection", "Probe", "bisect_plan"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Probe:
    """One part between two cuts.

    Attributes:
        part: in words: "trunk ..., block 2 (tap 2 to tap 3)".
        comparison: the engine's value below the part against the reference's, both from the engine's value above.
        known: whether the reference makes finite values of what the engine gave; where not, nothing can be said.
    """

    part: str
    comparison: Comparison
    known: bool

    @property
    def guilty(self) -> bool:
        """Whether the part itself is outside tolerance."""
        return self.known and not self.comparison.ok


@dataclass(frozen=True)
class Bisection:
    """Every part in the order in which a crop passes them: each trunk block, then the branches that read its tap."""

    probes: tuple[Probe, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """The parts that are outside tolerance themselves, the first first."""
        return tuple(probe.part for probe in self.probes if probe.guilty)

    @property
    def first(self) -> str | None:
        """The first of `faults`."""
        return self.faults[0] if self.faults else None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        probes = [
            {"part": probe.part, "guilty": probe.guilty, "known": probe.known, **probe.comparison.to_dict()}
            for probe in self.probes
        ]
        return {"first": self.first, "faults": list(self.faults), "probes": probes}


def bisect_plan(
    manifest: Manifest, engine: Engine, reference: Reference, pieces: Iterable[npt.NDArray[np.float32]]
) -> Bisection:
    """Every trunk block up to the deepest tap and every branch, engine against reference, each from one input.

    Args:
        manifest: of the plan.
        engine: gives the taps and the scores.
        reference: the second way.
        pieces: crops float32[n, 3, H, W].
    """
    # A part on two trunks is computed on the first of them only; the other's taps may then not be computed at all.
    given = {CROPS, *engine.outputs}
    cuts = [cut for cut in _cuts(manifest, reference) if {cut.above, cut.below} <= given]
    for crops in pieces:
        found = {CROPS: crops, **engine.run({CROPS: crops}, list(dict.fromkeys(cut.below for cut in cuts)))}
        for cut in cuts:
            wanted = cut.again(found[cut.above])
            cut.known = cut.known and bool(np.isfinite(wanted).all())
            cut.tally.add(found[cut.below], wanted)
    return Bisection(tuple(Probe(cut.part, cut.tally.result(), cut.known) for cut in cuts))


@dataclass
class _Cut:
    part: str
    above: str  # the value that goes in
    below: str  # the value that comes out
    again: Callable[[Floats], Floats]  # the second way from above to below
    tally: ScoreTally | TapTally
    known: bool = True


def _cuts(manifest: Manifest, reference: Reference) -> list[_Cut]:
    cuts, names = [], scores_names(manifest)
    for tree in manifest.trees:
        deepest = max((entry.document.tap for entry in tree.branches), default=-1)
        for k in range(deepest + 1):
            tap = tap_name(tree.trunk, k)
            where = f"block {k - 1} (tap {k - 1} to tap {k})" if k else "stem (crops to tap 0)"
            above = tap_name(tree.trunk, k - 1) if k else CROPS
            again = _block(reference, tree.trunk, k)
            cuts.append(_Cut(f"trunk {tree.trunk}, {where}", above, tap, again, TapTally(f"tap {k}")))
            for entry in (entry for entry in tree.branches if entry.document.tap == k):
                document, name = entry.document, f"branch {entry.part} of label {entry.label!r} (tap {k} to scores)"
                tally = ScoreTally(entry.label, document.classes, document.thresholds)
                cuts.append(_Cut(name, tap, names[entry.label], _branch(reference, entry.label), tally))
    return cuts


def _block(reference: Reference, trunk: str, k: int) -> Callable[[Floats], Floats]:
    return lambda value: reference.tap(trunk, k, value)


def _branch(reference: Reference, label: str) -> Callable[[Floats], Floats]:
    return lambda tap: reference.scores(label, tap)
