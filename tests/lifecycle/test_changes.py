from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import toys

from graftsdk.lifecycle.changes import PlanChange, compare_manifests
from graftsdk.plan import Manifest, open_plan
from graftsdk.plan.edit import add_branches, remove_label, revert_label

STOCK = toys.trunk()[1]


def manifest(path: Path) -> Manifest:
    with open_plan(path) as plan:
        return plan.manifest


def summary(change: PlanChange) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    return [(each.action, each.label) for each in change.changes], change.kept


def test_life_of_a_label(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    first = manifest(path)
    add_branches(path, [toys.branch("hat", 2, seed=9, on=STOCK)])
    added = manifest(path)
    change = compare_manifests(first, added)
    assert summary(change) == ([("added", "hat")], ("child", "gender", "backpack"))
    assert (change.tensors_kept, change.tensors_altered) == (len(first.tensors), 0)
    assert change.tensors_new == len(added.tensors) - len(first.tensors) > 0

    add_branches(path, [toys.branch("hat", 1, seed=10, on=STOCK)], replace_labels=True)
    replaced = manifest(path)
    assert summary(compare_manifests(added, replaced)) == ([("replaced", "hat")], ("child", "gender", "backpack"))
    remove_label(path, "child")
    removed = manifest(path)
    assert summary(compare_manifests(replaced, removed)) == ([("removed", "child")], ("gender", "backpack", "hat"))
    revert_label(path, "child")
    assert summary(compare_manifests(removed, manifest(path)))[0] == [("added", "child")]
    assert summary(compare_manifests(first, first)) == ([], ("child", "gender", "backpack"))


def test_another_document_keeps_the_part(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    before = manifest(path)
    (tree,) = before.trees
    entry = tree.branches[0]
    changed = replace(entry, document=replace(entry.document, thresholds={"yes": 0.9}))
    after = replace(before, trees=(replace(tree, branches=(changed, *tree.branches[1:])),))
    assert summary(compare_manifests(before, after)) == ([("described", "child")], ("child", "gender", "backpack"))


def test_altered_bytes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    before = manifest(path)
    name = next(iter(before.tensors))
    after = replace(before, tensors={**before.tensors, name: "0" * 64})
    assert compare_manifests(before, after).tensors_altered == 1
