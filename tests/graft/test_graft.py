"""Parts and labels become one graph: what is in it, how it is named, and that it computes what the parts compute."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import toys

from graftsdk.engines.layout import partition
from graftsdk.errors import InputError
from graftsdk.graft import Group, externalize, graft, graft_group, joints_of, merged_group
from graftsdk.plan import Plan, load_plan, open_plan
from graftsdk.plan.edit import create_plan, merge_plans
from graftsdk.plan.onnx_part import model_from_part

ALL, OFF = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return toys.plan(tmp_path / "engine.plan", ("child", "gender", "backpack", "hat"))


def run(
    model: ir.Model, feeds: Mapping[str, np.ndarray], level: onnxruntime.GraphOptimizationLevel = ALL
) -> dict[str, np.ndarray]:
    """Every output of a model, run by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def one_after_another(
    plan: Plan, labels: Sequence[str], crops: np.ndarray, level: object = ALL
) -> dict[str, np.ndarray]:
    """The scores of each label: its whole trunk alone, then its branch alone."""
    found = {}
    for label in labels:
        tree, entry = plan.manifest.find(label)  # type: ignore[misc]
        taps = run(model_from_part(plan.parts[tree.trunk]), {"crops": crops}, level)
        tap = taps[f"tap_{entry.document.tap}"]
        found[label] = run(model_from_part(plan.parts[entry.part]), {"tap": tap}, level)["scores"]
    return found


def output(plan: Plan, label: str) -> str:
    return f"{joints_of(plan.manifest, [label])[label].branch}/scores"


def names(model: ir.Model) -> set[str]:
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph.all_nodes() for value in node.outputs]
    return {value.name or "" for value in values} | {node.name or "" for node in model.graph.all_nodes()}


def test_everything_is_named_by_its_part(plan: Plan) -> None:
    model = graft(plan)
    assert [value.name for value in model.graph.inputs] == ["crops"]
    prefixes = {name.split("/")[0] for name in names(model)}
    assert prefixes == set(plan.parts) | {"crops"}
    assert {value.name for value in model.graph.outputs} == {output(plan, label) for label in plan.labels}
    assert (model.ir_version, dict(model.opset_imports)) == (10, {"": 18})


@pytest.mark.parametrize("level", [ALL, OFF])
def test_a_graft_computes_what_its_parts_compute(plan: Plan, level: object) -> None:
    crops = toys.crops(3)
    onnx.checker.check_model(ir.to_proto(graft(plan)), full_check=True)
    ours = run(graft(plan), {"crops": crops}, level)  # type: ignore[arg-type]
    for label, scores in one_after_another(plan, plan.labels, crops, level).items():
        assert ours[output(plan, label)].tobytes() == scores.tobytes()
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_subset_of_labels(plan: Plan, count: int) -> None:
    crops = toys.crops(2)
    whole = run(graft(plan), {"crops": crops})
    for labels in itertools.combinations(plan.labels, count):
        some = run(graft(plan, labels), {"crops": crops})
        assert set(some) == {output(plan, label) for label in labels}
        for name, scores in some.items():
            assert scores.tobytes() == whole[name].tobytes()


@pytest.mark.parametrize("label, tap", [("child", 0), ("gender", 1), ("backpack", 2), ("hat", 3)])
def test_blocks_past_the_deepest_tap_are_not_inside(plan: Plan, label: str, tap: int) -> None:
    model = graft(plan, [label])
    trunk = plan.manifest.trees[0].trunk
    convolutions = [node.name for node in model.graph if node.op_type == "Conv" and node.name.startswith(trunk)]
    assert convolutions == [f"{trunk}/conv{k}" for k in range(tap + 1)]
    weights = {name for name in model.graph.initializers if name.startswith(trunk)}
    assert weights == {f"{trunk}/block{k}.{kind}" for k in range(tap + 1) for kind in ("weight", "bias")}


def test_the_trunk_is_inside_once_and_branches_stand_together(plan: Plan) -> None:
    owners = [(node.name or "").split("/")[0] for node in graft(plan).graph]
    assert len([owner for owner, _ in itertools.groupby(owners)]) == len(set(owners)) == 5
    assert owners[0] == plan.manifest.trees[0].trunk


def test_weights_are_views_of_the_plan(plan: Plan) -> None:
    model = graft(plan)
    for name, value in model.graph.initializers.items():
        part, _, initialiser = name.partition("/")
        if initialiser in plan.parts[part].tensors:
            assert np.shares_memory(value.const_value.numpy(), plan.parts[part].tensors[initialiser])  # type: ignore[union-attr]


def test_order_plays_no_part(plan: Plan, tmp_path: Path) -> None:
    labels = list(plan.labels)
    key = merged_group(joints_of(plan.manifest, labels)).key(plan.manifest)
    content = externalize(graft(plan, labels))[0]
    for seed in range(5):
        random.Random(seed).shuffle(labels)
        group = merged_group(joints_of(plan.manifest, labels))
        assert group.key(plan.manifest) == key
        assert externalize(graft(plan, labels))[0] == content
    assert list(joints_of(plan.manifest, labels)) == labels  # the order asked for is kept here
    # Nor does the order in which labels were added, or what they are called.
    stock = toys.trunk()
    entries = [toys.branch(f"l{index}", index % 4, seed=index, on=stock[1]) for index in range(4)]
    create_plan(tmp_path / "1", stock, entries)
    create_plan(tmp_path / "2", stock, [(part, replace(doc, label=f"x{doc.label}")) for part, doc in reversed(entries)])
    with open_plan(tmp_path / "1") as one, open_plan(tmp_path / "2") as two:
        assert externalize(graft(one))[0] == externalize(graft(two))[0]
        keys = {merged_group(joints_of(each.manifest)).key(each.manifest) for each in (one, two)}
        assert len(keys) == 1


def test_keys_differ_where_graphs_do(plan: Plan) -> None:
    groups = [merged_group(joints_of(plan.manifest, labels)) for n in (1, 2, 3, 4) for labels in
              itertools.combinations(plan.labels, n)]  # fmt: skip
    groups += partition(joints_of(plan.manifest), "split")
    trunk = plan.manifest.trees[0].trunk
    groups += [Group(trunks=(trunk,), taps=((trunk, 0),)), Group(trunks=(trunk,), taps=((trunk, 1),))]
    keys = {group.key(plan.manifest) for group in groups}
    assert len(keys) == len(set(groups)) == len(groups)


def test_split_gives_the_bits_of_merged(plan: Plan) -> None:
    crops = toys.crops(2)
    whole = run(graft(plan), {"crops": crops})
    values = {"crops": crops}
    for group in partition(joints_of(plan.manifest), "split"):
        model = graft_group(plan, group)
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        assert {value.name for value in model.graph.inputs} == set(group.inputs)
        assert tuple(value.name for value in model.graph.outputs) == group.outputs
        values |= run(model, {name: values[value] for name, value in group.inputs.items()})
    for name, scores in whole.items():
        assert values[name].tobytes() == scores.tobytes()


def test_two_trees(tmp_path: Path) -> None:
    toys.write(tmp_path / "1", ("child", "gender"))
    stock = toys.trunk(5)
    create_plan(
        tmp_path / "2", stock, [toys.branch("hat", 2, seed=8, on=stock[1]), toys.branch("bag", 0, seed=9, on=stock[1])]
    )
    merge_plans(tmp_path / "1", tmp_path / "2", tmp_path / "both")
    crops = toys.crops(2)
    with load_plan(tmp_path / "both") as plan:
        model = graft(plan)
        assert [value.name for value in model.graph.inputs] == ["crops"]
        ours = run(model, {"crops": crops})
        for label, scores in one_after_another(plan, plan.labels, crops).items():
            assert ours[output(plan, label)].tobytes() == scores.tobytes()
        only = graft(plan, ["hat"])
        assert plan.manifest.trees[0].trunk not in {name.split("/")[0] for name in names(only)}


def test_one_part_under_two_labels_is_computed_once(tmp_path: Path) -> None:
    part, document = toys.branch("child", 1)
    create_plan(tmp_path / "p", toys.trunk(), [(part, document), (part, replace(document, label="minor"))])
    with load_plan(tmp_path / "p") as plan:
        assert plan.labels == ("child", "minor")
        model = graft(plan)
        assert [value.name for value in model.graph.outputs] == [f"{part.name}/scores"]
        assert run(model, {"crops": toys.crops(1)})


@pytest.mark.parametrize(
    "labels", [[], ["nobody"], ["child", "child"], "child", ["Child"], ["child", "nobody"], [""], ["child\0"]]
)
def test_labels_that_cannot_be_asked_for(plan: Plan, labels: Sequence[str]) -> None:
    with pytest.raises(InputError):
        graft(plan, labels)


def test_a_plan_without_labels(tmp_path: Path) -> None:
    create_plan(tmp_path / "p", toys.trunk(), [])
    with load_plan(tmp_path / "p") as plan, pytest.raises(InputError, match="the plan has none"):
        graft(plan)


def test_200_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stock = toys.trunk()
    create_plan(
        tmp_path / "p", stock, [toys.branch(f"l{index}", index % 4, seed=index, on=stock[1]) for index in range(200)]
    )
    with load_plan(tmp_path / "p") as plan:
        began = time.perf_counter()
        model = graft(plan)
        grafted = time.perf_counter()
        content, weights = externalize(model)
        with capsys.disabled():
            print(f"\n200 labels: grafted in {grafted - began:.3f} s, {len(content)} bytes without the weights")
        assert len(model.graph.outputs) == 200
        assert len(weights) == 200 + 4  # a weight of 1 KiB and more for each branch, four of the trunk
        ours = run(model, {"crops": toys.crops(1)})
        for label in ("l0", "l77", "l199"):
            assert (
                ours[output(plan, label)].tobytes() == one_after_another(plan, [label], toys.crops(1))[label].tobytes()
            )


def test_externalize(plan: Plan) -> None:
    model = graft(plan)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    content, weights = externalize(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    proto = onnx.ModelProto.FromString(content)
    outside = {tensor.name for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL}
    assert outside == set(weights)
    assert all(array.nbytes >= 1024 for array in weights.values())
    options = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    options.add_external_initializers(list(weights), values)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    whole = run(model, {"crops": toys.crops(2)})
    for name, scores in zip(whole, session.run(list(whole), {"crops": toys.crops(2)}), strict=True):
        np.testing.assert_allclose(scores, whole[name], atol=1e-6)
