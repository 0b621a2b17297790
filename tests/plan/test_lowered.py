"""Parts in lower precision: what a plan says of them, what it refuses, and that nothing else of it moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from plan import forge

from graftsdk.errors import GraftError, InputError, PlanCorrupt
from graftsdk.lifecycle.changes import compare_manifests
from graftsdk.plan import Part, load_plan, open_plan
from graftsdk.plan.edit import merge_plans, remove_label, revert_label
from graftsdk.plan.edit_lowered import store_lowered
from graftsdk.plan.lowered import Lowered

PASSED = Lowered("", True, 40, 0.01, 0.001, 1, -0.0004, 0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toys.write(tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


def part_of(path: Path, label: str) -> str:
    with open_plan(path) as plan:
        found = plan.manifest.find(label)
        assert found is not None
        return found[1].part


def trunk_of(path: Path) -> str:
    with open_plan(path) as plan:
        return plan.manifest.trees[0].trunk


def stand_in(path: Path, name: str, fill: int = 1) -> Part:
    """A part that plays the INT8 form of another: the format does not look into graphs."""
    with load_plan(path) as plan:
        part = plan.parts[name]
        return Part(part.role, part.graph, {"weight": np.full(2048, fill, np.int8)})


def test_a_lowered_part_lies_beside_the_one_in_float32(path: Path) -> None:
    child = part_of(path, "child")
    with load_plan(path) as before:
        bytes_before = {name: bytes(before.parts[name].graph) for name in before.parts}
        infos = dict(before.manifest.parts)
    form = stand_in(path, child)
    store_lowered(path, "int8", {child: replace(PASSED, part=form.name)}, [form])
    with load_plan(path) as plan:
        assert plan.manifest.forms("int8") == {child: form.name}
        assert plan.manifest.parts[form.name].precision == "int8"
        assert plan.manifest.lowered["int8"][child] == replace(PASSED, part=form.name)
        assert {name: plan.manifest.parts[name] for name in infos} == infos
        assert {name: bytes(plan.parts[name].graph) for name in bytes_before} == bytes_before
        np.testing.assert_array_equal(plan.parts[form.name].tensors["weight"], np.ones(2048, np.int8))


def test_a_part_that_did_not_pass_is_not_computed_so(path: Path) -> None:
    child, gender = part_of(path, "child"), part_of(path, "gender")
    form = stand_in(path, gender)
    failed = replace(PASSED, passed=False, flips=9)
    store_lowered(path, "int8", {child: failed, gender: replace(PASSED, part=form.name)}, [form])
    store_lowered(path, "fp16", {child: failed})
    with load_plan(path) as plan:
        every = {plan.manifest.trees[0].trunk, *(part_of(path, label) for label in plan.labels)}
        assert plan.manifest.forms("int8") == {gender: form.name}
        assert plan.manifest.forms("fp16") == dict.fromkeys(every - {child}, "fp16")
        assert plan.manifest.forms("bf16") == dict.fromkeys(every, "bf16")  # nobody looked: a pass that needs no proof
        assert plan.manifest.forms("float32") == {}
        with pytest.raises(InputError, match="precision: expected one of float32, fp16, bf16, int8, found 'int4'"):
            plan.manifest.forms("int4")


def test_a_second_try_takes_the_place_of_the_first(path: Path) -> None:
    child = part_of(path, "child")
    first, second = stand_in(path, child, 1), stand_in(path, child, 2)
    store_lowered(path, "int8", {child: replace(PASSED, part=first.name)}, [first])
    store_lowered(path, "int8", {child: replace(PASSED, part=second.name)}, [second])
    with load_plan(path) as plan:
        assert plan.manifest.forms("int8") == {child: second.name}
        assert first.name not in plan.manifest.parts
        assert not [name for name in plan.manifest.tensors if name.startswith(first.name)]


def test_a_removed_label_keeps_what_is_known_of_it(path: Path) -> None:
    child = part_of(path, "child")
    form = stand_in(path, child)
    store_lowered(path, "int8", {child: replace(PASSED, part=form.name)}, [form])
    remove_label(path, "child")
    with load_plan(path) as plan:
        assert plan.manifest.forms("int8") == {child: form.name}


def test_all_anew_forgets_what_was_judged_on_other_trunks(path: Path) -> None:
    child, gender = part_of(path, "child"), part_of(path, "gender")
    first, second = stand_in(path, child), stand_in(path, gender)
    store_lowered(path, "int8", {child: replace(PASSED, part=first.name)}, [first])
    remove_label(path, "child")
    store_lowered(path, "int8", {gender: replace(PASSED, part=second.name)}, [second], again=True)
    revert_label(path, "child")
    with load_plan(path) as plan:
        assert plan.manifest.forms("int8") == {gender: second.name} and first.name not in plan.manifest.parts
    store_lowered(path, "int8", {}, again=True)
    with load_plan(path) as plan:
        assert plan.manifest.lowered == {} and plan.manifest.forms("int8") == {}


@pytest.mark.parametrize("ours", ["alike", "otherwise", "failed", "never"])
def test_a_verdict_holds_on_its_trunk_alone(path: Path, tmp_path: Path, ours: str) -> None:
    other, both = tmp_path / "other.plan", tmp_path / "both.plan"
    toys.write(other, ["hat"])  # on the same trunk
    hat, trunk = part_of(other, "hat"), trunk_of(other)
    form, stem, odd = stand_in(other, hat), stand_in(other, trunk), stand_in(other, trunk, 2)
    records = {hat: replace(PASSED, part=form.name), trunk: replace(PASSED, part=stem.name)}
    store_lowered(other, "int8", records, [form, stem])
    if ours == "alike":
        store_lowered(path, "int8", {trunk: records[trunk]}, [stem])
    elif ours == "otherwise":
        store_lowered(path, "int8", {trunk: replace(PASSED, part=odd.name)}, [odd])
    elif ours == "failed":
        store_lowered(path, "int8", {trunk: replace(PASSED, passed=False)})
    merge_plans(path, other, both)
    expected = {"alike": {trunk: stem.name, hat: form.name}, "otherwise": {trunk: odd.name}}.get(ours, {})
    with load_plan(both) as plan:
        assert plan.manifest.forms("int8") == expected and plan.manifest.find("hat") is not None


def test_what_is_computed_otherwise_is_told(path: Path) -> None:
    with load_plan(path) as plan:
        before = plan.manifest
    child = part_of(path, "child")
    form = stand_in(path, child)
    store_lowered(path, "int8", {child: replace(PASSED, part=form.name)}, [form])
    store_lowered(path, "fp16", {trunk_of(path): replace(PASSED, passed=False)})
    with load_plan(path) as plan:
        change = compare_manifests(before, plan.manifest)
    assert change.changes == () and change.kept == ("child", "gender", "backpack")
    assert change.otherwise == {"int8": ("child",), "fp16": ("child", "gender", "backpack")}


@pytest.mark.parametrize("swapped", [False, True])
def test_merged_plans_bring_their_lowered_parts(path: Path, tmp_path: Path, swapped: bool) -> None:
    other, both = tmp_path / "other.plan", tmp_path / "both.plan"
    toys.write(other, ["hat"], seed=3)
    hat, trunk = part_of(other, "hat"), trunk_of(other)
    form, stem = stand_in(other, hat), stand_in(other, trunk)
    records = {hat: replace(PASSED, part=form.name), trunk: replace(PASSED, part=stem.name)}
    store_lowered(other, "int8", records, [form, stem])
    merge_plans(*((other, path) if swapped else (path, other)), both)
    with load_plan(both) as plan:
        assert plan.manifest.forms("int8") == {hat: form.name, trunk: stem.name}


@pytest.mark.parametrize(
    "record",
    [
        lambda path, form: ("int8", {part_of(path, "child"): PASSED}, []),  # passed, without a part
        lambda path, form: ("fp16", {part_of(path, "child"): replace(PASSED, part=form.name)}, [form]),
        lambda path, form: ("int8", {trunk_of(path): replace(PASSED, part=form.name)}, [form]),  # another role
        lambda path, form: ("int8", {"0" * 16: PASSED}, []),
        lambda path, form: ("int8", {part_of(path, "child"): replace(PASSED, part="0" * 16)}, []),
        lambda path, form: ("int8", {part_of(path, "child"): replace(PASSED, part=trunk_of(path))}, []),
        lambda path, form: ("int8", {}, [form]),
        lambda path, form: ("fp16", {part_of(path, "child"): replace(PASSED, largest=1.5)}, []),
        lambda path, form: ("fp16", {part_of(path, "child"): replace(PASSED, mean=float("nan"))}, []),
        lambda path, form: ("fp16", {part_of(path, "child"): replace(PASSED, samples=-1)}, []),
        lambda path, form: ("int4", {part_of(path, "child"): PASSED}, []),
    ],
)
def test_records_that_do_not_fit_are_not_written(path: Path, record: Callable[..., Any]) -> None:
    before = path.read_bytes()
    precision, records, parts = record(path, stand_in(path, part_of(path, "child")))
    with pytest.raises(PlanCorrupt):
        store_lowered(path, precision, records, parts)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda lowered: lowered["fp16"].clear(),
        lambda lowered: lowered.update(fp8=lowered["fp16"]),
        lambda lowered: next(iter(lowered["fp16"].values())).pop("flips"),
        lambda lowered: next(iter(lowered["fp16"].values())).update(module="os"),
        lambda lowered: next(iter(lowered["fp16"].values())).update(passed=1),
        lambda lowered: lowered.update(fp16=[]),
    ],
)
def test_what_a_file_says_wrongly_is_refused(path: Path, change: Callable[[Any], Any]) -> None:
    store_lowered(path, "fp16", {part_of(path, "child"): PASSED})
    header, manifest, body = forge.split(path.read_bytes())
    change(manifest["lowered"])
    with pytest.raises(GraftError) as caught:
        load_plan(forge.join(header, manifest, body))
    assert isinstance(caught.value, PlanCorrupt)


def test_a_tree_in_int8_is_refused(path: Path) -> None:
    child = part_of(path, "child")
    header, manifest, body = forge.split(path.read_bytes())
    manifest["parts"][child]["precision"] = "int8"
    with pytest.raises(PlanCorrupt, match=f"expected part {child} to be a branch in float32, found a branch in int8"):
        load_plan(forge.join(header, manifest, body))
