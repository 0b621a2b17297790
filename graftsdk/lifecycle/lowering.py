"""A plan's parts in lower precision, part by part, each proven on real crops first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graftsdk.export.quantize import Method, TapScale, quantizable, quantize_branch, quantize_trunk, tap_scales
from graftsdk.files import check_target
from graftsdk.lifecycle.lowering_choice import checked_tolerance, wanted_labels
from graftsdk.lifecycle.lowering_crops import JudgedCrops, find_crops, read_batches
from graftsdk.lifecycle.lowering_forms import Floats, Form, open_form
from graftsdk.lifecycle.lowering_report import (
    Figures,
    LabelLowering,
    LoweringReport,
    TrunkLowering,
    figures_of,
    worst,
)
from graftsdk.plan import BranchEntry, Part, Plan, Tree, open_plan
from graftsdk.plan.edit_lowered import store_lowered
from graftsdk.plan.lowered import Lowered

__all__ = ["lower_plan"]

_AT_ONCE = 16  # crops; all taps that are read are held of so many, twice

_NOTHING = "nothing in it to lower"  # why a branch was not tried
_SETTLED = "stays in float32, as it was settled before"
_SHARED = "stays in float32: its part sits on several trunks"

_Path = str | os.PathLike[str]
_Step = Callable[[int], object]


def lower_plan(
    path: _Path,
    precision: str,
    samples: _Path | None = None,
    *,
    output: _Path | None = None,
    labels: Sequence[str] | None = None,
    data: _Path | None = None,
    tolerance: float | None = None,
    method: Method = "percentile",
    again: bool = False,
    progress: bool = False,
) -> LoweringReport:
    """Lower a plan's trunks and branches as far as its labels stand it, and write down what came of each.

    INT8 parts are calibrated and stored in the plan beside those in float32; of fp16 and bf16, which are a pass over
    the graph, only the verdicts are. A trunk is lowered if every label on it stays within the tolerance with its own
    branch in float32; then every branch is tried on the trunk as it is, and one that fails stays in float32. Branches
    that read taps have the trunk's scale of that tap, and a trunk is lowered once: with a later label it stays as it
    is, so that no other label moves. Labels of one part stand and fall together; one that sits on several trunks, whose
    taps have ranges of their own, stays in float32.

    All is compared on crops that no range was found on, in ONNX Runtime on the CPU; fp16 and bf16 are emulated there,
    with sums in float32.

    Args:
        path: the plan. precision: "int8", "fp16" or "bf16".
        samples: a folder of person images; a PNG's alpha is the person's mask. For INT8, every second of them and at
            most 128 are for finding ranges, and no others.
        output: where to write; None replaces the plan itself.
        labels: whose branches are lowered, and with them whoever shares a part with one; None takes those that were not
            tried yet. A plan knows of parts alone which were tried, so that labels that share one are looked at again,
            with the part as it is.
        data: a folder of sub-datasets, as `graftsdk evaluate` reads it: their test images are compared too, and judged
            by AUC.
        tolerance: of AUC, 0..1; None takes 0.005 for INT8 and 0.001 for fp16 and bf16. Where a label has no annotated
            images, at most 8 times as large a share of its decisions may flip, and probabilities may move by twice as
            much on average.
        method: how INT8 ranges are found, see `graftsdk.export.quantize`.
        again: all of it anew, trunks too: every label may move.
        progress: a bar on stderr.

    Raises:
        InputError: INT8 without samples, an argument, an image that cannot be used, or nothing left to do.
        PlanError: the plan cannot be read or written. EngineError: a part cannot be opened.
        UnsupportedOp: a part that cannot be lowered.
    """
    started = time.monotonic()
    allowed = checked_tolerance(precision, tolerance, method, labels, again)
    check_target(Path(output or path))
    with open_plan(path) as plan:
        wanted = wanted_labels(plan, precision, labels, again)
        documents = [entry.document for tree in plan.manifest.trees for entry in tree.branches]
        crops = find_crops(samples, data, documents, calibrate=precision == "int8")
        trees = [tree for tree in plan.manifest.trees if any(entry.label in wanted for entry in tree.branches)]
        taps = sum(len({entry.document.tap for entry in tree.branches}) for tree in trees)
        rounds = 3 * len(trees) * len(crops.judged) + (len(trees) + taps) * len(crops.calibration)
        with _bar(rounds, progress) as step:
            jobs = [_Job(plan, tree, precision, allowed, method, crops, step) for tree in trees]
            done = [job.lower(wanted, again=again, anew=labels is not None) for job in jobs]
    records: dict[str, Lowered] = {}
    for name, record in (pair for each in done for pair in each.records.items()):
        if name not in records or record.largest > records[name].largest:  # a part that stays on several trunks
            records[name] = record
    parts = {part.name: part for each in done for part in each.parts}
    store_lowered(path, precision, records, list(parts.values()), again=again, output=output)
    return LoweringReport(
        Path(output or path),
        precision,
        method if precision == "int8" else "",
        allowed,
        len(crops.calibration),
        len(crops.judged),
        crops.annotated,
        tuple(each.trunk for each in done),
        tuple(row for each in done for row in each.labels),
        time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Done:
    """What came of one tree."""

    trunk: TrunkLowering
    labels: tuple[LabelLowering, ...]
    records: Mapping[str, Lowered]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Job:
    """One tree, to be lowered."""

    plan: Plan
    tree: Tree
    precision: str
    tolerance: float
    method: Method
    crops: JudgedCrops
    step: _Step

    def lower(self, wanted: frozenset[str], *, again: bool, anew: bool) -> _Done:
        """All of it, in order: the trunk, then each branch on the trunk as it is then.

        Args:
            wanted: labels; with one of a part all of that part. again: the trunk too. anew: branches that have a
                record too, which otherwise stay as it says, and are compared as they are.
        """
        known = {} if again else self.plan.manifest.lowered.get(self.precision, {})
        settled = known.get(self.tree.trunk)
        chosen = {entry.label: entry for entry in self.tree.branches if entry.label in wanted}
        judged = chosen if settled is not None else {entry.label: entry for entry in self.tree.branches}
        form = self._trunk_form(settled)
        plain: dict[str, Form] = dict.fromkeys(judged, "float32")
        base = self._scores("float32", judged, plain)
        moved = {} if form == "float32" else self._figures(judged, self._scores(form, judged, plain), base)
        trunk, records = self._trunk_verdict(form, settled, moved)
        parts = [form] if isinstance(form, Part) and trunk.lowered and settled is None else []
        if not trunk.lowered:
            form, moved = "float32", {}
        stay = self._staying(chosen, {} if anew else known)
        forms = self._branch_forms(
            form,
            {label: entry for label, entry in chosen.items() if entry.part not in stay},
            {} if anew else known,
        )
        tried = {label: forms[entry.part] for label, entry in chosen.items() if entry.part in forms}
        figures = self._figures(chosen, self._scores(form, chosen, tried), base)
        failed = {chosen[label].part for label, found in figures.items() if not found.passes(self.tolerance)}
        for name, lowered in forms.items():
            over = worst(figures[label] for label, entry in chosen.items() if entry.part == name)
            kept = lowered if isinstance(lowered, Part) and name not in failed else None
            records[name] = over.record(kept.name if kept else "", name not in failed, self.tolerance)
            parts += [kept] if kept and kept.name not in self.plan.manifest.parts else []
        # What nothing was tried of has a record too: of what the trunk does to it.
        unmoved = Figures(len(self.crops.judged), 0.0, 0.0, 0)
        for name in dict.fromkeys(entry.part for entry in chosen.values()):
            if name not in forms and stay.get(name) != _SETTLED:
                over = worst(moved.get(label, unmoved) for label, entry in chosen.items() if entry.part == name)
                records[name] = over.record("", False, self.tolerance)
        rows = tuple(
            self._label(
                entry, moved.get(label), figures.get(label), entry.part in failed, stay.get(entry.part, _NOTHING)
            )
            for label, entry in chosen.items()
        )
        return _Done(trunk, rows, records, tuple(parts))

    def _staying(self, chosen: Mapping[str, BranchEntry], known: Mapping[str, Lowered]) -> dict[str, str]:
        """Part -> why it stays in float32 and is not tried."""
        others = [tree for tree in self.plan.manifest.trees if tree is not self.tree]
        shared = {entry.part for tree in others for entry in tree.branches}
        parts = {entry.part for entry in chosen.values()}
        failed = {name: _SETTLED for name in parts if name in known and not known[name].passed}
        return failed | dict.fromkeys(parts & shared, _SHARED)

    def _trunk_form(self, settled: Lowered | None) -> Form:
        """The trunk as it is to be tried, or as it was settled."""
        if settled is not None and not settled.passed:
            return "float32"
        if self.precision != "int8":
            return self.precision
        if settled is not None:
            return self.plan.parts[settled.part]
        part = self.plan.parts[self.tree.trunk]
        if not quantizable(part):
            return "float32"
        return quantize_trunk(part, self.tree.document, self._calibration(), self.method)

    def _trunk_verdict(
        self, form: Form, settled: Lowered | None, moved: Mapping[str, Figures]
    ) -> tuple[TrunkLowering, dict[str, Lowered]]:
        """Whether the trunk is lowered, and its record where that was not settled before."""
        name = self.tree.trunk
        if settled is not None:
            return TrunkLowering(name, settled.passed, True, None), {}
        if not moved:
            return TrunkLowering(name, False, False, None), {}
        blocking = tuple(label for label, figures in moved.items() if not figures.passes(self.tolerance))
        over, passed = worst(moved.values()), not blocking
        stored = form.name if isinstance(form, Part) and passed else ""
        verdict = TrunkLowering(name, passed, False, over, blocking)
        return verdict, {name: over.record(stored, passed, self.tolerance)}

    def _branch_forms(
        self, trunk: Form, chosen: Mapping[str, BranchEntry], known: Mapping[str, Lowered]
    ) -> dict[str, Form]:
        """Part -> its form to be tried, of the branches that have something to lower; a known one as it is."""
        if self.precision != "int8":
            return {entry.part: self.precision for entry in chosen.values()}
        scales: Mapping[int, TapScale] = tap_scales(trunk) if isinstance(trunk, Part) else {}
        parts = {entry.part: entry for entry in chosen.values()}
        found: dict[str, Form] = {name: self.plan.parts[known[name].part] for name in parts if name in known}
        left = {
            name: entry for name, entry in parts.items() if name not in found and quantizable(self.plan.parts[name])
        }
        for tap in sorted({entry.document.tap for entry in left.values()}):  # the values of one tap at a time
            with ExitStack() as stack:
                run = open_form(self.plan.parts[self.tree.trunk], trunk, [f"tap_{tap}"], stack)
                values = [run(crops)[f"tap_{tap}"] for crops in self._calibration()]
            for name, entry in left.items():
                if entry.document.tap == tap:
                    part, scale = self.plan.parts[name], scales.get(tap)
                    found[name] = quantize_branch(part, entry.document, values, scale, self.method)
        return found

    def _label(
        self, entry: BranchEntry, trunk: Figures | None, branch: Figures | None, failed: bool, left: str
    ) -> LabelLowering:
        lowered = branch is not None and not failed
        now = branch if lowered else trunk
        passed = now is None or now.passes(self.tolerance)
        tap = entry.document.tap
        return LabelLowering(entry.label, entry.part, tap, lowered, trunk, branch, passed, "" if branch else left)

    def _calibration(self) -> Iterator[Floats]:
        return read_batches(self.crops.calibration, self.tree.document.crop, _AT_ONCE, self.step)

    def _scores(self, trunk: Form, entries: Mapping[str, BranchEntry], forms: Mapping[str, Form]) -> dict[str, Floats]:
        """Label -> float32[N, C] over all judged crops, for the labels that `forms` has a branch for."""
        found: dict[str, list[Floats]] = {label: [] for label in forms}
        if not forms:
            return {}
        taps = {label: f"tap_{entries[label].document.tap}" for label in forms}
        with ExitStack() as stack:
            run = open_form(self.plan.parts[self.tree.trunk], trunk, sorted(set(taps.values())), stack)
            branches = {
                label: open_form(self.plan.parts[entries[label].part], form, ["scores"], stack)
                for label, form in forms.items()
            }
            for crops in read_batches(self.crops.judged, self.tree.document.crop, _AT_ONCE, self.step):
                values = run(crops)
                for label, branch in branches.items():
                    found[label].append(branch(values[taps[label]])["scores"])
        return {label: np.concatenate(rows) for label, rows in found.items()}

    def _figures(
        self, entries: Mapping[str, BranchEntry], found: Mapping[str, Floats], wanted: Mapping[str, Floats]
    ) -> dict[str, Figures]:
        compared = {}
        for label, scores in found.items():
            document, targets = entries[label].document, self.crops.targets.get(label, {})
            compared[label] = figures_of(document.classes, document.thresholds, scores, wanted[label], targets)
        return compared


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[_Step]:
    """A step to call with the number of crops that are done."""
    from tqdm import tqdm

    with tqdm(total=total, unit="crop", desc="lowering", disable=not progress, leave=False) as bar:
        yield bar.update
