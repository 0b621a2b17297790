"""One graph through the real parser and builder of tensorrt_rtx, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import toy_segmenter
import toys
from onnx import helper

from graftsdk.engines.layout import partition
from graftsdk.engines.tensorrt import find_library
from graftsdk.errors import EngineBuildError, EngineIncompatible, GraftError
from graftsdk.export.build_child import Job, load_graph
from graftsdk.export.engine_list import item_of, wanted_engines
from graftsdk.export.quantize import quantize_branch, quantize_trunk, tap_scales
from graftsdk.export.segmenter import read_segmenter
from graftsdk.export.tensorrt import Built, Wanted, build_graph, profile_of
from graftsdk.graft import joints_of
from graftsdk.plan import Part, Plan, open_plan
from graftsdk.plan.edit import create_plan
from graftsdk.plan.edit_lowered import store_lowered
from graftsdk.plan.lowered import Lowered
from graftsdk.plan.onnx_part import model_from_part, part_from_model

pytest.importorskip("tensorrt_rtx")

LIBRARY = find_library("tensorrt_rtx")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return toys.plan(tmp_path / "engine.plan")


def build(
    plan: Plan,
    *,
    layout: str = "merged",
    at: int = 0,
    precision: str = "float32",
    targets: Sequence[str] = ("8.9",),
    batches: Sequence[int] = (1, 4),
    change: Any = lambda weights: weights,
) -> tuple[Built, bytes, list[str]]:
    """What was built of a plan's group, the engine, and the phases that were told."""
    group = partition(joints_of(plan.manifest), layout, plan.manifest.forms(precision))[at]
    owners = {branch.part: f"label {branch.label!r}" for tree in plan.manifest.trees for branch in tree.branches}
    owners[plan.manifest.trees[0].trunk] = "the trunk"
    pieces: list[bytes] = []
    phases: list[str] = []
    content, weights = load_graph(plan, group)
    wanted = Wanted(tuple(targets), tuple(batches), owners, "the merged engine")
    built = build_graph(LIBRARY, content, change(weights), wanted, pieces.append, phases.append)
    return built, b"".join(pieces), phases


def refused(*args: Any, **options: Any) -> GraftError:
    with pytest.raises(GraftError) as caught:
        build(*args, **options)
    return caught.value


def with_operators(path: Path, **operators: str) -> Plan:
    """A plan whose branches of these labels have an operator of this type in front of their scores."""
    stock = toys.trunk()
    branches = []
    for index, (label, operator) in enumerate(operators.items()):
        part, document = toys.branch(label, index, on=stock[1], seed=index)
        if operator:
            part = with_node(part, operator)
        branches.append((part, document))
    create_plan(path, stock, branches)
    return open_plan(path)


def with_node(part: Part, operator: str) -> Part:
    """The part, whose scores are multiplied by the mean of what `operator` makes of its own block."""
    proto = ir.to_proto(model_from_part(part))
    proto.graph.node[-1].output[0] = "plain"
    proto.graph.node.extend(
        [
            helper.make_node(operator, ["own.relu"], ["odd"], name="odd.node"),
            helper.make_node("ReduceMean", ["odd"], ["one"], name="one", keepdims=0),
            helper.make_node("Mul", ["plain", "one"], ["scores"], name="scaled"),
        ]
    )
    return part_from_model(ir.from_proto(proto), part.role)


def test_an_engine_of_everything(plan: Plan) -> None:
    built, engine, phases = build(plan, targets=["8.6", "12.0"], batches=(4, 1, 2))
    assert engine[:4] == b"vtrt" and len(engine) == int.from_bytes(engine[16:24], "little")
    assert engine[32] == 0x4 | 0x10  # the mask of what it was built for
    assert [(port.name, port.shape, port.dtype) for port in built.inputs] == [
        ("crops", (None, 3, 32, 32), np.dtype("float32"))
    ]
    parts = [joint.branch for joint in sorted(joints_of(plan.manifest).values())]
    assert [port.name for port in built.outputs] == [f"{part}/scores" for part in parts]
    assert {port.shape for port in built.outputs} == {(None, 2), (None, 3)}
    assert [(each.least, each.best, each.most) for each in built.profiles] == [(1, 2, 4)]
    assert phases[:2] == ["checking weights", "parsing"] and "Building engine" in phases


def test_runs_can_be_captured(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that allocates by itself could not be."""
    module, configs = LIBRARY.module, []
    builder = module.Builder(LIBRARY.logger)

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(builder, name)

        def create_builder_config(self) -> Any:
            configs.append(builder.create_builder_config())
            return configs[-1]

    monkeypatch.setattr(module, "Builder", lambda logger: Watched())
    build(plan)
    (config,) = configs
    assert config.get_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert not config.get_flag(module.BuilderFlag.TF32)


def test_a_driver_that_is_too_old_for_the_builder(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(logger: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(LIBRARY.module, "Builder", nothing)
    error = refused(plan)
    assert isinstance(error, EngineBuildError) and "the NVIDIA driver may be too old" in str(error)


@pytest.mark.parametrize(("batches", "profile"), [((1, 8, 32), (1, 8, 32)), ((4,), (4, 4, 4)), ((32, 1), (1, 32, 32))])
def test_profiles(batches: Sequence[int], profile: tuple[int, int, int]) -> None:
    found = profile_of(batches)
    assert (found.least, found.best, found.most) == profile


def test_a_lower_precision_is_smaller_and_has_the_same_ends(plan: Plan) -> None:
    built, engine, _ = build(plan, layout="split")
    lowered, smaller, _ = build(plan, layout="split", precision="fp16")
    assert (lowered.inputs, lowered.outputs) == (built.inputs, built.outputs)
    assert [port.name[-6:] for port in built.outputs] == ["/tap_0", "/tap_1", "/tap_2"]
    assert len(smaller) < len(engine)


def test_int8_of_trunk_and_branch(tmp_path: Path, rng: np.random.Generator) -> None:
    stock, child = toys.trunk(), toys.branch("child", 1, on=toys.trunk()[1])
    create_plan(tmp_path / "engine.plan", stock, [child])
    trunk = quantize_trunk(*stock, [toys.crops(4)])
    taps = rng.random((4, *toys.tap_shape(1)), np.float32)
    branch = quantize_branch(*child, [taps], tap_scales(trunk)[1])
    passed = {part.name: Lowered(form.name, True, 4, 0.0, 0.0, 0, None, 1.0) for part, form in
              ((stock[0], trunk), (child[0], branch))}  # fmt: skip
    store_lowered(tmp_path / "engine.plan", "int8", passed, [trunk, branch])
    with open_plan(tmp_path / "engine.plan") as plan:
        built, engine, _ = build(plan, precision="int8")
        plain, whole, _ = build(plan)
    assert engine[:4] == b"vtrt" and engine != whole
    assert (built.inputs, built.outputs) == (plain.inputs, plain.outputs)


def test_the_segmenter_is_an_engine_of_its_own(tmp_path: Path) -> None:
    source = read_segmenter(toy_segmenter.write(tmp_path / "s.onnx"))
    create_plan(tmp_path / "engine.plan", toys.trunk(), [toys.branch("child")], source.entry())
    with open_plan(tmp_path / "engine.plan") as plan:
        digest = plan.manifest.parts[plan.manifest.segmenter.part].digest  # type: ignore[union-attr]
        job = Job("engine.plan", plan.digest, "tensorrt_rtx", "1.7", "fp16", "split", ("child",), ("8.9",), (1, 8), ())
        found = wanted_engines(plan.manifest, job, segmenter=True)
        assert [(each.role, each.precision, each.batches) for each in found] == [
            ("trunk", "fp16", (1, 8)),
            ("branch", "fp16", (1, 8)),
            ("segmenter", "float32", (1,)),
        ]
        assert [form for each in found for _, form in each.parts.values()] == ["fp16", "fp16", "float32"]
        assert found[2].graph == digest and item_of(found[2], plan.manifest).subject == "the segmenter"
        assert item_of(found[1], plan.manifest).owners[next(iter(found[1].parts))] == "label 'child'"
        assert wanted_engines(plan.manifest, job, segmenter=False) == found[:2]
        content, weights = load_graph(plan, None)
        wanted = Wanted(("8.9",), (1,), {}, "the segmenter")
        built = build_graph(LIBRARY, content, weights, wanted, list[bytes]().append, list[str]().append)
    assert [port.name for port in built.inputs] == ["images"] and built.profiles == ()  # its batch is fixed
    assert [port.name for port in built.outputs] == ["output0", "output1"]


def test_an_unknown_operator_names_label_node_and_operator(tmp_path: Path) -> None:
    plan = with_operators(tmp_path / "engine.plan", child="Det", hat="", gender="Det")
    error = refused(plan)
    assert isinstance(error, EngineBuildError)
    for label in ("child", "gender"):
        _, entry = plan.manifest.find(label) or pytest.fail(label)
        assert f"label {label!r}: operator Det (node '{entry.part}/odd.node')" in str(error)
    assert "label 'hat'" not in str(error) and "leave these labels out" in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(plan: Plan, value: float) -> None:
    def spoil(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        name = next(name for name in weights if name.endswith("own.weight"))
        return weights | {name: np.full_like(weights[name], value)}

    error = refused(plan, change=spoil)
    assert isinstance(error, EngineBuildError) and "label " in str(error) and "own.weight" in str(error)


def test_a_weight_of_another_size(plan: Plan) -> None:
    def cut(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        name = next(name for name in weights if name.endswith("own.weight"))
        return weights | {name: weights[name][:1]}

    assert "mismatches with that expected by the model" in str(refused(plan, change=cut))


def test_a_missing_weight(plan: Plan) -> None:
    error = refused(plan, change=lambda weights: {})
    assert isinstance(error, EngineBuildError) and "block0.weight" in str(error)


def test_no_graph() -> None:
    wanted = Wanted(("8.9",), (1,), {}, "the merged engine")
    empty = helper.make_model(helper.make_graph([], "empty", [], []), ir_version=10).SerializeToString()
    cases = ((b"", "cannot parse empty model"), (empty, "outputs, found none"), (b"\xff" * 20, "that tensorrt_rtx"))
    for content, says in cases:
        with pytest.raises(EngineBuildError, match=says):
            build_graph(LIBRARY, content, {}, wanted, list[bytes]().append, list[str]().append)


def test_a_target_that_the_library_has_not(plan: Plan) -> None:
    error = refused(plan, targets=["8.9", "9.0"])
    assert isinstance(error, EngineIncompatible)
    assert "compute capability 9.0: expected one of 7.5, 8.0, 8.6, 8.9, 12.0" in str(error)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_turing_is_refused(plan: Plan, precision: str) -> None:
    error = refused(plan, targets=["7.5"], precision=precision)
    assert isinstance(error, EngineBuildError) and "leave 7.5 out" in str(error)
    assert "label " in str(error) or precision != "float32"


def test_a_writer_that_fails_is_told_as_it_is(plan: Plan) -> None:
    def full(piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    group = partition(joints_of(plan.manifest), "merged")[0]
    content, weights = load_graph(plan, group)
    with pytest.raises(OSError, match="No space left"):
        build_graph(LIBRARY, content, weights, Wanted(("8.9",), (1,), {}, "it"), full, list[str]().append)
