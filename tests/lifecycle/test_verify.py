from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import toys
from lifecycle import true_plans
from lifecycle.true_plans import LABELS, flip_byte, tamper

from graftsdk.errors import FingerprintMismatch, InputError, PlanCorrupt
from graftsdk.lifecycle.verify import verify_plan
from graftsdk.plan import open_plan
from graftsdk.plan.edit import merge_plans, remove_label
from graftsdk.plan.onnx_part import write_onnx_part

TRUNK, BRANCHES = true_plans.parts()


def part_name(path: Path, label: str) -> str:
    with open_plan(path) as plan:
        found = plan.manifest.find(label)
    assert found is not None
    return found[1].part


@pytest.mark.parametrize("layout", ["merged", "split"])
@pytest.mark.parametrize("bisect", [False, True])
def test_sound_plan(tmp_path: Path, layout: str, bisect: bool) -> None:
    path = tmp_path / "sound.plan"
    true_plans.write(path)
    found = verify_plan(path, layout=layout, bisect=bisect)
    assert found.ok, found.problems
    assert [each.name for each in found.golden] == list(LABELS) == [each.name for each in found.scores]
    assert all(each.difference < 1e-5 and each.flips == 0 and each.crops == 4 for each in found.golden)
    assert (found.bisection is not None) is bisect
    if found.bisection is not None:
        assert found.bisection.first is None
        assert len(found.bisection.probes) == 3 + len(LABELS)  # taps 0..2, the deepest that is read
    json.dumps(found.to_dict(), allow_nan=False)


def test_damaged_byte_names_part_and_labels_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "damaged.plan"
    true_plans.write(path)
    hat = part_name(path, "hat")
    flip_byte(path, hat)
    found = verify_plan(path, bisect=True)
    damaged = [check for check in found.parts if check.problem is not None]
    assert not found.ok
    assert [(check.part, check.role, check.labels) for check in damaged] == [(hat, "branch", ("hat",))]
    assert not found.golden and not found.scores and found.bisection is None


def test_damaged_trunk_concerns_every_label(tmp_path: Path) -> None:
    path = tmp_path / "damaged.plan"
    true_plans.write(path)
    with open_plan(path) as plan:
        trunk = plan.manifest.trees[0].trunk
    flip_byte(path, trunk)
    (damaged,) = [check for check in verify_plan(path).parts if check.problem is not None]
    assert set(damaged.labels) == set(LABELS)


def test_damaged_header_is_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "damaged.plan"
    true_plans.write(path)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(PlanCorrupt):
        verify_plan(path)


def test_golden_scores_tell_a_part_that_is_not_the_exported_one(tmp_path: Path) -> None:
    path = tmp_path / "tampered.plan"
    true_plans.write(path, tampered={"hat": tamper(BRANCHES["hat"][0], "own.weight")})
    found = verify_plan(path)
    assert [each.name for each in found.golden if not each.ok] == ["hat"]
    assert all(each.ok for each in found.scores)  # the reference runs the same parts: it cannot know
    assert not found.ok


# What was tampered with -> the first fault that bisect names. block<k>.weight makes tap k.
CULPRITS = [
    ("trunk", "block0.weight", "stem (crops to tap 0)"),
    ("trunk", "block1.weight", "block 0 (tap 0 to tap 1)"),
    ("trunk", "block2.weight", "block 1 (tap 1 to tap 2)"),
    ("child", "own.weight", "label 'child'"),
    ("gender", "own.weight", "label 'gender'"),
    ("bag", "own.weight", "label 'bag'"),
]


@pytest.mark.parametrize("layout", ["merged", "split"])
@pytest.mark.parametrize(("name", "tensor", "expected"), CULPRITS)
def test_bisect_names_the_part_that_was_tampered_with(
    tmp_path: Path, name: str, tensor: str, expected: str, layout: str
) -> None:
    good = TRUNK[0] if name == "trunk" else BRANCHES[name][0]
    path = tmp_path / "tampered.plan"
    true_plans.write(path, tampered={name: tamper(good, tensor)})
    files = true_plans.write_parts(tmp_path)
    found = verify_plan(path, bisect=True, against=files.values(), layout=layout)
    assert all(check.problem is None for check in found.parts)  # digests were made after the tampering
    assert found.bisection is not None
    assert found.bisection.first is not None
    assert expected in found.bisection.first
    assert len(found.bisection.faults) == 1  # what hangs below is not accused
    assert any(expected in problem for problem in found.problems)


def test_bisect_names_independent_faults(tmp_path: Path) -> None:
    path = tmp_path / "tampered.plan"
    changed = {
        "trunk": tamper(TRUNK[0], "block2.weight"),
        "child": tamper(BRANCHES["child"][0], "own.weight"),
    }
    true_plans.write(path, tampered=changed)
    found = verify_plan(path, bisect=True, against=true_plans.write_parts(tmp_path).values())
    assert found.bisection is not None
    first, second = found.bisection.faults  # hat and bag read the wrong tap: not faults of their own
    assert "label 'child'" in first
    assert "block 1 (tap 1 to tap 2)" in second
    outside = [each.name for each in found.scores if not each.ok]
    assert outside == ["child", "hat", "bag"]


def test_bisect_names_every_wrong_block(tmp_path: Path) -> None:
    path = tmp_path / "tampered.plan"
    true_plans.write(path, tampered={"trunk": tamper(tamper(TRUNK[0], "block0.weight"), "block2.weight")})
    found = verify_plan(path, bisect=True, against=true_plans.write_parts(tmp_path).values())
    assert found.bisection is not None
    assert [fault.split(", ")[1] for fault in found.bisection.faults] == [
        "stem (crops to tap 0)",
        "block 1 (tap 1 to tap 2)",
    ]


def test_part_that_is_fed_with_nonsense_is_not_accused(tmp_path: Path) -> None:
    path = tmp_path / "tampered.plan"
    true_plans.write(path, tampered={"trunk": tamper(TRUNK[0], "block1.weight", factor=1e37)})
    found = verify_plan(path, bisect=True, against=true_plans.write_parts(tmp_path).values())
    assert found.bisection is not None
    assert len(found.bisection.faults) == 1
    assert "block 0 (tap 0 to tap 1)" in str(found.bisection.first)
    assert not all(probe.known for probe in found.bisection.probes)
    assert any(not each.ok for each in found.scores)
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_good_branch_is_enough_to_accuse(tmp_path: Path) -> None:
    path = tmp_path / "tampered.plan"
    true_plans.write(path, tampered={"hat": tamper(BRANCHES["hat"][0], "own.weight")})
    files = true_plans.write_parts(tmp_path)
    found = verify_plan(path, bisect=True, against=[files["hat"]])
    assert found.bisection is not None
    assert "label 'hat'" in str(found.bisection.first)
    assert str(files["hat"]) in found.reference


def test_against_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "sound.plan"
    true_plans.write(path)
    files = true_plans.write_parts(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    foreign = true_plans.write_parts(other, seed=5)
    with pytest.raises(FingerprintMismatch, match="expected a trunk of the plan"):
        verify_plan(path, against=[foreign["trunk"]])
    with pytest.raises(FingerprintMismatch, match="sits on tap 2"):
        verify_plan(path, against=[foreign["hat"]])
    with pytest.raises(InputError, match="second file for 'hat'"):
        verify_plan(path, against=[files["hat"], files["hat"]])
    remove_label(path, "bag")
    with pytest.raises(InputError, match=r"expected a label of the plan .*found 'bag'"):
        verify_plan(path, against=[files["bag"]])


def test_samples_are_whole_persons(tmp_path: Path) -> None:
    path, folder = tmp_path / "sound.plan", tmp_path / "photos"
    true_plans.write(path)
    folder.mkdir()
    for index in range(10):  # more than one batch, with the golden crops
        image = np.random.default_rng(index).integers(0, 256, (40, 30 + index, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    (folder / "broken.jpg").write_bytes(b"no image")
    found = verify_plan(path, samples=folder, bisect=True)
    assert found.ok, found.problems
    assert found.samples.read == 10
    assert [Path(name).name for name in found.samples.unreadable or {}] == ["broken.jpg"]
    assert all(each.crops == 14 for each in found.scores)
    assert all(each.crops == 4 for each in found.golden)


def test_samples_without_an_image(tmp_path: Path) -> None:
    path, folder = tmp_path / "sound.plan", tmp_path / "empty"
    true_plans.write(path)
    folder.mkdir()
    with pytest.raises(InputError, match="readable images"):
        verify_plan(path, samples=folder)


def test_damaged_cache_entry_is_told_and_removed(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "sound.plan"
    true_plans.write(path)
    assert verify_plan(path).ok
    (weights,) = own_cache.glob("*/weights.bin")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    times = weights.stat()
    with weights.open("r+b") as file:
        file.write(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # a bad disk does not touch the time
    found = verify_plan(path)
    assert list(found.cache) == [weights.parent.name]
    assert not found.ok
    assert all(each.ok for each in found.golden)  # it was compiled anew before it ran
    assert verify_plan(path).ok


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_two_trees(tmp_path: Path, layout: str) -> None:
    paths = [tmp_path / "old.plan", tmp_path / "new.plan", tmp_path / "both.plan"]
    for seed in (0, 5):
        true_plans.write(paths[seed > 0], seed=seed)
    for label in ("hat", "bag"):
        remove_label(paths[0], label)
    for label in ("child", "gender"):
        remove_label(paths[1], label)
    merge_plans(*paths)
    files = true_plans.write_parts(tmp_path, seed=5)
    found = verify_plan(paths[2], layout=layout, bisect=True, against=[files["trunk"], files["bag"]])
    assert found.ok, found.problems
    assert [each.name for each in found.golden] == ["child", "gender", "hat", "bag"]
    assert found.bisection is not None
    assert len(found.bisection.probes) == 2 + 3 + 4  # taps 0..1 and 0..2, four branches


def test_plan_without_labels_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "bare.plan"
    true_plans.write(path)
    for label in LABELS:
        remove_label(path, label)
    found = verify_plan(path, bisect=True)
    assert found.ok
    assert len(found.parts) == 1 + len(LABELS)
    assert not found.golden


def test_against_checkpoints_in_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from graftsdk.export import export_plan
    from graftsdk.models import Branch, Trunk

    trunk = Trunk.create("resnet18", input_size=(64, 64), width=0.25)
    trunk.save(tmp_path / "trunk.safetensors")
    branch = Branch.create(trunk, label="hat", tap=5, width=0.5, init="random")
    branch.temperature = 1.7
    branch.save(tmp_path / "hat.safetensors")
    files = [tmp_path / "trunk.safetensors", tmp_path / "hat.safetensors"]
    path = tmp_path / "engine.plan"
    export_plan(path, trunk=files[0], branches=[files[1]])
    sound = verify_plan(path, bisect=True, against=files)
    assert sound.ok, sound.problems
    assert sound.scores[0].difference > 0.0  # torch and ONNX Runtime: close, and two different ways

    # The same document, other weights: what a checkpoint looks like that was changed after its plan was made.
    other = Branch.create(trunk, label="hat", tap=5, width=0.5, init="random", seed=9)
    other.temperature = 1.7
    other.save(files[1])
    found = verify_plan(path, bisect=True, against=files)
    assert found.bisection is not None
    assert found.bisection.faults == (found.bisection.probes[-1].part,)
    assert "label 'hat'" in str(found.bisection.first)


def test_part_of_other_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.plan"
    true_plans.write(path)
    write_onnx_part(tmp_path / "hat.onnx", *toys.branch("hat", 2, classes=("none", "cap", "helmet"), on=TRUNK[1]))
    with pytest.raises(InputError, match="has the classes"):
        verify_plan(path, against=[tmp_path / "hat.onnx"])
