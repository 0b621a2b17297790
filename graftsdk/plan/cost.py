"""What a plan costs, label by label: pure arithmetic over the documents in its manifest.

The cost law of a tree, in multiply-adds for one crop: D(k) = stem and blocks 0..k-1 of the trunk; label i taps at t_i,
its own blocks end at u_i, h_i is its pooling and classifier:

    cost = D(max t_i) + sum_i [ D(u_i) - D(t_i) + h_i ]

What stands in the brackets is what each branch states of itself (narrower own blocks cost less). One network is the
whole trunk, D(B): its own head is thousands of times smaller (InceptionV3: 4 thousand multiply-adds for two classes,
of 5.7 thousand million).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graftsdk.plan.documents import BranchDocument, ExportedBranch, ExportedTrunk, TrunkDocument
from graftsdk.plan.manifest import Manifest
from graftsdk.text import counted, one_line

__all__ = ["LabelCost", "PlanCost", "TrunkCost", "cost_table", "plan_cost", "tree_cost"]

Reported = Callable[[str, Sequence[str], Mapping[str, float]], Sequence[str]]


@dataclass(frozen=True)
class LabelCost:
    """One branch's row.

    Attributes:
        label, classes, tap, until: see BranchDocument. reported: the labels that it reports.
        parameters, macs: of its own blocks, pooling and classifier, for one crop.
        share: of the plan's multiply-adds, 0..1.
        torch_difference, flips, samples: see ExportedBranch.
    """

    label: str
    reported: tuple[str, ...]
    classes: tuple[str, ...]
    tap: int
    until: int
    parameters: int
    macs: int
    share: float
    torch_difference: float
    flips: int
    samples: int


@dataclass(frozen=True)
class TrunkCost:
    """One trunk's row: what runs of it, up to the deepest tap that a label reads.

    Attributes:
        arch, blocks: see TrunkDocument. tap: the deepest that is read.
        parameters, macs: of stem and blocks 0..tap-1. network: multiply-adds of the whole trunk, "one network".
        share: of the plan's multiply-adds, 0..1.
    """

    arch: str
    blocks: int
    tap: int
    parameters: int
    macs: int
    network: int
    share: float


@dataclass(frozen=True)
class PlanCost:
    """Every trunk's and label's row, and the sums.

    Attributes:
        macs, parameters: of everything that runs for one crop.
        networks: the cost in whole networks. separate: networks that as many labels would run without sharing.
    """

    trunks: tuple[TrunkCost, ...]
    labels: tuple[LabelCost, ...]
    macs: int
    parameters: int
    networks: float
    separate: int

    @property
    def saving(self) -> float:
        """How many times cheaper than separate networks; 0 where nothing runs."""
        return self.separate / self.networks if self.networks else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        found = asdict(self)
        for row in found["labels"]:
            row["reported"], row["classes"] = list(row["reported"]), list(row["classes"])
        found["trunks"], found["labels"] = list(found["trunks"]), list(found["labels"])
        return found | {"saving": self.saving}


def plan_cost(manifest: Manifest, reported: Reported) -> PlanCost:
    """What the plan costs. `reported` tells which labels a branch reports: graftsdk.prediction.reported_labels."""
    trees = [(tree.document, [branch.document for branch in tree.branches]) for tree in manifest.trees]
    return _cost(trees, reported)


def tree_cost(trunk: TrunkDocument, branches: Sequence[BranchDocument], reported: Reported) -> PlanCost:
    """What one tree costs, before there is a plan. Requires: documents of exported parts."""
    return _cost([(trunk, branches)], reported)


def _cost(trees: Sequence[tuple[TrunkDocument, Sequence[BranchDocument]]], reported: Reported) -> PlanCost:
    trunks, labels, networks = [], [], 0.0
    total = sum(_tree_macs(trunk, branches) for trunk, branches in trees)
    for trunk, branches in trees:
        exported, tap = _trunk(trunk), _deepest(branches)
        if tap is not None:
            macs, network = exported.macs[tap], exported.macs[-1]
            networks += _tree_macs(trunk, branches) / network if network else 0.0
            share = _share(macs, total)
            trunks.append(TrunkCost(trunk.arch, trunk.blocks, tap, exported.parameters[tap], macs, network, share))
        labels += [_label(branch, total, reported) for branch in branches]
    parameters = sum(row.parameters for row in trunks) + sum(row.parameters for row in labels)
    return PlanCost(tuple(trunks), tuple(labels), total, parameters, networks, len(labels))


def _tree_macs(trunk: TrunkDocument, branches: Sequence[BranchDocument]) -> int:
    tap = _deepest(branches)
    return 0 if tap is None else _trunk(trunk).macs[tap] + sum(_branch(branch).macs for branch in branches)


def _deepest(branches: Sequence[BranchDocument]) -> int | None:
    return max((branch.tap for branch in branches), default=None)


def _label(branch: BranchDocument, total: int, reported: Reported) -> LabelCost:
    exported = _branch(branch)
    return LabelCost(
        label=branch.label,
        reported=tuple(reported(branch.label, branch.classes, branch.thresholds)),
        classes=branch.classes,
        tap=branch.tap,
        until=branch.until,
        parameters=exported.parameters,
        macs=exported.macs,
        share=_share(exported.macs, total),
        torch_difference=exported.torch_difference,
        flips=exported.flips,
        samples=exported.samples,
    )


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def _trunk(document: TrunkDocument) -> ExportedTrunk:
    assert document.exported is not None  # every part in a plan is exported: the manifest is checked for it
    return document.exported


def _branch(document: BranchDocument) -> ExportedBranch:
    assert document.exported is not None
    return document.exported


_HEAD = ("label", "reports", "classes", "tap", "parameters", "MMAC", "share", "difference", "flips")


def cost_table(cost: PlanCost) -> str:
    """The rows as aligned text, the sums below; label text is shown on one line, whatever it holds."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for trunk in cost.trunks:
        part = f"trunk {trunk.arch}", "", "", f"0..{trunk.tap}"
        rows.append((*part, f"{trunk.parameters:,}", _mega(trunk.macs), f"{trunk.share:.1%}", "", ""))
    for row in cost.labels:
        tap = f"{row.tap}" if row.until == row.tap else f"{row.tap}..{row.until}"
        flips = f"{row.flips}/{row.samples}" if row.samples else "no samples"
        what = _cell(row.label), _cell(", ".join(row.reported)), _cell(", ".join(row.classes)), tap
        numbers = f"{row.parameters:,}", _mega(row.macs), f"{row.share:.1%}", f"{row.torch_difference:.1e}", flips
        rows.append((*what, *numbers))
    rows.append(("total", "", "", "", f"{cost.parameters:,}", _mega(cost.macs), f"{bool(cost.macs):.1%}", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for values in rows:
        cells = [
            value.ljust(width) if column < 3 else value.rjust(width)
            for column, (value, width) in enumerate(zip(values, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    ending = (
        f"{cost.networks:.2f} networks for {counted(len(cost.labels), 'label')}, "
        f"against {counted(cost.separate, 'separate network')}: {cost.saving:.2f} times less"
    )
    return "\n".join((*lines, ending))


def _mega(macs: int) -> str:
    return f"{macs / 1e6:,.1f}"


def _cell(text: str, limit: int = 40) -> str:
    plain = one_line(text)
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
