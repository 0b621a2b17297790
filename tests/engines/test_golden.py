"""An engine's scores on the golden crops against those stored in the plan: how far, and which decisions flip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from graftsdk.attribute import decisions
from graftsdk.engines.golden import GoldenChange, check_golden
from graftsdk.errors import InputError
from graftsdk.plan import Manifest
from graftsdk.plan.documents import GOLDEN_COUNT

CROPS = np.zeros((GOLDEN_COUNT, 3, toys.SIDE, toys.SIDE), np.float32)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    with toys.plan(tmp_path / "toy.plan", ("child", "gender")) as plan:
        trees = []
        for tree in plan.manifest.trees:
            branches = []
            for entry in tree.branches:
                assert entry.document.exported is not None
                row = (0.4, 0.6) if entry.label == "child" else (0.2, 0.5, 0.3)
                exported = replace(entry.document.exported, scores=(row,) * GOLDEN_COUNT)
                branches.append(replace(entry, document=replace(entry.document, exported=exported)))
            trees.append(replace(tree, branches=tuple(branches)))
        return replace(plan.manifest, trees=tuple(trees))


def run(crops: np.ndarray, labels: Sequence[str]) -> dict[str, np.ndarray]:
    rows = {"child": (0.4, 0.6), "gender": (0.2, 0.5, 0.3)}
    return {label: np.tile(np.array(rows[label], np.float32), (len(crops), 1)) for label in labels}


def test_the_same_scores(manifest: Manifest) -> None:
    found = check_golden(run, manifest, CROPS, decisions)
    assert [(each.label, each.flips) for each in found] == [("child", 0), ("gender", 0)]
    assert max(each.largest for each in found) < 1e-7


def test_the_largest_change_and_each_flip_count(manifest: Manifest) -> None:
    def moved(crops: np.ndarray, labels: Sequence[str]) -> dict[str, np.ndarray]:
        scores = run(crops, labels)
        scores["child"][0] = (0.45, 0.55)  # no decision changes
        scores["child"][1] = (0.52, 0.48)
        return scores

    (child,) = check_golden(moved, manifest, CROPS, decisions, ["child"])
    assert (child.label, child.flips) == ("child", 1) and child.largest == pytest.approx(0.12, abs=1e-6)


@pytest.mark.parametrize("scores", [np.full((GOLDEN_COUNT, 2), np.nan, np.float32), np.zeros((1, 2), np.float32)])
def test_what_is_no_score_at_all(scores: np.ndarray, manifest: Manifest) -> None:
    def broken(crops: Any, labels: Any) -> dict[str, np.ndarray]:
        return {"child": scores}

    assert check_golden(broken, manifest, CROPS, decisions, ["child"]) == (
        GoldenChange("child", math.inf, GOLDEN_COUNT),
    )


def test_a_label_that_the_plan_has_not(manifest: Manifest) -> None:
    with pytest.raises(InputError, match="expected some of 'child', 'gender', found 'hat'"):
        check_golden(run, manifest, CROPS, decisions, ["hat"])
