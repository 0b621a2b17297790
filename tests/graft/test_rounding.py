"""The emulation of fp16 and bf16 in float32: bit for bit what the lowered graph gives, on ONNX Runtime too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import toys
from graft.test_floats import node, normal, one_part, small, some_forms
from graft.test_graft import ALL, OFF, run
from graft.typed_graphs import FORMS, Recipe, evaluate, merged, recipes, split
from hypothesis import given

from graftsdk.engines.layout import partition
from graftsdk.errors import InputError, UnsupportedOp
from graftsdk.graft import Group, graft, graft_group, joints_of
from graftsdk.graft.floats import lower_floats
from graftsdk.graft.rounding import round_floats

CROPS = (np.random.default_rng(5).normal(size=(2, 4, 6, 6)) * 3).astype(np.float32)


@given(recipes, some_forms)
def test_it_gives_the_bits_of_the_lowered_graph(recipe: Recipe, forms: dict[str, str]) -> None:
    lowered, emulated = merged(recipe), merged(recipe)
    lower_floats(lowered, forms)
    round_floats(emulated, forms)
    proto = ir.to_proto(emulated)
    onnx.checker.check_model(proto, full_check=True)
    assert emulated.opset_imports[""] == 18
    ours, theirs = evaluate(emulated, {"crops": CROPS}), evaluate(lowered, {"crops": CROPS})
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


@given(recipes, some_forms)
def test_split_rounds_what_merged_rounds(recipe: Recipe, forms: dict[str, str]) -> None:
    whole = merged(recipe)
    lower_floats(whole, forms)
    expected = evaluate(whole, {"crops": CROPS})
    values = {"crops": CROPS}
    for model, entry, result in split(recipe):
        lower_floats(model, forms)
        values |= evaluate(model, {entry: values["crops" if entry == "crops" else "t/tap"]})
        np.testing.assert_array_equal(values[result], expected[result], err_msg=result)


@pytest.mark.parametrize("level", [ALL, OFF])
@pytest.mark.parametrize("form", FORMS)
def test_onnx_runtime_rounds(form: str, level: object) -> None:
    """Casts there and back are no nodes to be optimised away."""
    nodes = [
        node("Conv", ["crops", "p/w"], "p/tap", pads=[1] * 4),
        node("Relu", ["p/tap"], "p/relu"),
        node("Conv", ["p/relu", "p/w"], "p/conv", pads=[1] * 4),
        node("Add", ["p/conv", "p/tap"], "p/scores"),
    ]
    model = small(nodes, {"p/w": normal(4, 4, 3, 3)}, ["p/tap", "p/scores"])
    exact = run(model, {"crops": CROPS}, level)  # type: ignore[arg-type]
    round_floats(model, {"p": form})
    expected, found = evaluate(model, {"crops": CROPS}), run(model, {"crops": CROPS}, level)  # type: ignore[arg-type]
    step = float(np.finfo(np.float16).eps) if form == "fp16" else 2.0**-7
    for name, values in found.items():
        np.testing.assert_array_equal(values, values.astype(FORMS[form]).astype(np.float32))
        assert 0 < np.abs(values - exact[name]).max() < 8 * step * np.abs(exact[name]).max()
        # Sums are added in another order: now and then a value falls on the other side of a rounding step.
        assert np.mean(values != expected[name]) < 0.1
        np.testing.assert_allclose(values, expected[name], rtol=2 * step, atol=4 * step)


def test_onnx_runtime_does_not_round_in_fp16_by_itself() -> None:
    """Why the emulation is there for fp16 too: the CPU provider takes the casts between float32 kernels away."""
    nodes = [node("Conv", ["crops", "p/w"], "p/conv"), node("Conv", ["p/conv", "p/w"], "p/scores")]
    results = {}
    for name, change in (("float32", None), ("lowered", lower_floats), ("emulated", round_floats)):
        model = one_part(nodes, w=normal(4, 4, 1, 1).astype(np.float16).astype(np.float32))
        if change is not None:
            change(model, {"p": "fp16"})
        crops = CROPS.astype(np.float16).astype(np.float32)
        results[name] = run(model, {"crops": crops})["p/scores"]
    assert np.mean(results["lowered"] != results["emulated"]) > 0.05
    step = np.abs(results["float32"]).max() * 2.0**-11
    assert np.abs(results["lowered"] - results["float32"]).max() < 2 * step
    assert step / 8 < np.abs(results["emulated"] - results["float32"]).max() < 4 * step


@pytest.mark.parametrize("form", FORMS)
def test_layouts_of_a_plan(tmp_path: Path, form: str) -> None:
    """Split and merged give the same bits, whichever parts are lowered; so does a trunk cut at another tap."""
    labels = ("child", "gender", "hat")
    with toys.plan(tmp_path / "p", labels) as plan:
        trunk = plan.manifest.trees[0].trunk
        crops = toys.crops(2)
        everything = dict.fromkeys(plan.parts, form)
        for forms in (everything, {trunk: form}, {part: form for part in everything if part != trunk}):
            model = graft(plan)
            round_floats(model, forms)
            whole = run(model, {"crops": crops}, OFF)
            values = {"crops": crops}
            for group in partition(joints_of(plan.manifest), "split"):
                model = graft_group(plan, group)
                round_floats(model, forms)
                values |= run(model, {name: values[value] for name, value in group.inputs.items()}, OFF)
            for name, scores in whole.items():
                assert values[name].tobytes() == scores.tobytes()
            for k in (0, 1):
                model = graft_group(plan, Group(trunks=(trunk,), taps=((trunk, k),)))
                round_floats(model, forms)
                alone = run(model, {"crops": crops}, OFF)[f"{trunk}/tap_{k}"]
                assert alone.tobytes() == values[f"{trunk}/tap_{k}"].tobytes()


def test_nothing_asked_for_and_what_is_refused(tmp_path: Path) -> None:
    with toys.plan(tmp_path / "p") as plan:
        model = graft(plan)
        before = ir.to_proto(model).SerializeToString(deterministic=True)
        round_floats(model, {})
        assert ir.to_proto(model).SerializeToString(deterministic=True) == before
        with pytest.raises(InputError, match="precision fp16 or bf16, found 'int8'"):
            round_floats(model, {next(iter(plan.parts)): "int8"})
    large = one_part([node("Conv", ["crops", "p/w"], "p/scores")], w=np.full((4, 4, 1, 1), 7e4, np.float32))
    with pytest.raises(UnsupportedOp, match="part p: weight w"):
        round_floats(large, {"p": "fp16"})


def test_an_initialiser_that_a_float32_node_reads_too() -> None:
    slopes = normal(4, 1, 1)
    nodes = [
        node("Conv", ["crops", "p/w"], "p/conv"),
        node("PRelu", ["p/conv", "p/slopes"], "p/bent"),
        node("Mul", ["p/bent", "p/slopes"], "p/scores"),
    ]
    model = one_part(nodes, w=normal(4, 4, 1, 1), slopes=slopes)
    round_floats(model, {"p": "bf16"})
    stored = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    np.testing.assert_array_equal(stored["p/slopes"], slopes)
    np.testing.assert_array_equal(stored["p/slopes/bf16"], slopes.astype(FORMS["bf16"]).astype(np.float32))
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float32)}
