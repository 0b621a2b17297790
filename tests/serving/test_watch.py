"""The plan's file under a running predictor: real edits are taken, anything else leaves the old plan serving."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toys

from graftsdk.errors import EngineOutOfMemory, PlanPathError
from graftsdk.plan.edit import remove_label, revert_label
from graftsdk.predictor import Predictor
from graftsdk.serving import watch
from graftsdk.serving.watch import PlanWatcher


@pytest.fixture
def plan(toy_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(toy_path, tmp_path / "engine.plan"))


class Watched:
    """A predictor and its watcher, whose thread has ended: the test looks itself."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.done: list[Any] = []
        self.watcher = PlanWatcher(predictor, self.done.append, 3600.0)
        self.watcher.close()

    def look(self) -> None:
        self.watcher.look()

    def answers(self) -> set[str]:
        return set(self.predictor.run(toys.crops(1)))


@pytest.fixture
def watched(plan: Path) -> Iterator[Watched]:
    with Predictor(plan, threads=1) as predictor:
        yield Watched(predictor)


def test_a_label_is_removed_and_taken_back_by_edits_of_the_plan(watched: Watched, plan: Path) -> None:
    remove_label(plan, "child")
    watched.look()
    assert watched.answers() == {"gender", "backpack"} and watched.done[-1].removed == ("child",)
    revert_label(plan, "child")
    watched.look()
    assert watched.answers() == {"child", "gender", "backpack"} and watched.watcher.refused is None
    assert all(reload.largest == 0.0 for reload in watched.done)  # the labels that stayed answer as before


def test_the_thread_takes_it_by_itself(plan: Path) -> None:
    import threading

    seen = threading.Event()
    with Predictor(plan, threads=1) as predictor:
        watcher = PlanWatcher(predictor, lambda done: seen.set(), 0.01)
        remove_label(plan, "child")
        assert seen.wait(20)
        watcher.close()
        assert "child" not in predictor.labels


def test_a_file_that_grows_is_refused_until_it_is_whole(watched: Watched, plan: Path, tmp_path: Path) -> None:
    toys.write(tmp_path / "other.plan", ["child", "added"])
    content = (tmp_path / "other.plan").read_bytes()
    plan.unlink()  # a copy into the place of the old file, which itself stays open under the predictor
    for size in (0, 100, len(content) - 1):
        plan.write_bytes(content[:size])
        watched.look()
        assert watched.watcher.refused and "added" not in watched.answers()
    plan.write_bytes(content)
    watched.look()
    assert watched.watcher.refused is None and watched.answers() == {"child", "added"}


@pytest.mark.parametrize("what", ["gone", "a folder", "a dangling link"])
def test_what_is_no_file_leaves_the_old_plan(watched: Watched, plan: Path, what: str) -> None:
    plan.unlink()
    if what == "a folder":
        plan.mkdir()
    elif what == "a dangling link":
        plan.symlink_to("nowhere")
    watched.look()
    watched.look()
    assert watched.answers() == {"child", "gender", "backpack"}
    assert (watched.watcher.refused is not None) == (what == "a folder")


def test_garbage_is_one_line_in_the_log(watched: Watched, plan: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "graftsdk.serving"):
        for _ in range(2):  # the same garbage twice is another file and the same news
            (plan.parent / "new").write_bytes(b"garbage\n" * 100)
            (plan.parent / "new").replace(plan)
            watched.look()
            watched.look()
    assert watched.done == [None, None] and len(caplog.records) == 1
    assert watched.watcher.refused is not None and "\n" not in watched.watcher.refused


def _opened(error: OSError) -> PlanPathError:
    """As opening a plan tells what the system said."""
    try:
        raise PlanPathError("expected a plan") from error
    except PlanPathError as found:
        return found


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (EngineOutOfMemory("expected memory"), True),
        (OSError(24, "Too many open files"), True),
        (_opened(OSError(24, "Too many open files")), True),
        (KeyError("x"), False),
    ],
)
def test_what_was_not_the_file_s_fault_is_tried_again(
    watched: Watched, plan: Path, error: Exception, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reload, left, now = watched.predictor.reload, [error], [100.0]

    def failing() -> Any:
        if left:
            raise left.pop()
        return reload()

    monkeypatch.setattr(watched.predictor, "reload", failing)
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    remove_label(plan, "child")
    watched.look()
    watched.look()
    assert watched.done == [None] and watched.watcher.refused and "child" in watched.answers()
    now[0] += 31
    watched.look()
    assert ("child" not in watched.answers()) == again and (watched.watcher.refused is None) == again


def test_whoever_counts_cannot_end_the_watch(plan: Path, caplog: pytest.LogCaptureFixture) -> None:
    import threading

    seen, calls = threading.Event(), []

    def count(done: Any) -> None:
        calls.append(done)
        if len(calls) > 1:
            seen.set()
        raise RuntimeError("the counter is broken")

    with Predictor(plan, threads=1) as predictor:
        watcher = PlanWatcher(predictor, count, 0.01)
        remove_label(plan, "child")
        for _ in range(2000):
            if calls:
                break
            threading.Event().wait(0.01)
        revert_label(plan, "child")
        assert seen.wait(20)
        watcher.close()
        assert "child" in predictor.labels
