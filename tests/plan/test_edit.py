"""Labels added, replaced, removed, taken back and merged: what changes in the file, and what must not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import toys
from plan import forge

from graftsdk.errors import (
    FingerprintMismatch,
    GraftError,
    InputError,
    MergeConflict,
    PlanCorrupt,
    PlanLimitError,
    PlanPathError,
)
from graftsdk.plan import Part, load_plan
from graftsdk.plan.edit import add_branches, create_plan, merge_plans, remove_label, revert_label


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toys.write(tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


def tensors(path: Path) -> dict[str, bytes]:
    """Every tensor's bytes, cut out of the file by its raw header."""
    header, _, body = forge.split(path.read_bytes())
    del header["__metadata__"]
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items()}


def documents(path: Path) -> dict[str, str]:
    """Every tree and branch as it stands in the file."""
    _, manifest, _ = forge.split(path.read_bytes())
    found = {}
    for tree in manifest["trees"]:
        found[tree["trunk"]] = json.dumps(tree["document"])
        found |= {branch["document"]["label"]: json.dumps(branch) for branch in tree["branches"]}
    return found


def assert_untouched(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    for name, content in before.items():
        assert after[name] == content
        assert hashlib.sha256(after[name]).hexdigest() == hashlib.sha256(content).hexdigest()


def events(path: Path) -> list[tuple[str, str]]:
    with load_plan(path) as plan:
        return [(event.action, event.label) for event in plan.manifest.history]


def current(path: Path) -> dict[str, str]:
    """label -> part."""
    with load_plan(path) as plan:
        return {label: entry[1].part for label in plan.labels if (entry := plan.manifest.find(label))}


def test_add(path: Path) -> None:
    old, texts = tensors(path), documents(path)
    with load_plan(path) as plan:
        digest = plan.digest
    hat = toys.branch("hat", 2, seed=9)
    add_branches(path, [hat])
    assert_untouched(old, tensors(path))
    assert {label: text for label, text in documents(path).items() if label != "hat"} == texts
    assert set(tensors(path)) - set(old) == {hat[0].name, f"{hat[0].name}/own.weight"}
    with load_plan(path) as plan:
        assert plan.labels == ("child", "gender", "backpack", "hat")
        last = plan.manifest.history[-1]
        assert (last.action, last.label, last.source, last.before) == ("add", "hat", digest, None)


def test_add_several_at_once_and_elsewhere(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    add_branches(path, [toys.branch("hat", 2, seed=9), toys.branch("bag", 3, seed=10)], output=tmp_path / "more.plan")
    assert path.read_bytes() == data
    assert list(current(tmp_path / "more.plan")) == ["child", "gender", "backpack", "hat", "bag"]


def test_add_then_remove_leaves_the_rest(path: Path) -> None:
    old, texts = tensors(path), documents(path)
    add_branches(path, [toys.branch("hat", 2, seed=9)])
    remove_label(path, "hat")
    assert_untouched(old, tensors(path))
    assert documents(path) == texts
    assert events(path)[-2:] == [("add", "hat"), ("remove", "hat")]


def test_replace_keeps_the_place_and_the_old_part(path: Path) -> None:
    old = tensors(path)
    new = toys.branch("gender", 1, classes=("female", "male"), seed=9)
    with pytest.raises(MergeConflict):
        add_branches(path, [new])
    assert tensors(path) == old
    add_branches(path, [new], replace_labels=True)
    assert_untouched(old, tensors(path))
    assert list(current(path)) == ["child", "gender", "backpack"]
    assert current(path)["gender"] == new[0].name


def test_remove(path: Path) -> None:
    old, texts = tensors(path), documents(path)
    remove_label(path, "gender")
    assert tensors(path) == old  # the part stays for revert
    del texts["gender"]
    assert documents(path) == texts
    with pytest.raises(InputError, match="gender"):
        remove_label(path, "gender")


def test_revert_of_an_added_label(path: Path) -> None:
    texts = documents(path)
    add_branches(path, [toys.branch("hat", 2, seed=9)])
    revert_label(path, "hat")
    assert documents(path) == texts


def test_revert_goes_back_step_by_step(path: Path) -> None:
    first = current(path)["gender"]
    second = toys.branch("gender", 1, seed=21)
    third = toys.branch("gender", 2, seed=22)
    add_branches(path, [second], replace_labels=True)
    add_branches(path, [third], replace_labels=True)
    remove_label(path, "gender")
    seen = []
    for _ in range(3):
        revert_label(path, "gender")
        seen.append(current(path).get("gender"))
    assert seen == [third[0].name, second[0].name, first]
    revert_label(path, "gender")  # it was added once
    assert "gender" not in current(path)
    data = path.read_bytes()
    with pytest.raises(InputError, match="nothing of label 'gender'"):
        revert_label(path, "gender")
    assert path.read_bytes() == data
    assert set(current(path)) == {"child", "backpack"}


def test_revert_of_a_replacement_keeps_the_place(path: Path) -> None:
    texts = documents(path)
    add_branches(path, [toys.branch("child", 1, seed=9)], replace_labels=True)
    revert_label(path, "child")
    assert documents(path) == texts
    assert list(current(path)) == ["child", "gender", "backpack"]


def test_a_change_after_a_revert_is_taken_back_first(path: Path) -> None:
    first = current(path)["child"]
    add_branches(path, [toys.branch("child", 1, seed=9)], replace_labels=True)
    revert_label(path, "child")
    new = toys.branch("child", 2, seed=10)
    add_branches(path, [new], replace_labels=True)
    assert current(path)["child"] == new[0].name
    revert_label(path, "child")
    assert current(path)["child"] == first


def test_revert_against_a_label_of_another_spelling(path: Path) -> None:
    remove_label(path, "child")
    add_branches(path, [toys.branch("CHILD", 1, seed=9)])
    data = path.read_bytes()
    with pytest.raises(MergeConflict):
        revert_label(path, "child")
    assert path.read_bytes() == data


def test_revert_with_a_history_that_begins_with_a_revert(path: Path) -> None:
    """Found by reading: the list of open changes was popped while empty, an IndexError."""
    data = forge.with_manifest(path.read_bytes(), lambda m: m["history"][0].update(action="revert"))
    path.write_bytes(data)
    with pytest.raises(InputError):
        revert_label(path, "child")


def test_merge_of_two_trees_on_one_trunk(tmp_path: Path) -> None:
    one, two, both = tmp_path / "1.plan", tmp_path / "2.plan", tmp_path / "3.plan"
    toys.write(one, ("child",))
    create_plan(two, toys.trunk(), [toys.branch("hat", 2, seed=9)])
    merge_plans(one, two, both)
    with load_plan(both) as plan:
        assert len(plan.manifest.trees) == 1
        assert plan.labels == ("child", "hat")
        assert plan.manifest.history[-1].action == "merge"
    assert_untouched(tensors(one) | tensors(two), tensors(both))
    assert documents(both) == documents(one) | documents(two)
    revert_label(both, "hat")
    assert list(current(both)) == ["child"]


def moving(tmp_path: Path) -> tuple[Path, Path]:
    """A plan of an old trunk, and one of a new trunk with a newer `child`."""
    old, new = tmp_path / "old.plan", tmp_path / "new.plan"
    toys.write(old, ("child", "gender"))
    stock = toys.trunk(5)
    create_plan(
        new, stock, [toys.branch("child", 1, seed=30, on=stock[1]), toys.branch("hat", 1, seed=31, on=stock[1])]
    )
    return old, new


def test_merge_of_two_trunks(tmp_path: Path) -> None:
    old, new = moving(tmp_path)
    both = tmp_path / "both.plan"
    with pytest.raises(MergeConflict, match="child"):
        merge_plans(old, new, both)
    assert not both.exists()
    merge_plans(old, new, both, replace_labels=True)
    assert_untouched(tensors(old) | tensors(new), tensors(both))
    with load_plan(both) as plan:
        assert [[branch.label for branch in tree.branches] for tree in plan.manifest.trees] == [
            ["gender"], ["child", "hat"],
        ]  # fmt: skip
    before = current(old)["child"]
    revert_label(both, "child")  # back on the old trunk
    assert current(both)["child"] == before
    with load_plan(both) as plan:
        assert [len(tree.branches) for tree in plan.manifest.trees] == [2, 1]


def test_a_label_moves_to_another_trunk_by_add(tmp_path: Path) -> None:
    """Found by reading: the old tree kept its branch, so the plan had the label twice and was refused."""
    old, new = moving(tmp_path)
    both = tmp_path / "both.plan"
    merge_plans(old, new, both, replace_labels=True)
    stock = toys.trunk(5)
    add_branches(both, [toys.branch("gender", 2, seed=40, on=stock[1])], replace_labels=True)
    with load_plan(both) as plan:
        assert [[branch.label for branch in tree.branches] for tree in plan.manifest.trees] == [
            [], ["child", "hat", "gender"],
        ]  # fmt: skip
    revert_label(both, "gender")
    assert current(both)["gender"] == current(old)["gender"]


def test_merge_into_one_of_the_two(tmp_path: Path) -> None:
    old, new = moving(tmp_path)
    merge_plans(old, new, old, replace_labels=True)
    assert set(current(old)) == {"child", "gender", "hat"}
    merge_plans(new, old, new, replace_labels=True)
    assert set(current(new)) == {"child", "gender", "hat"}
    data = documents(old)
    merge_plans(old, old, old)
    assert documents(old) == data


def test_merge_of_other_crops(tmp_path: Path) -> None:
    old, new = moving(tmp_path)
    part, document = toys.trunk(7)
    create_plan(new, (part, replace(document, crop=replace(toys.CROP, fill=9))), [])
    with pytest.raises(InputError, match="crop"):
        merge_plans(old, new, tmp_path / "both.plan")
    assert not (tmp_path / "both.plan").exists()


REFUSALS = {
    "a trunk that is not there": (lambda: toys.branch("hat", on=toys.trunk(9)[1]), FingerprintMismatch),
    "another tap's fingerprint": (lambda: changed(tap=0), FingerprintMismatch),
    "another backbone": (lambda: changed(arch="resnet"), PlanCorrupt),
    "another crop": (lambda: changed(crop=replace(toys.CROP, fill=3)), PlanCorrupt),
    "a tap beyond the trunk": (lambda: changed(tap=200, until=200), FingerprintMismatch),
    "never exported": (lambda: changed(exported=None), PlanCorrupt),
    "there already": (lambda: toys.branch("child", seed=9), MergeConflict),
    "there already but for case": (lambda: toys.branch("Child", seed=9), MergeConflict),
    "there already but for case folding": (lambda: toys.branch("BACKPAC\u212a", seed=9), (MergeConflict, PlanCorrupt)),
    "not in NFC": (lambda: toys.branch("enfant a\u0300 velo", seed=9), PlanCorrupt),
    "a bidi mark": (lambda: toys.branch("chi\u202eld", seed=9), PlanCorrupt),
    "a zero-width space": (lambda: toys.branch("child\u200b", seed=9), PlanCorrupt),
    "a line break": (lambda: toys.branch("hat\nchild", seed=9), PlanCorrupt),
    "NUL": (lambda: toys.branch("hat\0", seed=9), PlanCorrupt),
    "a lone surrogate": (lambda: toys.branch("hat\ud83d", seed=9), PlanCorrupt),
    "no text": (lambda: toys.branch("", seed=9), PlanCorrupt),
    "blanks": (lambda: toys.branch(" hat ", seed=9), PlanCorrupt),
    "257 bytes": (lambda: toys.branch("h" * 257, seed=9), PlanCorrupt),
    "classes equal but for case": (lambda: changed(classes=("Yes", "yes")), PlanCorrupt),
}  # fmt: skip


def changed(**fields: object) -> tuple[Part, object]:
    part, document = toys.branch("hat", 1, seed=9)
    return part, replace(document, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_leave_the_file_as_it_was(path: Path, case: str) -> None:
    data, inode = path.read_bytes(), path.stat().st_ino
    make, leaf = REFUSALS[case]
    with pytest.raises(leaf) as caught:
        add_branches(path, [make()])  # type: ignore[list-item]
    assert isinstance(caught.value, GraftError)
    assert (path.read_bytes(), path.stat().st_ino) == (data, inode)
    assert [entry.name for entry in path.parent.iterdir()] == ["engine.plan"]


@pytest.mark.parametrize(
    "label", ["../../etc/passwd", "{{7*7}}", "os.system('x')", "'; drop table", "<b>", "a/b\\c", "标签 🎒"]
)
def test_a_label_is_text_and_nothing_else(path: Path, label: str) -> None:
    add_branches(path, [toys.branch(label, 1, seed=9)])
    with load_plan(path) as plan:
        assert plan.labels[-1] == label
    remove_label(path, label)
    revert_label(path, label)
    assert label in current(path)


@pytest.mark.parametrize("pair", [("Child", "child"), ("stra\u00dfe", "STRASSE"), ("caf\u00e9", "CAF\u00c9")])
def test_labels_of_one_name_in_a_new_plan(tmp_path: Path, pair: tuple[str, str]) -> None:
    with pytest.raises(MergeConflict):
        create_plan(tmp_path / "p", toys.trunk(), [toys.branch(pair[0], seed=1), toys.branch(pair[1], seed=2)])
    assert list(tmp_path.iterdir()) == []


def test_nfc_and_nfd_are_one_name_and_only_nfc_is_taken(tmp_path: Path) -> None:
    with pytest.raises(PlanCorrupt):
        create_plan(tmp_path / "p", toys.trunk(), [toys.branch("caf\u00e9", seed=1), toys.branch("cafe\u0301", seed=2)])
    assert list(tmp_path.iterdir()) == []


def test_256_labels_and_not_one_more(tmp_path: Path) -> None:
    path, stock, part = tmp_path / "p", toys.trunk(), toys.branch("x", 1)
    entries = [(part[0], replace(part[1], label=f"l{index}")) for index in range(256)]
    create_plan(path, stock, entries)
    with load_plan(path) as plan:
        assert len(plan.labels) == 256
        assert len(plan.parts) == 2  # one part serves them all
    data = path.read_bytes()
    with pytest.raises(PlanLimitError):
        add_branches(path, [part])
    assert path.read_bytes() == data


def test_two_parts_whose_names_collide(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 hex digits are 64 bits: a collision can be made. It must not put one label's weights under another."""
    with load_plan(path) as plan:
        taken = current(path)["child"]
        digest = plan.parts[taken].digest[:16] + "0" * 48
    part, document = toys.branch("hat", 0, seed=9)
    part.__dict__["digest"] = digest
    data = path.read_bytes()
    with pytest.raises(MergeConflict, match="share the name"):
        add_branches(path, [(part, document)])
    assert path.read_bytes() == data


def test_damage_stays_visible_through_a_change(path: Path) -> None:
    """Kept tensors are not hashed while they are copied; their digests go with them."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    add_branches(path, [toys.branch("hat", 2, seed=9)])
    with pytest.raises(PlanCorrupt, match="were changed"):
        load_plan(path)


@pytest.mark.parametrize("act", ["add", "remove", "revert", "merge"])
@pytest.mark.parametrize("where", ["missing", "folder", "NUL"])
def test_no_plan_to_change(tmp_path: Path, act: str, where: str) -> None:
    path = {"missing": tmp_path / "none", "folder": tmp_path, "NUL": "a\0b"}[where]
    acts = {
        "add": lambda: add_branches(path, [toys.branch("hat")]),
        "remove": lambda: remove_label(path, "hat"),
        "revert": lambda: revert_label(path, "hat"),
        "merge": lambda: merge_plans(path, path, tmp_path / "out"),
    }
    with pytest.raises(PlanPathError):
        acts[act]()


def test_source_date_epoch_makes_edits_equal(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    for name in ("1", "2"):
        add_branches(path, [toys.branch("hat", 2, seed=9)], output=tmp_path / name)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    with load_plan(tmp_path / "1") as plan:
        assert plan.manifest.history[-1].when == "2001-09-09T01:46:40Z"
