"""Two writers and a reader on one plan: nobody sees half of it, no change is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toys

from graftsdk.plan import load_plan
from graftsdk.plan.edit import add_branches, merge_plans, remove_label, revert_label

ROUNDS = 50  # of each writer, twice


def start(function: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A process that runs one of this module's functions."""
    code = f"import sys; from fault.{Path(__file__).stem} import *; {function}(*sys.argv[1:])"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=env)


def write(path: str, name: str, rounds: str) -> None:
    """Add a label and change it `rounds` times in all; the last change leaves it there."""
    stock = [toys.branch(name, 1, seed=seed) for seed in (50, 51)]
    add_branches(path, [stock[0]])
    for index in range(1, int(rounds)):
        add_branches(path, [stock[index % 2]], replace_labels=True)


@pytest.mark.parametrize("turn", [1, 2])
def test_two_writers_and_a_reader(tmp_path: Path, turn: int) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    writers = [start("write", path, name, ROUNDS) for name in ("one", "two")]
    seen: dict[str, int] = {}
    reads = 0
    while any(writer.poll() is None for writer in writers):
        with load_plan(path) as plan:  # every byte hashed: old or new, never a mix
            events = len(plan.manifest.history)
            assert seen.setdefault(plan.digest, events) == events
            assert events >= max(seen.values())  # never back in time
            reads += 1
        time.sleep(0.005)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert reads > 0
    with load_plan(path) as plan:
        for name in ("one", "two"):
            assert [event.action for event in plan.manifest.history if event.label == name] == ["add"] + ["replace"] * (
                ROUNDS - 1
            )
        sources = [event.source for event in plan.manifest.history[3:]]
        assert len(set(sources)) == 2 * ROUNDS  # each change was made to the outcome of the one before
        assert set(plan.labels) == {"child", "gender", "backpack", "one", "two"}
    assert os.listdir(tmp_path) == ["engine.plan"]


def merge(path: str, other: str) -> None:
    for _ in range(10):
        merge_plans(path, other, path)
        remove_label(path, "hat")
        revert_label(path, "hat")
        remove_label(path, "hat")


def test_merging_into_a_plan_that_is_edited(tmp_path: Path) -> None:
    """Found by reading: merge took no lock, so that an edit between its read and its write was lost."""
    path, other = tmp_path / "engine.plan", tmp_path / "other.plan"
    toys.write(path)
    toys.write(other, ("hat",))
    workers = [start("write", path, "one", 40), start("merge", path, other)]
    assert [worker.wait() for worker in workers] == [0, 0]
    with load_plan(path) as plan:
        actions = [(event.label, event.action) for event in plan.manifest.history]
        assert actions.count(("one", "replace")) == 39
        assert actions.count(("hat", "merge")) == 10
