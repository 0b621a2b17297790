"""What a plan's multiply-adds promise, held against what its engine takes here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftsdk.engines import Engine, open_engine
from graftsdk.engines.layout import graphs_of
from graftsdk.graft import Group, tap_name
from graftsdk.lifecycle.turns import Spread, spread
from graftsdk.plan import Plan
from graftsdk.plan.cost import tree_cost
from graftsdk.prediction import reported_labels

__all__ = ["EngineRow", "Promise"]


@dataclass(frozen=True)
class EngineRow:
    """Prepared crops to scores, milliseconds a crop.

    Attributes:
        batch: crops at once. spent: of one crop.
        network_ms: of one crop in the whole trunk alone, the network that other models would run once a label; the
            fastest run.
        expected_ms: what the plan's multiply-adds promise: its cost in networks times `network_ms`.
        networks: what the plan cost here, in networks; by the fastest runs.
    """

    batch: int
    spent: Spread
    network_ms: float
    expected_ms: float
    networks: float

    @property
    def measured_to_expected(self) -> float:
        """Measured / expected, by the fastest runs: 1 is what the plan promises."""
        return self.spent.least_ms / self.expected_ms if self.expected_ms else 0.0


class Promise:
    """What the documents of some labels say they cost, and the whole trunks against which that is held.

    Args:
        plan: an open plan. labels: those that are computed.
        forms: how parts are computed that are not in float32, see `Manifest.forms`; the whole trunks too.

    Attributes:
        trunks: architecture and crop of each trunk that runs. macs: multiply-adds of a crop.
        values: trunk part -> name of the value behind its last block.
    """

    def __init__(self, plan: Plan, labels: Sequence[str], forms: Mapping[str, str] | None = None) -> None:
        self._plan = plan
        self._networks: dict[str, float] = {}  # trunk part -> cost of what runs on it, in whole ones of it
        self._groups: list[Group] = []
        self.values: dict[str, str] = {}
        self.macs = 0
        names = []
        for tree in plan.manifest.trees:
            chosen = [branch.document for branch in tree.branches if branch.document.label in labels]
            if chosen:
                cost = tree_cost(tree.document, chosen, reported_labels)
                height, width = tree.document.crop.size
                names.append(f"{tree.document.arch} {height}x{width}")
                self.macs += cost.macs
                self._networks[tree.trunk] = cost.networks
                last = (tree.trunk, tree.document.blocks)
                self._groups.append(Group(trunks=(tree.trunk,), taps=(last,)).lowered(forms or {}))
                self.values[tree.trunk] = tap_name(*last)
        self.trunks = tuple(names)

    @property
    def networks(self) -> float:
        """Cost of a crop in whole networks, by multiply-adds."""
        return sum(self._networks.values())

    def open(self, device: str, threads: int | None) -> Engine:
        """The whole trunks alone, all their blocks. Not kept in the engine cache: nobody else asks for them."""
        return open_engine(graphs_of(self._plan, tuple(self._groups)), device=device, threads=threads, cache=False)

    def row(self, batch: int, plan: Sequence[float], trunks: Mapping[str, Sequence[float]]) -> EngineRow:
        """Milliseconds of the runs of the plan's engine, and of each trunk alone (part -> runs), to a row."""
        spent = spread(plan, batch)
        alone = {name: spread(trunks[name], batch) for name in self._networks}
        expected = sum(self._networks[name] * each.least_ms for name, each in alone.items())
        # Of several trunks: the mean network, weighed by what runs on each.
        network_ms = expected / self.networks if expected else min(each.least_ms for each in alone.values())
        return EngineRow(batch, spent, network_ms, expected, spent.least_ms / network_ms)
