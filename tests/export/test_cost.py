"""The cost law on inception_v3's documents, and the table. No weights are needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from graftsdk.plan import BranchDocument, CropSpec, ExportedBranch, ExportedTrunk, Manifest, TrunkDocument
from graftsdk.plan.cost import PlanCost, cost_table, plan_cost, tree_cost
from graftsdk.plan.manifest import BranchEntry, Tree
from graftsdk.prediction import reported_labels

CROP = CropSpec((299, 299))
# Multiply-adds of torchvision's InceptionV3 at 299x299, cumulative, in 10^5: stem, then blocks 0..10; and parameters.
MACS = tuple(int(x * 1e5) for x in (13408, 16531, 19918, 23399, 27418, 31159, 36036, 40913, 47092, 50002, 53227, 57112))
PARAMETERS = (172672, 428576, 706048, 991200, 2144480, 3441888, 5132896, 6823904, 8965856, 10664160, 15708768, 21785568)
TRUNK = TrunkDocument("inception_v3", 1.0, CROP, ("0" * 64,) * 12, exported=ExportedTrunk(MACS, PARAMETERS))
HEAD = 2 * 2048


def branch(
    label: str, tap: int, until: int = 11, macs: int = 0, classes: tuple[str, ...] = ("no", "yes")
) -> BranchDocument:
    own = macs or MACS[until] - MACS[tap] + HEAD
    record = ExportedBranch(own, PARAMETERS[until] - PARAMETERS[tap] + HEAD + 2, ((0.5, 0.5),) * 4, 1e-6, 9, 1)
    return BranchDocument(label, classes, "inception_v3", 1.0, CROP, "0" * 64, tap, until, "gap", 1.0, exported=record)


def at(taps: list[int]) -> PlanCost:
    return tree_cost(TRUNK, [branch(f"label {index}", tap) for index, tap in enumerate(taps)], reported_labels)


def test_the_reference_plan_of_18_labels() -> None:
    child = branch("child", 6, 8, macs=int(1277e6))  # blocks 6 and 7, outer product, classifier of 589,824 inputs
    documents = [branch(f"{index}", tap) for index, tap in enumerate([9] * 9 + [8] * 5 + [10] * 2 + [6])]
    cost = tree_cost(TRUNK, [*documents, child], reported_labels)
    assert round(cost.macs / 1e9, 1) == 20.9
    assert round(cost.networks, 2) == 3.66
    assert cost.separate == 18
    assert sum(row.share for row in (*cost.trunks, *cost.labels)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("tap", "saving", "parameters"),
    [(1, 1.38, 385), (3, 1.63, 375), (4, 1.83, 356), (5, 2.06, 334), (6, 2.47, 305), (7, 3.09, 276), (8, 4.52, 240),
     (9, 5.78, 211), (10, 8.35, 125)],
)  # fmt: skip
def test_18_labels_at_one_tap(tap: int, saving: float, parameters: int) -> None:
    cost = at([tap] * 18)
    assert cost.saving == pytest.approx(saving, abs=0.006)
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=0.6)


def test_labels_at_the_last_tap_cost_their_heads_only() -> None:
    assert at([11] * 18).macs == MACS[11] + 18 * HEAD
    assert at([11] * 18).networks == pytest.approx(1.0, abs=1e-4)


def test_the_trunk_runs_to_the_deepest_tap_only() -> None:
    assert at([6, 6]).trunks[0].tap == 6
    assert at([6, 9]).trunks[0].macs == MACS[9]


def test_two_trees_are_added_up() -> None:
    trees = tuple(Tree(name, TRUNK, (BranchEntry("p", branch(name, tap)),)) for name, tap in (("a", 9), ("b", 11)))
    cost = plan_cost(Manifest(CROP, trees, None, {}, {}), reported_labels)
    assert cost.macs == 2 * MACS[11] + 2 * HEAD
    assert cost.networks == pytest.approx(2.0, abs=1e-4) and cost.separate == 2
    assert plan_cost(Manifest(CROP, (Tree("a", TRUNK),), None, {}, {}), reported_labels).networks == 0.0


def test_the_table_is_aligned_and_the_dict_is_json() -> None:
    cost = tree_cost(TRUNK, [branch("child", 9), branch("a\nb" + "x" * 60, 11, 11)], reported_labels)
    lines = cost_table(cost).splitlines()
    assert len(lines) == 7
    assert lines[0].split() == [
        "label",
        "reports",
        "classes",
        "tap",
        "parameters",
        "MMAC",
        "share",
        "difference",
        "flips",
    ]
    assert lines[3].split() == [
        "child",
        "child",
        "no,",
        "yes",
        "9..11",
        "11,125,506",
        "711.0",
        "11.1%",
        "1.0e-06",
        "1/9",
    ]
    assert {line.index("%") for line in lines[2:6]} and "total" in lines[5]
    assert lines[-1] == "1.12 networks for 2 labels, against 2 separate networks: 1.78 times less"
    found = json.loads(json.dumps(cost.to_dict()))
    assert found["labels"][0]["label"] == "child" and found["networks"] == cost.networks


def test_no_torch_is_needed() -> None:
    script = (
        "import sys, graftsdk.plan.cost, graftsdk.export; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
