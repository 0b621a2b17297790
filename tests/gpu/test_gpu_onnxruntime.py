"""ONNX Runtime's CUDA provider: the CPU's scores, layouts, labels that are added, arrays that lie on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import toys

from graftsdk import Predictor
from graftsdk.attribute import decisions
from graftsdk.engines import Engine, onnxruntime, open_engine
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.golden import check_golden
from graftsdk.engines.layout import graphs_of, partition
from graftsdk.engines.providers import providers_for
from graftsdk.graft import joints_of, scores_names
from graftsdk.plan import Plan
from graftsdk.preprocess import golden_crops

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("onnxruntime_cuda")]

DEMO = Path(__file__).parents[2] / "examples" / "demo.plan"
LABELS = ("child", "gender", "backpack")
CLOSE = 2e-5  # of probabilities in float32, TF32 off: other kernels, other order of sums


def engine_of(plan: Plan, layout: str, labels: Sequence[str] | None = None, **options: object) -> Engine:
    graphs = graphs_of(plan, partition(joints_of(plan.manifest, labels), layout))  # type: ignore[arg-type]
    return open_engine(graphs, **{"device": "cuda", **options})  # type: ignore[arg-type]


def scores(plan: Plan, layout: str, crops: object, labels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    names = scores_names(plan.manifest, labels)
    with engine_of(plan, layout, labels) as engine:
        found = engine.run({"crops": crops}, list(names.values()))
        return {label: found[name] for label, name in names.items()}


def moved(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """The labels of `one` whose bits differ in `other`."""
    return [label for label in one if one[label].tobytes() != other[label].tobytes()]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return toys.plan(tmp_path / "toy.plan", LABELS)


@pytest.mark.parametrize("layout", ["merged", "split"])
@pytest.mark.parametrize("count", [1, 8, 11])
def test_the_scores_are_the_cpus(plan: Plan, layout: str, count: int, note: Callable[[str], None]) -> None:
    crops = toys.crops(count)
    with plan, Predictor(plan.path, device="cpu") as predictor:
        expected, found = predictor.run(crops), scores(plan, layout, crops)
        worst = max(float(np.abs(found[label] - expected[label]).max()) for label in LABELS)
    assert worst <= CLOSE
    note(f"ONNX Runtime CUDA against its CPU, toy tree, {layout}, batch {count}: scores within {worst:.1e}")


def test_split_and_merged_agree(plan: Plan, note: Callable[[str], None]) -> None:
    crops = toys.crops(8)
    with plan:
        merged, split = scores(plan, "merged", crops), scores(plan, "split", crops)
    for label in LABELS:
        np.testing.assert_allclose(split[label], merged[label], rtol=0, atol=CLOSE)
    note(
        f"ONNX Runtime CUDA, split against merged: {len(moved(merged, split))} of {len(LABELS)} labels have other bits"
    )


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_who_moves_when_a_label_is_added(plan: Plan, layout: str, tmp_path: Path, note: Callable[[str], None]) -> None:
    """Bits are promised with `split` alone, where nothing of the others is compiled anew."""
    crops = toys.crops(8)
    with plan, toys.plan(tmp_path / "more.plan", (*LABELS, "hat")) as more:
        before, after = scores(plan, layout, crops), scores(more, layout, crops)
    others = moved(before, after)
    note(f"ONNX Runtime CUDA, {layout}, a label added: {len(others)} of {len(LABELS)} others have other bits")
    if layout == "split":
        assert others == []
    for label in LABELS:
        np.testing.assert_allclose(after[label], before[label], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_arrays_on_the_device_are_bound_where_they_lie(plan: Plan, layout: str, device: Device) -> None:
    torch = pytest.importorskip("torch")
    crops = toys.crops(11)
    lying = torch.tensor(crops, device="cpu" if device.kind == "host" else "cuda")
    with plan:
        here, there = scores(plan, layout, crops), scores(plan, layout, lying)
    assert moved(here, there) == []


def test_runs_repeat_to_the_bit(plan: Plan) -> None:
    crops = toys.crops(8)
    with plan:
        assert moved(scores(plan, "merged", crops), scores(plan, "merged", crops)) == []


def test_the_golden_crops_of_the_demo_plan(note: Callable[[str], None]) -> None:
    with Predictor(DEMO, device="cuda") as predictor:
        assert predictor.device == "cuda"
        manifest = predictor.plan.manifest
        changes = check_golden(predictor.run, manifest, golden_crops(manifest.crop), decisions)
    largest = max(change.largest for change in changes)
    note(f"ONNX Runtime CUDA, golden crops of the demo plan: within {largest:.1e} of the scores stored at export")
    assert largest <= 1e-3 and not any(change.flips for change in changes)


def test_fp16_is_near_float32(plan: Plan, note: Callable[[str], None]) -> None:
    crops = toys.crops(8)
    with (
        plan,
        Predictor(plan.path, device="cuda") as full,
        Predictor(plan.path, device="cuda", precision="fp16") as half,
    ):
        one, other = full.run(crops), half.run(crops)
    worst = max(float(np.abs(one[label] - other[label]).max()) for label in LABELS)
    note(f"ONNX Runtime CUDA, fp16 against float32, toy tree: scores within {worst:.1e}")
    assert 0 < worst <= 2e-2


def test_its_tensorrt_provider(plan: Plan, record_property: Callable[[str, object], None]) -> None:
    record_property("runtime", "onnxruntime tensorrt")
    trouble = onnxruntime.cuda_problem(providers_for("cuda", "tensorrt"))
    if trouble is not None:
        pytest.skip(trouble)
    crops, names = toys.crops(8), scores_names(plan.manifest)
    with (
        plan,
        Predictor(plan.path, device="cpu") as predictor,
        engine_of(plan, "merged", provider="tensorrt") as engine,
    ):
        expected, found = predictor.run(crops), engine.run({"crops": crops}, list(names.values()))
        for label, name in names.items():
            np.testing.assert_allclose(found[name], expected[label], rtol=0, atol=1e-3)
