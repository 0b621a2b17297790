"""Plans lowered part by part: what is stored, who moves, and what the report says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import toys
from PIL import Image

from graftsdk import Predictor
from graftsdk.errors import EngineIncompatible, InputError
from graftsdk.lifecycle import lowering
from graftsdk.lifecycle.lowering import lower_plan
from graftsdk.lifecycle.lowering_crops import CALIBRATION, find_crops
from graftsdk.lifecycle.lowering_report import Figures, LoweringReport, figures_of, worst
from graftsdk.plan import open_plan
from graftsdk.plan.edit import add_branches, create_plan, merge_plans
from graftsdk.plan.onnx_part import model_from_part, part_from_model

CROPS = toys.crops(5)


def draw(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` small pictures of noise, no two alike."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 40, 36, 3), dtype=np.uint8)
    for index in range(count):
        Image.fromarray(pixels[index]).save(folder / f"{index:03d}.png")
    return folder


def scores(path: Path, **options: object) -> dict[str, np.ndarray]:
    with Predictor(path, precision="int8", **options) as predictor:  # type: ignore[arg-type]
        return predictor.run(CROPS)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(one[label].tobytes() == other[label].tobytes() for label in one)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("pictures") / "samples", 12)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> tuple[Path, LoweringReport]:
    """A toy plan with INT8 parts beside those in float32, and the report."""
    folder = tmp_path_factory.mktemp("plans")
    toys.write(folder / "plain.plan")
    report = lower_plan(folder / "plain.plan", "int8", samples, output=folder / "int8.plan", tolerance=0.02)
    return folder / "int8.plan", report


def test_stored(done: tuple[Path, LoweringReport]) -> None:
    path, report = done
    assert (report.calibrated, report.compared, report.annotated, report.ok) == (6, 6, 0, True)
    with open_plan(path) as plan, open_plan(path.with_name("plain.plan")) as plain:
        forms, records = plan.manifest.forms("int8"), plan.manifest.lowered["int8"]
        assert set(forms) == set(records) == set(plain.manifest.parts)
        for name, form in forms.items():
            assert plan.manifest.parts[form].precision == "int8"
            assert plan.parts[name].digest == plain.parts[name].digest
        for row in report.labels:
            assert records[row.part].samples == 6 and row.lowered and row.branch is not None and row.trunk is not None
            assert 0.0 < row.branch.mean <= row.branch.largest == records[row.part].largest


def test_same_bits_in_every_layout_and_batch(done: tuple[Path, LoweringReport]) -> None:
    merged = scores(done[0])
    assert same(merged, scores(done[0], layout="split"))
    assert same({"gender": merged["gender"]}, scores(done[0], labels=["gender"]))
    with Predictor(done[0], precision="int8") as predictor, Predictor(done[0]) as plain:
        rows = [predictor.run(CROPS[index : index + 1]) for index in range(len(CROPS))]
        assert same(merged, {label: np.concatenate([row[label] for row in rows]) for label in merged})
        assert not same(merged, plain.run(CROPS))


def test_a_new_label_moves_nobody(
    done: tuple[Path, LoweringReport], samples: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "grown.plan"
    shutil.copy(done[0], path)
    before = scores(path)
    add_branches(path, [toys.branch("bag", 1, seed=44, on=toys.trunk()[1])])
    scores(path)
    assert "'bag': nobody compared them with float32" in caplog.text
    caplog.clear()
    other = draw(tmp_path / "others", 6, seed=9)
    report = lower_plan(path, "int8", other, tolerance=0.02)
    assert [row.label for row in report.labels] == ["bag"] and report.labels[0].lowered
    assert report.trunks[0].reused and report.trunks[0].lowered
    after = scores(path)
    assert set(after) == {*before, "bag"} and same(before, after)
    assert "nobody compared" not in caplog.text
    with open_plan(path) as plan, open_plan(done[0]) as old:
        known = old.manifest.lowered["int8"]
        assert {name: plan.manifest.lowered["int8"][name] for name in known} == known
    with pytest.raises(InputError, match="not tried in int8 yet, found none"):
        lower_plan(path, "int8", samples)
    lower_plan(path, "int8", other, again=True, tolerance=0.02)  # other pictures, other ranges: everybody may move
    assert not same(before, scores(path))


def test_a_trunk_that_fails_one_label_stays(samples: Path, tmp_path: Path) -> None:
    toys.write(tmp_path / "e.plan")
    report = lower_plan(tmp_path / "e.plan", "int8", samples, tolerance=0.0)
    assert not report.trunks[0].lowered and set(report.trunks[0].blocking) == {"child", "gender", "backpack"}
    assert [row.lowered for row in report.labels] == [False] * 3 and report.ok  # all of it in float32
    assert "stays in float32" in report.labels[0].verdict
    with pytest.raises(EngineIncompatible, match="none that passed"):
        Predictor(tmp_path / "e.plan", precision="int8")


def test_a_branch_that_fails_stays_alone(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys.write(tmp_path / "e.plan")
    real = lowering.quantize_branch

    def spoilt(part, document, taps, scale, method):  # type: ignore[no-untyped-def]
        if document.label == "child":
            model = model_from_part(part)
            weight = model.graph.initializers["fc.weight"]
            weight.const_value = ir.Tensor(-100 * weight.const_value.numpy(), name=weight.name)  # type: ignore[union-attr]
            part = part_from_model(model, "branch")
        return real(part, document, taps, scale, method)

    monkeypatch.setattr(lowering, "quantize_branch", spoilt)
    report = lower_plan(tmp_path / "e.plan", "int8", samples, tolerance=0.02)
    assert {row.label: row.lowered for row in report.labels} == {"child": False, "gender": True, "backpack": True}
    assert report.ok and report.labels[0].now == report.labels[0].trunk
    with open_plan(tmp_path / "e.plan") as plan:
        record = plan.manifest.lowered["int8"][report.labels[0].part]
        assert (record.part, record.passed) == ("", False) and report.labels[0].part not in plan.manifest.forms("int8")
        assert len([info for info in plan.manifest.parts.values() if info.precision == "int8"]) == 3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_floats_leave_verdicts_only(precision: str, samples: Path, tmp_path: Path) -> None:
    toys.write(tmp_path / "e.plan", ["child"])
    data = tmp_path / "data"
    for split in ("train", "test"):
        for number, name in enumerate(("no", "yes")):
            draw(data / "child" / split / name, 3, seed=10 * number + len(split))
    report = lower_plan(tmp_path / "e.plan", precision, samples, data=data)
    assert (report.calibrated, report.compared, report.annotated) == (0, 18, 6)
    figures = report.labels[0].branch
    assert figures is not None and figures.auc is not None and 0.0 < figures.largest < 0.01
    with open_plan(tmp_path / "e.plan") as plan:
        records = plan.manifest.lowered[precision]
        assert len(plan.manifest.parts) == 2 and [record.part for record in records.values()] == ["", ""]
        assert records[report.labels[0].part].auc_change == figures.auc_change


def test_a_label_with_nothing_to_lower_is_judged_on_the_trunk(
    done: tuple[Path, LoweringReport], samples: Path, tmp_path: Path
) -> None:
    path = tmp_path / "grown.plan"
    shutil.copy(done[0], path)
    part, document = toys.branch("plain", 2, seed=9, on=toys.trunk()[1])
    model = model_from_part(part)
    for node in list(model.graph):
        if node.name in ("own", "own.relu"):
            node.outputs[0].replace_all_uses_with(model.graph.inputs[0])
            model.graph.remove(node, safe=True)
    del model.graph.initializers["own.weight"]  # the tap has as many channels: pooling and classifier fit it
    add_branches(path, [(part_from_model(model, "branch"), document)])
    report = lower_plan(path, "int8", samples, tolerance=0.0)
    (row,) = report.labels
    assert not report.ok and row.trunk is not None and row.branch is None
    assert row.verdict == "nothing in it to lower, MOVED by the trunk"
    with open_plan(path) as plan:
        record = plan.manifest.lowered["int8"][row.part]
        assert (record.part, record.passed, record.samples) == ("", False, 6)
        assert record.largest == row.trunk.largest > 0.0
    with pytest.raises(InputError, match="found none"):
        lower_plan(path, "int8", samples)


def test_labels_of_one_part_are_judged_together(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "e.plan"
    trunk, (part, document) = toys.trunk(), toys.branch("a", on=toys.trunk()[1])
    create_plan(path, trunk, [(part, document)])
    lower_plan(path, "int8", samples, tolerance=0.02)
    before = scores(path)
    add_branches(path, [(part, replace(document, label="b"))])
    other = draw(tmp_path / "others", 8, seed=9)
    report = lower_plan(path, "int8", other, tolerance=0.02)
    assert [(row.label, row.lowered) for row in report.labels] == [("a", True), ("b", True)]
    after = scores(path)
    assert same(before, after) and after["b"].tobytes() == before["a"].tobytes()  # looked at as it is
    with open_plan(path) as plan:
        assert plan.manifest.lowered["int8"][part.name].samples == 4
    report = lower_plan(path, "int8", other, labels=["a"], tolerance=0.02)
    assert [row.label for row in report.labels] == ["a", "b"]
    assert not same(before, scores(path))  # named: with ranges of other pictures


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_part_on_two_trunks_stays(precision: str, samples: Path, tmp_path: Path) -> None:
    first, document = toys.trunk()
    model = model_from_part(first)
    for name in ("block2.weight", "block3.weight"):
        value = model.graph.initializers[name]
        value.const_value = ir.Tensor(1.3 * value.const_value.numpy(), name=name)  # type: ignore[union-attr]
    prints = (*document.fingerprints[:2], *toys.trunk(5)[1].fingerprints[2:])
    second = part_from_model(model, "trunk"), replace(document, fingerprints=prints)
    part, own = toys.branch("a", on=document)
    create_plan(tmp_path / "x", (first, document), [(part, own), toys.branch("c", 3, seed=8, on=document)])
    create_plan(tmp_path / "y", second, [(part, replace(own, label="b")), toys.branch("d", 3, seed=9, on=second[1])])
    merge_plans(tmp_path / "x", tmp_path / "y", tmp_path / "z")
    report = lower_plan(tmp_path / "z", precision, samples, tolerance=0.02)
    assert {row.label: row.lowered for row in report.labels} == {"a": False, "c": True, "b": False, "d": True}
    assert "its part sits on several trunks" in report.labels[0].verdict
    with open_plan(tmp_path / "z") as plan:
        record = plan.manifest.lowered[precision][part.name]
        moved = [row.trunk.largest for row in report.labels if row.part == part.name and row.trunk is not None]
        assert (record.part, record.passed) == ("", False) and record.largest == max(moved) > 0.0
        assert part.name not in plan.manifest.forms(precision) and len(plan.manifest.forms(precision)) == 4


def test_refused(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "e.plan"
    toys.write(path)
    content = path.read_bytes()
    one = draw(tmp_path / "one", 1)
    for options, expected in (
        ({"precision": "int8"}, "samples: expected a folder"),
        ({"precision": "fp16"}, "samples: expected a folder"),
        ({"precision": "int8", "samples": one}, "2 images or more"),
        ({"precision": "int4", "samples": samples}, "precision: expected one of fp16, bf16, int8, found 'int4'"),
        ({"precision": "int8", "samples": samples, "method": "max"}, "method"),
        ({"precision": "int8", "samples": samples, "tolerance": 2.0}, "tolerance"),
        ({"precision": "int8", "samples": samples, "labels": ["hat"]}, "no label 'hat'"),
        ({"precision": "int8", "samples": samples, "labels": ["child"], "again": True}, "again"),
    ):
        with pytest.raises(InputError, match=expected):
            lower_plan(path, **options)  # type: ignore[arg-type]
    assert path.read_bytes() == content


def test_no_crop_is_both_for_ranges_and_for_judging(tmp_path: Path) -> None:
    document = toys.branch("child")[1]
    folder = draw(tmp_path / "samples", 2 * CALIBRATION + 30)
    found = find_crops(folder, None, [document], calibrate=True)
    assert len(found.calibration) == CALIBRATION and len(found.judged) == CALIBRATION + 30
    assert not set(found.calibration) & set(found.judged)
    for split in ("train", "test"):
        for name in ("no", "yes"):
            (tmp_path / "data" / "child" / split / name).mkdir(parents=True)
            for number in "12":
                shutil.copy(folder / "001.png", tmp_path / "data" / "child" / split / name / f"{number}.png")
    copies = tmp_path / "data" / "child" / "test"
    shutil.copy(found.calibration[3], copies / "yes" / "used.png")
    shutil.copy(found.judged[5], copies / "no" / "known.png")
    draw(copies / "no" / "new", 1, seed=5)
    shutil.move(copies / "no" / "new" / "000.png", copies / "no" / "new.png")
    (copies / "no" / "new").rmdir()
    annotated = find_crops(folder, tmp_path / "data", [document], calibrate=True)
    assert len(annotated.judged) == len(found.judged) + 1  # copies are one crop, and no crop of the ranges comes back
    assert annotated.targets["child"][5] == 0 and annotated.targets["child"][len(found.judged)] == 0
    with pytest.raises(InputError, match="found copies"):
        same = tmp_path / "same"
        same.mkdir()
        for name in "abcd":
            shutil.copy(folder / "000.png", same / f"{name}.png")
        find_crops(same, None, [document], calibrate=True)


def test_figures() -> None:
    wanted = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8]])
    found = np.array([[0.9, 0.1], [0.52, 0.48], [0.45, 0.55], [0.2, 0.8]])
    figures = figures_of(("no", "yes"), {}, found, wanted, {0: 0, 1: 1, 2: 0, 3: 1})
    assert (figures.samples, figures.flips) == (4, 2)
    assert figures.largest == pytest.approx(0.15) and figures.mean == pytest.approx((0.12 + 0.15) / 4)
    assert (figures.auc_float32, figures.auc, figures.auc_change) == (1.0, 0.75, -0.25)
    assert figures_of(("no", "yes"), {}, found, wanted, {0: 0}).auc is None  # one class only
    three = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]])
    moved = three[[1, 0, 2, 3]]
    assert figures_of(("a", "b", "c"), {}, moved, three, {0: 0, 1: 1, 2: 2, 3: 0}).auc_change == pytest.approx(
        -5 / 6
    )  # of b
    broken = figures_of(("no", "yes"), {}, np.where(wanted == 0.9, np.nan, wanted), wanted, {})
    assert (broken.largest, broken.flips, broken.passes(1.0)) == (1.0, 4, False)


@pytest.mark.parametrize(
    ("figures", "passes"),
    [
        (Figures(100, 0.5, 0.5, 100, 0.905, 0.9), True),
        (Figures(100, 0.0, 0.0, 0, 0.894, 0.9), False),
        (Figures(100, 0.5, 0.01, 4), True),
        (Figures(100, 0.5, 0.01, 5), False),
        (Figures(100, 0.5, 0.011, 0), False),
    ],
)
def test_criterion(figures: Figures, passes: bool) -> None:
    assert figures.passes(0.005 + 1e-12) is passes


def test_worst_of_each() -> None:
    found = worst([Figures(10, 0.1, 0.02, 3, 0.8, 0.81), Figures(10, 0.2, 0.01, 1), Figures(10, 0.0, 0.0, 0, 0.9, 0.7)])
    assert (found.largest, found.mean, found.flips, found.auc_change) == (0.2, 0.02, 3, pytest.approx(0.2))
