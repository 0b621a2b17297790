"""Which part is wrong: a tree has natural cut points; what is right above a cut and wrong below it is the culprit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Engine
from graftsdk.graft import scores_name, tap_name
from graftsdk.lifecycle.comparing import Comparison, ScoreTally, TapTally
from graftsdk.lifecycle.references import Reference
from graftsdk.plan import Manifest

__all__ = ["Bisection", "Probe", "bisect_plan"]


@dataclass(frozen=True)
class Probe:
    """One cut point.

    Attributes:
        part: in words, what lies between the cut above and this one: "trunk …, block 2 (tap 2 to tap 3)".
        above_ok: whether the value that goes into that part is within tolerance.
        comparison: engine against reference at this cut.
    """

    part: str
    above_ok: bool
    comparison: Comparison

    @property
    def guilty(self) -> bool:
        """Right above, wrong here."""
        return self.above_ok and not self.comparison.ok


@dataclass(frozen=True)
class Bisection:
    """Every cut point in the order in which a crop passes them: each tap, then the branches that read it."""

    probes: tuple[Probe, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """The parts at which agreement is lost, the first first. What hangs below a wrong tap is not accused."""
        return tuple(probe.part for probe in self.probes if probe.guilty)

    @property
    def first(self) -> str | None:
        """The first of `faults`."""
        return self.faults[0] if self.faults else None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        probes = [{"part": probe.part, "guilty": probe.guilty, **probe.comparison.to_dict()} for probe in self.probes]
        return {"first": self.first, "faults": list(self.faults), "probes": probes}


def bisect_plan(
    manifest: Manifest, engine: Engine, reference: Reference, pieces: Iterable[npt.NDArray[np.float32]]
) -> Bisection:
    """Engine against reference at every tap up to the deepest and at every branch's scores.

    Args:
        manifest: of the plan.
        engine: gives all those values.
        reference: likewise.
        pieces: crops float32[n, 3, H, W].
    """
    tallies: dict[str, ScoreTally | TapTally] = {}
    cuts: list[tuple[str, str, str | None]] = []  # value, the part that makes it, the value that the part reads
    for tree in manifest.trees:
        deepest = max((entry.document.tap for entry in tree.branches), default=-1)
        for k in range(deepest + 1):
            tap, above = tap_name(tree.trunk, k), tap_name(tree.trunk, k - 1) if k else None
            tallies[tap] = TapTally(f"tap {k}")
            where = f"block {k - 1} (tap {k - 1} to tap {k})" if k else "stem (crops to tap 0)"
            cuts.append((tap, f"trunk {tree.trunk}, {where}", above))
            for entry in (entry for entry in tree.branches if entry.document.tap == k):
                name, document = scores_name(entry.part), entry.document
                tallies[name] = ScoreTally(entry.label, document.classes, document.thresholds)
                cuts.append((name, f"branch {entry.part} of label {entry.label!r} (tap {k} to scores)", tap))
    # A part on two trunks is computed on the first of them only; the other's taps may then not be computed at all.
    tallies = {value: tally for value, tally in tallies.items() if value in engine.outputs}
    for crops in pieces:
        found, wanted = engine.run({"crops": crops}, list(tallies)), reference.run(crops)
        for value, tally in tallies.items():
            tally.add(found[value], wanted[value])
    results = {value: tally.result() for value, tally in tallies.items()}
    right = {None, *(value for value, result in results.items() if result.ok)}
    probes = [
        Probe(part, above in right or above not in results, results[value])
        for value, part, above in cuts
        if value in results
    ]
    return Bisection(tuple(probes))
