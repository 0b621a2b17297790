from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import toys

from graftsdk.lifecycle.description import describe_cost, describe_plan
from graftsdk.lifecycle.timing import time_plan
from graftsdk.plan import open_plan
from graftsdk.plan.edit import remove_label
from graftsdk.plan.edit_lowered import store_lowered
from graftsdk.plan.lowered import Lowered


def test_plan_is_described_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    remove_label(path, "child")
    with open_plan(path) as plan:
        found = describe_plan(plan)
    json.dumps(found, allow_nan=False)
    gender, backpack = found["labels"]
    assert (gender["label"], gender["reports"], gender["tap"]) == ("gender", ["female", "male"], 1)
    assert gender["thresholds"] == {"female": 0.4, "male": 0.5}
    assert backpack["reports"] == ["backpack"]
    assert len(found["kept_for_revert"]) == 1
    assert found["history"] == 4
    assert found["bytes"] == path.stat().st_size
    parts = [*found["labels"], *found["trunks"]]
    assert sum(part["bytes"] for part in parts) < found["bytes"]
    assert found["segmenter"] is None


def test_a_label_on_a_lowered_trunk_that_nobody_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path, ["a", "b"])
    with open_plan(path) as plan:
        (tree,) = plan.manifest.trees
    trunk, (a, b) = tree.trunk, [entry.part for entry in tree.branches]
    good = Lowered("", True, 5, 0.1, 0.01, 0, None, 0.001)
    store_lowered(path, "fp16", {trunk: good, a: good})
    store_lowered(path, "bf16", {trunk: replace(good, passed=False), a: good})
    with open_plan(path) as plan:
        found = describe_plan(plan)["lowered"]
    json.dumps(found, allow_nan=False)
    told = [(row["precision"], row["of"], row["float32_part"], row["tried"], row["passed"]) for row in found]
    assert told == [
        ("fp16", ["trunk"], trunk, True, True),
        ("fp16", ["a"], a, True, True),
        ("fp16", ["b"], b, False, None),
        ("bf16", ["trunk"], trunk, True, False),
        ("bf16", ["a"], a, True, True),
    ]
    assert found[2].keys() == found[1].keys()


def test_every_label_has_its_price(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path, ["a", "b", "c", "d"])
    with open_plan(path) as plan:
        timing = time_plan(plan, repeats=3, threads=1)
        found = describe_cost(plan, timing)
    json.dumps(found, allow_nan=False)
    assert (timing.device, timing.threads, timing.repeats) == ("cpu", 1, 3)
    assert [label["label"] for label in found["labels"]] == ["a", "b", "c", "d"]
    for part in (*found["labels"], *found["trunks"]):
        assert 0 < part["least_ms"] <= part["median_ms"]
        assert part["bytes"] > 0
    (trunk,) = found["trunks"]
    assert trunk["tap"] == 3
    assert found["macs"] == trunk["macs"] + sum(label["macs"] for label in found["labels"])
    assert abs(1 - trunk["share"] - sum(label["share"] for label in found["labels"])) < 1e-9
    assert (found["networks"], found["separate_networks"]) == (found["macs"] / 4000, 4)
    assert timing.cpu
