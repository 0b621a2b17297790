from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy
from lifecycle.small_registry import TOML, Workshop, save, write_label, write_registry

from graftsdk.errors import FingerprintMismatch, InputError, NonFiniteOutput, PlanCorrupt, PlanPathError
from graftsdk.lifecycle.inspection import checkpoint_document
from graftsdk.lifecycle.registry import Registry, read_registry
from graftsdk.lifecycle.standing import Standing, stand
from graftsdk.lifecycle.updating import UpdateReport, due_steps, update
from graftsdk.plan import load_plan, open_plan

SHORT = {"trunk": "t", "branch": "b", "take": "k", "plan": "p"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_registry(tmp_path)
    return tmp_path


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


def registry(root: Path) -> Registry:
    return read_registry(root / "graft.toml")


def done(root: Path, shop: Workshop, *only: str, trunk: bool = False) -> UpdateReport:
    shop.did.clear()
    return update(registry(root), only=only, trunk=trunk, tools=shop.tools, progress=False)


def standing(root: Path) -> Standing:
    return stand(registry(root))


def states(root: Path) -> dict[str, str]:
    """label -> state, what differs, what is in the plan."""
    return {one.label: " ".join((one.state, *one.stale, one.plan)) for one in standing(root).labels}


def steps(root: Path, *only: str, trunk: bool = False) -> str:
    found = due_steps(standing(root), only, trunk)
    return " ".join(f"{SHORT[step.what]}{':' * bool(step.label)}{step.label}" for step in found)


def homes(root: Path) -> dict[str, str]:
    """label -> its trunk's part."""
    with load_plan(root / "engine.plan") as plan:
        return {branch.label: tree.trunk for tree in plan.manifest.trees for branch in tree.branches}


def tensors(root: Path) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in safetensors.numpy.load_file(root / "engine.plan").items()}


def test_from_an_empty_folder_to_a_plan(root: Path, shop: Workshop) -> None:
    assert states(root) == {"bag": "untrained no", "hat": "untrained no"}
    assert standing(root).trunk.due
    assert steps(root, trunk=True) == "t b:bag b:hat p:bag p:hat"
    with pytest.raises(InputError, match="expected a trunk, found none; train it with --trunk"):
        done(root, shop)
    report = done(root, shop, trunk=True)
    assert shop.did == ["trunk bag,hat", "branch bag", "branch hat", "export bag,hat"]
    assert report.trunk
    assert [(one.label, one.result, one.before, one.after) for one in report.labels] == [
        ("bag", "taken", None, 0.9),
        ("hat", "taken", None, 0.9),
    ]
    assert states(root) == {"bag": "current yes", "hat": "current yes"}
    assert (standing(root).trunk.due, standing(root).trunk.new) == (False, ())
    plan = (root / "engine.plan").read_bytes()
    assert steps(root, trunk=True) == ""
    assert done(root, shop, trunk=True) == UpdateReport(False, (), None)
    assert (shop.did, (root / "engine.plan").read_bytes()) == ([], plan)
    assert not list((root / "branches" / "trunks").iterdir())


def test_one_more_label_leaves_the_others_bytes(root: Path, shop: Workshop) -> None:
    done(root, shop, trunk=True)
    before, part = tensors(root), homes(root)["hat"]
    write_label(root, "tie")
    assert (states(root)["tie"], steps(root)) == ("untrained no", "b:tie p:tie")
    report = done(root, shop)
    assert shop.did == ["branch tie", "export tie"]
    assert report.change is not None
    assert report.change.kept == ("bag", "hat")
    after = tensors(root)
    assert {name: after[name] for name in before} == before
    assert homes(root) == {"bag": part, "hat": part, "tie": part}


@pytest.mark.parametrize("count", [4, 5])
def test_the_trunk_is_due_after_five_new_labels(root: Path, shop: Workshop, count: int) -> None:
    done(root, shop, trunk=True)
    names = [f"label {number}" for number in range(count)]
    for name in names:
        write_label(root, name)
    trunk = standing(root).trunk
    assert (trunk.due, list(trunk.new)) == (count >= 5, names)
    done(root, shop)
    assert not any(did.startswith("trunk") for did in shop.did)
    assert standing(root).trunk.due == (count >= 5)
    assert steps(root) == ""


@pytest.mark.parametrize(
    ("toml", "stale"),
    [
        (TOML.replace("tap = 1", "tap = 2"), "tap"),
        (TOML.replace("tap = 1\nuntil = 2", "tap = 1"), "until"),
        (TOML + "pooling = 'bilinear'", "pooling"),
        (TOML + "width = 0.5", "width"),
        (TOML + "epochs = 7\ntolerance = 0.2", ""),
        (TOML.replace("tap = 1", "tap = 'auto'") + "width = 'auto'", ""),
    ],
)
def test_options_that_differ_make_a_branch_stale(root: Path, shop: Workshop, toml: str, stale: str) -> None:
    done(root, shop, trunk=True)
    (root / "graft.toml").write_text(toml)
    assert states(root)["hat"] == (f"stale {stale} yes" if stale else "current yes")


def test_data_that_changed(root: Path, shop: Workshop) -> None:
    done(root, shop, trunk=True)
    write_label(root, "hat", images=3)
    assert states(root) == {"bag": "current yes", "hat": "stale data yes"}
    assert standing(root).trunk.new == ("hat",)
    shop.auc["hat"] = 0.5  # on other images: no figure to compare with
    assert done(root, shop).labels[0].result == "taken"
    assert shop.did == ["branch hat", "export hat"]
    assert states(root) == {"bag": "current yes", "hat": "current yes"}


@pytest.mark.parametrize(("fall", "kept"), [(0.009, False), (0.011, True), (-0.02, False)])
def test_a_label_that_falls_keeps_its_branch_on_the_old_trunk(
    root: Path, shop: Workshop, fall: float, kept: bool
) -> None:
    done(root, shop, trunk=True)
    old, before, parts = homes(root)["hat"], tensors(root), (root / "branches" / "hat.safetensors").read_bytes()
    write_label(root, "tie")
    shop.seed, shop.auc = 1, {"hat": 0.9 - fall}
    report = done(root, shop, trunk=True)
    assert shop.did[0] == "trunk bag,hat,tie"
    found = {one.label: one for one in report.labels}
    assert {label: one.result for label, one in found.items()} == {
        "bag": "taken",
        "hat": "kept" if kept else "taken",
        "tie": "taken",
    }
    assert (found["hat"].before, found["hat"].after) == (0.9, pytest.approx(0.9 - fall))
    new = homes(root)["tie"]
    assert homes(root) == {"bag": new, "hat": old if kept else new, "tie": new}
    assert new != old
    assert {name: tensors(root)[name] for name in before} == before
    assert states(root)["hat"] == ("kept trunk yes" if kept else "current yes")
    assert ((root / "branches" / "hat.safetensors").read_bytes() == parts) == kept
    assert steps(root, trunk=True) == ""  # decided once
    again = done(root, shop)
    assert [(one.label, one.result, one.before, one.after) for one in again.labels] == (
        [("hat", "kept", 0.9, pytest.approx(0.9 - fall))] if kept else []
    )
    assert (shop.did, again.change) == ([], None)
    if kept:
        (root / "graft.toml").write_text(f"{TOML}tolerance = 0.1")
        assert steps(root) == "k:hat p:hat"
        done(root, shop)
        assert shop.did == ["export hat"]
        assert homes(root)["hat"] == new


def test_another_tap_on_the_same_trunk_is_taken_whatever_it_gives(root: Path, shop: Workshop) -> None:
    done(root, shop, trunk=True)
    (root / "graft.toml").write_text(TOML.replace("tap = 1\nuntil = 2", "tap = 2\nuntil = 3"))
    shop.auc = {"hat": 0.5}
    assert [one.result for one in done(root, shop).labels] == ["taken", "taken"]
    assert states(root) == {"bag": "current yes", "hat": "current yes"}


def test_a_new_plan_takes_each_label_from_its_own_trunk(root: Path, shop: Workshop) -> None:
    done(root, shop, trunk=True)
    write_label(root, "tie")
    shop.seed, shop.auc = 1, {"hat": 0.5}
    done(root, shop, trunk=True)
    was = homes(root)
    (root / "engine.plan").unlink()
    assert states(root) == {"bag": "current no", "hat": "kept trunk no", "tie": "current no"}
    done(root, shop)
    assert homes(root) == was
    (root / "engine.plan").unlink()
    for path in (root / "branches" / "trunks").iterdir():
        path.unlink()
    with pytest.raises(FingerprintMismatch, match="hat.safetensors: expected its trunk"):
        done(root, shop)


def test_only_some_labels(root: Path, shop: Workshop) -> None:
    assert steps(root, "hat", trunk=True) == "t b:hat p:hat"
    done(root, shop, "hat", trunk=True)
    assert shop.did == ["trunk bag,hat", "branch hat", "export hat"]
    assert states(root) == {"bag": "untrained no", "hat": "current yes"}
    with pytest.raises(InputError, match="expected labels of the registry, 'bag', 'hat', found 'cap'"):
        steps(root, "cap")


@pytest.mark.parametrize("where", ["trunk", "bag", "hat"])
def test_an_interruption_leaves_the_plan_and_is_gone_on_from(root: Path, shop: Workshop, where: str) -> None:
    done(root, shop, trunk=True)
    plan, trunk = (root / "engine.plan").read_bytes(), (root / "trunk.safetensors").read_bytes()
    write_label(root, "tie")
    shop.seed, shop.fails = 1, {where: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        done(root, shop, trunk=True)
    assert (root / "engine.plan").read_bytes() == plan
    assert ((root / "trunk.safetensors").read_bytes() == trunk) == (where == "trunk")
    done(root, shop, trunk=True)
    again = {"trunk": ["trunk bag,hat,tie", "branch bag"], "bag": ["branch bag"], "hat": []}[where]
    assert shop.did == [*again, "branch hat", "branch tie", "export bag,hat,tie"]
    assert set(states(root).values()) == {"current yes"}


def test_the_state_of_a_trunk_on_other_data_is_not_resumed(root: Path, shop: Workshop) -> None:
    def names() -> set[str]:
        return {path.name for path in (root / "branches" / "trunks").iterdir()}

    shop.fails = {"trunk": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        done(root, shop, trunk=True)
    first = names()
    write_label(root, "tie")
    shop.fails = {"trunk": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        done(root, shop, trunk=True)
    assert len(first) == len(names()) == 1
    assert first != names()


def test_a_kill_between_training_and_taking(root: Path, shop: Workshop) -> None:
    done(root, shop, trunk=True)
    write_label(root, "hat", images=3)
    found = registry(root)
    shop.train_branch(
        root, "hat", found.trunk, found.tried("hat"), found.labels["hat"].options, cache=None, progress=False
    )
    assert steps(root) == "k:hat p:hat"
    done(root, shop)
    assert (shop.did, states(root)["hat"]) == (["export hat"], "current yes")


def test_a_label_that_fails_does_not_stop_the_others(root: Path, shop: Workshop) -> None:
    shop.fails = {"bag": NonFiniteOutput("loss of step 3")}
    report = done(root, shop, trunk=True)
    assert [(one.label, one.result, one.note) for one in report.labels] == [
        ("bag", "failed", "loss of step 3"),
        ("hat", "taken", ""),
    ]
    assert states(root) == {"bag": "untrained no", "hat": "current yes"}


def test_what_cannot_be_used_stands_with_its_label(root: Path, shop: Workshop) -> None:
    done(root, shop, trunk=True)
    for path in (root / "hat" / "val" / "yes").iterdir():
        path.unlink()
    problem = {one.label: one.problem for one in standing(root).labels}
    assert "expected images" in problem["hat"]
    assert problem["bag"] == ""
    for words, trunk in (((), False), (("bag",), True)):
        with pytest.raises(InputError, match="label 'hat': .*expected images"):
            steps(root, *words, trunk=trunk)
    assert steps(root, "bag") == ""
    (root / "branches" / "bag.safetensors").write_bytes((root / "branches" / "hat.safetensors").read_bytes())
    assert "expected the branch 'bag', found another" in standing(root).labels[0].problem
    (root / "trunk.safetensors").write_bytes((root / "branches" / "hat.safetensors").read_bytes())
    with pytest.raises(PlanCorrupt, match="expected a trunk's checkpoint"):
        standing(root)


def test_a_trunk_that_is_wanted_otherwise(root: Path, shop: Workshop) -> None:
    done(root, shop, trunk=True)
    (root / "graft.toml").write_text(TOML.replace('"toy"', '"resnet18"').replace("[32, 32]", "[48, 32]"))
    assert standing(root).trunk.differing == ("arch", "size")
    assert standing(root).trunk.due
    with pytest.raises(InputError, match="one plan has one crop, so name a new plan"):
        done(root, shop, trunk=True)
    assert shop.did == []
    (root / "graft.toml").write_text(f"plan = 'out/engine.plan'{TOML}")
    with pytest.raises(PlanPathError, match="out is none; create it first"):
        done(root, shop, trunk=True)
    assert shop.did == []
    (root / "graft.toml").write_text(TOML.replace("steps = 1", ""))
    write_label(root, "tie")
    with pytest.raises(InputError, match="graft.toml: trunk: length of training"):
        done(root, shop, trunk=True)


def test_of_three_classes_the_one_that_falls_most_decides(root: Path, shop: Workshop) -> None:
    write_label(root, "age", ("old", "young", "child"))
    (root / "graft.toml").write_text(f"{TOML}[labels.age]\nclasses = ['old', 'young', 'child']")
    done(root, shop, trunk=True)
    path = root / "branches" / "age.safetensors"
    document = checkpoint_document(path)
    save(path, replace(document, metrics={"young.auc": 0.99, "child.auc": 0.8}))
    assert next(one.auc for one in standing(root).labels if one.label == "age") == pytest.approx(0.895)
    write_label(root, "tie")
    shop.seed = 1  # 0.9 and 0.9: the mean rises
    assert {one.label: one.result for one in done(root, shop, trunk=True).labels}["age"] == "kept"


def test_what_one_label_trains_on_no_other_is_judged_by(root: Path, shop: Workshop) -> None:
    shutil.copyfile(root / "hat" / "train" / "yes" / "0.png", root / "bag" / "val" / "no" / "0.png")
    with pytest.raises(InputError, match="expected nobody both in train and in val, found 1 image with the same bytes"):
        done(root, shop, trunk=True)
    assert not (root / "trunk.safetensors").exists()


def test_labels_of_the_plan_that_are_not_here_stay(root: Path, shop: Workshop) -> None:
    done(root, shop, trunk=True)
    (root / "bag").rename(root / "bags")
    assert standing(root).unregistered == ("bag",)
    done(root, shop)
    with open_plan(root / "engine.plan") as plan:
        assert plan.labels == ("bag", "hat", "bags")
