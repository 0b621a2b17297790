"""Checkpoints and parts to a plan: what is in it, what is refused, and that nothing half-done stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftsdk import errors
from graftsdk.export import ExportReport, export_branch, export_parts, export_plan, export_trunk, plan, validate
from graftsdk.models import Branch, Trunk
from graftsdk.plan import load_plan
from graftsdk.plan.onnx_part import read_onnx_part

NAMES = ("child", "gender", "hat")


@pytest.fixture(scope="module", autouse=True)
def _one_date() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five noisy pictures, one of them a PNG with alpha."""
    folder, rng = tmp_path_factory.mktemp("samples"), np.random.default_rng(0)
    for index in range(4):
        picture = rng.integers(0, 256, (80 + index, 40, 3), np.uint8).astype(np.uint8)
        Image.fromarray(picture).resize((60, 120)).save(folder / f"{index}.jpg")
    cut = rng.integers(0, 256, (90, 50, 4)).astype(np.uint8)
    cut[:, :, 3] = 255
    cut[:, :20, 3] = 0
    Image.fromarray(cut).save(folder / "cut.png")
    return folder


@pytest.fixture(scope="module")
def made(files: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    folder = tmp_path_factory.mktemp("made")
    branches = [files / f"{name}.safetensors" for name in NAMES]
    report = export_plan(
        folder / "engine.plan", files / "trunk.safetensors", branches, samples=samples, parts=folder / "parts"
    )
    return folder, report


def test_a_plan_and_its_report(made: tuple[Path, ExportReport], trunk: Trunk, branches: dict[str, Branch]) -> None:
    folder, report = made
    with load_plan(folder / "engine.plan") as found:
        assert found.labels == NAMES
        (tree,) = found.manifest.trees
        assert tree.document.fingerprints == trunk.document().fingerprints
        assert tree.document.provenance.licence == "Apache-2.0"
        for entry in tree.branches:
            exported = entry.document.exported
            assert exported is not None and exported.samples == 5
            assert 0.0 <= exported.torch_difference < 1e-5
            np.testing.assert_allclose(np.sum(exported.scores, axis=1), 1.0, atol=1e-6)
            assert entry.document.temperature == branches[entry.label].temperature
    assert report.samples == 5 and report.tap_difference is not None and report.tap_difference < 1e-4
    assert [path.name for path in report.parts] == ["trunk.onnx", "child.onnx", "gender.onnx", "hat.onnx"]
    assert [row.reported for row in report.cost.labels] == [("child",), ("female", "male"), ("hat",)]
    assert [row.flips for row in report.cost.labels] == [0, 0, 0]
    assert "against 3 separate networks" in report.table()


@pytest.mark.parametrize("exported", [{"trunk"}, {"child", "hat"}, {"trunk", *NAMES}])
def test_exported_parts_give_the_same_plan(
    made: tuple[Path, ExportReport], files: Path, samples: Path, tmp_path: Path, exported: set[str]
) -> None:
    folder, _ = made
    trunk, *branches = [
        folder / "parts" / f"{name}.onnx" if name in exported else files / f"{name}.safetensors"
        for name in ("trunk", *NAMES)
    ]
    report = export_plan(tmp_path / "again.plan", trunk, branches, samples=samples)
    assert (report.tap_difference is None) == ("trunk" in exported)
    with load_plan(tmp_path / "again.plan") as ours, load_plan(folder / "engine.plan") as theirs:
        assert list(ours.manifest.parts) == list(theirs.manifest.parts)
        assert ours.manifest.tensors == theirs.manifest.tensors
        if exported >= set(NAMES):
            assert (tmp_path / "again.plan").read_bytes() == (folder / "engine.plan").read_bytes()


def test_parts_alone_and_in_memory(
    files: Path, tmp_path: Path, made: tuple[Path, ExportReport], trunk: Trunk, branches: dict[str, Branch]
) -> None:
    report = export_parts(tmp_path / "new" / "folder", files / "trunk.safetensors", [files / "hat.safetensors"])
    assert report.path is None and [path.name for path in report.parts] == ["trunk.onnx", "hat.onnx"]
    part, document = export_branch(branches["hat"], trunk)
    assert part.digest == read_onnx_part(report.parts[1])[0].digest
    assert document == read_onnx_part(report.parts[1])[1]
    assert export_trunk(trunk)[0].digest == read_onnx_part(made[0] / "parts" / "trunk.onnx")[0].digest


def test_names_of_part_files() -> None:
    labels = ["Lady's bag", "lady s BAG", "trunk", "名前", "../../etc/passwd", "///", "Segmenter"]
    names = plan._part_names(labels)
    assert names == [
        "trunk.onnx", "lady-s-bag.onnx", "lady-s-bag-2.onnx", "trunk-2.onnx", "名前.onnx", "etc-passwd.onnx",
        "label.onnx", "segmenter-2.onnx", "segmenter.onnx",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stock", "scions", "error", "message"),
    [
        ("trunk", ["hat", "stranger"], errors.FingerprintMismatch,
         r"stranger\.safetensors: label 'stranger' wants a resnet18 trunk .*\(graftsdk-export --trunk THAT_TRUNK"),
        ("trunk", ["hat", "hat"], errors.MergeConflict, r"two branches for one label: 'hat' in .* rename or leave out"),
        ("hat", ["hat"], errors.PlanCorrupt, r"hat\.safetensors: expected a trunk, found the branch 'hat'"),
        ("trunk", ["trunk"], errors.PlanCorrupt, r"trunk\.safetensors: expected a branch, found a trunk"),
        ("trunk", ["absent"], errors.PlanPathError, r"absent\.safetensors: expected a readable file"),
        ("trunk", [], errors.InputError, "branches: expected at least one"),
    ],
)  # fmt: skip
def test_refusals_come_before_anything_slow(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stock: str, scions: list[str],
    error: type[errors.GraftError], message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("graftsdk.export.sources.trunk_part", lambda trunk: pytest.fail("exported before checking"))
    paths = [files / f"{name}.safetensors" for name in scions]
    with pytest.raises(error, match=message):
        export_plan(tmp_path / "engine.plan", files / f"{stock}.safetensors", paths)
    assert list(tmp_path.iterdir()) == []


def test_bad_files_and_targets(files: Path, tmp_path: Path, made: tuple[Path, ExportReport]) -> None:
    trunk, hat = files / "trunk.safetensors", files / "hat.safetensors"
    target = tmp_path / "engine.plan"
    (tmp_path / "empty").mkdir()
    (tmp_path / "hat.pth").write_bytes(b"PK\3\4")
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 100)
    (tmp_path / "short.safetensors").write_bytes(hat.read_bytes()[:-9])
    part = made[0] / "parts" / "hat.onnx"
    cases = [
        (
            errors.InputError,
            r"\.pth files become checkpoints with graftsdk import",
            (target, trunk, [tmp_path / "hat.pth"]),
        ),
        (errors.PlanCorrupt, "junk.onnx: expected an ONNX model", (target, trunk, [tmp_path / "junk.onnx"])),
        (errors.PlanTruncated, "short.safetensors", (target, trunk, [tmp_path / "short.safetensors"])),
        (errors.PlanCorrupt, "hat.onnx: expected a trunk, found the branch 'hat'", (target, part, [hat])),
        (errors.PlanPathError, "expected an existing folder", (tmp_path / "no" / "p", trunk, [hat])),
        (errors.InputError, "samples: expected a folder with images", (target, trunk, [hat], None, tmp_path / "empty")),
        (errors.InputError, "expected a readable folder", (target, trunk, [hat], None, tmp_path / "absent")),
    ]
    for error, message, arguments in cases:
        with pytest.raises(error, match=message):
            export_plan(*arguments)
    assert not target.exists()


def test_a_broken_sample_is_named(files: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(errors.DecodeError, match=r"sample .*a\.png: image: expected a whole"):
        export_branch(files / "hat.safetensors", files / "trunk.safetensors", tmp_path)


def test_a_part_that_differs_is_refused_by_label(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = tmp_path / "engine.plan", files / "trunk.safetensors", [files / "hat.safetensors"]
    monkeypatch.setattr(validate, "TOLERANCE", -1.0)
    with pytest.raises(errors.ValidationFailed, match=r"label 'hat': expected probabilities within -1 of torch on the"):
        export_plan(*arguments)
    monkeypatch.setattr(validate, "TAP_TOLERANCE", -1.0)
    with pytest.raises(errors.ValidationFailed, match="trunk: expected tap 0 within"):
        export_plan(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_another_trunks_part_under_a_matching_document_is_found(
    made: tuple[Path, ExportReport], files: Path, tmp_path: Path, branches: dict[str, Branch], trunk: Trunk
) -> None:
    from graftsdk.plan.onnx_part import write_onnx_part

    _, document = read_onnx_part(made[0] / "parts" / "hat.onnx")
    other = Branch.create(trunk, "hat", tap=8, seed=77)
    write_onnx_part(tmp_path / "hat.onnx", export_branch(other, trunk)[0], document)
    with pytest.raises(errors.ValidationFailed, match="label 'hat': .* its own record of the export"):
        export_plan(tmp_path / "engine.plan", files / "trunk.safetensors", [tmp_path / "hat.onnx"])


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_while_writing_leaves_nothing(
    files: Path,
    made: tuple[Path, ExportReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
) -> None:
    def fail(*arguments: object) -> None:
        raise failure

    monkeypatch.setattr(plan, "create_plan", fail)
    parts = [made[0] / "parts" / f"{name}.onnx" for name in ("trunk", "hat")]
    shutil.copy(parts[1], tmp_path / "kept.onnx")
    with pytest.raises(failure if isinstance(failure, type) else OSError):
        export_plan(tmp_path / "engine.plan", parts[0], parts[1:], parts=tmp_path / "parts")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.onnx"]


def test_the_alpha_of_a_png_is_the_mask(samples: Path, trunk: Trunk) -> None:
    from graftsdk.export.samples import sample_crops

    (crop,) = next(iter(sample_crops([samples / "cut.png"], trunk.crop, 8)))
    fill = (0.0 - np.array(trunk.crop.mean)) / np.array(trunk.crop.std)
    np.testing.assert_allclose(crop[:, :, :20], np.broadcast_to(fill[:, None, None], (3, 64, 20)), rtol=1e-5)
    assert np.abs(crop[:, :, 40:] - fill[:, None, None]).mean() > 0.5
