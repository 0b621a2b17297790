"""Threads, forks, interrupts, exits, disks and files that change: a predictor is right or says why, and never hangs."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import toys

from graftsdk import Predictor
from graftsdk.engines import Cache
from graftsdk.errors import EngineClosed, InputError, PlanError
from graftsdk.plan.edit import add_branches, remove_label

IMAGE = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
CROPS = toys.crops(3)
BOXES = [[3, 4, 50, 99], [0, 0, 90, 120]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toys.write(tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


def bits(predictor: Predictor) -> dict[str, bytes]:
    return {label: scores.tobytes() for label, scores in predictor.run(CROPS).items()}


def in_child(job: Callable[[], bool]) -> None:
    """Fork; the child must find `job` true and leave with 0, within 20 seconds."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            code = 0 if job() else 4
        finally:
            os._exit(code)
    for _ in range(400):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def python(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    # No empty entry: it would put the working directory, the source tree, before the installed package.
    paths = filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    tests = os.pathsep.join(paths)
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": tests, **environment},
    )


# --- options and files -----------------------------------------------------------------------------------------------


def test_it_pickles_what_it_was_made_from(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    labels, thresholds = ["gender", "child"], {"gender": {"male": 0.9}, "child": 0.2}
    with Predictor("engine.plan", labels=labels, thresholds=thresholds) as predictor:
        labels.append("nobody")
        thresholds["gender"]["male"] = 2  # type: ignore[index]
        monkeypatch.chdir("/")
        with pickle.loads(pickle.dumps(predictor)) as twin:
            assert twin.labels == ("gender", "child")
            person = twin.predict(IMAGE)[0]
            assert dict(person["gender"].thresholds) == {"female": 0.4, "male": 0.9}
            assert person["child"].threshold == 0.2


def test_numbers_of_numpy_are_numbers(path: Path) -> None:
    with Predictor(path, thresholds={"child": np.float32(0.25)}, min_score=np.float64(0.5)) as predictor:  # type: ignore[dict-item]
        assert predictor.predict(IMAGE)[0]["child"].threshold == 0.25


@pytest.mark.parametrize(
    "options",
    [
        {"labels": 7},
        {"labels": [["child"]]},
        {"labels": b"child"},
        {"thresholds": 0.5},
        {"thresholds": [("child", 0.5)]},
        {"thresholds": {"child": "high"}},
        {"thresholds": {"child": None}},
        {"min_score": "high"},
        {"min_score": True},
        {"min_score": float("nan")},
        {"threads": "two"},
    ],
)
def test_options_of_another_type(path: Path, options: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        Predictor(path, **options)


def test_a_refused_or_closed_predictor_holds_no_file(path: Path) -> None:
    Predictor(path).close()  # compiles: here it may be the first of all, and a compile leaves a ring to the collector
    gc.collect()
    gc.disable()  # the collector would hide what is only reachable in a ring
    try:
        before = len(os.listdir("/proc/self/fd"))
        kept = []
        for _ in range(5):
            with pytest.raises(InputError):
                Predictor(path, thresholds={"nobody": 1})
            kept.append(Predictor(path))
            kept[-1].close()
        assert len(os.listdir("/proc/self/fd")) == before
        assert kept[0].labels == kept[0].plan.labels
    finally:
        gc.enable()


def test_the_folder_of_an_empty_path_is_not_predicted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with Predictor(path) as predictor, pytest.raises(InputError, match="image: expected a file"):
        predictor.predict("")


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_a_plan_that_is_replaced_answers_as_it_did_until_it_is_opened_again(path: Path, layout: str) -> None:
    with Predictor(path, layout=layout) as predictor:  # type: ignore[arg-type]
        before, digest = bits(predictor), predictor.plan.digest
        remove_label(path, "child")
        add_branches(path, [toys.branch("gender", 3, seed=70)], replace_labels=True)
        Cache().clear()  # so that the child has to compile, from the plan that is gone
        in_child(lambda: bits(predictor) == before and predictor.plan.digest == digest)
        assert bits(predictor) == before
        with Predictor(path, layout=layout) as fresh:  # type: ignore[arg-type]
            assert fresh.labels == ("gender", "backpack")
            after = bits(fresh)
            assert after["backpack"] == before["backpack"] and after["gender"] != before["gender"]
        with pytest.raises(InputError, match="no label 'child'"):
            Predictor(path, labels=["child"])
        path.unlink()
        assert bits(predictor) == before
        with pytest.raises(PlanError):
            pickle.loads(pickle.dumps(predictor))


# --- threads ---------------------------------------------------------------------------------------------------------


def test_a_storm_of_openings_runs_and_closings(path: Path) -> None:
    with Predictor(path) as stock:
        expected, people = bits(stock), stock.predict(IMAGE, boxes=BOXES).to_dict()["persons"]
    shared: list[Predictor] = [Predictor(path)]
    errors: list[type[BaseException]] = []

    def worker(seed: int) -> int:
        dice, done = random.Random(seed), 0
        for _ in range(40):
            predictor = shared[0]
            try:
                match dice.randrange(8):
                    case 0:
                        shared[0] = Predictor(path, layout=dice.choice(["merged", "split"]))  # type: ignore[arg-type]
                        predictor.close()
                    case 1:
                        with Predictor(path, labels=["gender"]) as own:
                            assert bits(own)["gender"] == expected["gender"]
                    case 2 | 3 | 4:
                        assert bits(predictor) == expected
                    case _:
                        assert predictor.predict(IMAGE, boxes=BOXES).to_dict()["persons"] == people
                done += 1
            except EngineClosed as error:
                errors.append(type(error))
        return done

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(16) as pool:
            done = sum(pool.map(worker, range(16)))
    finally:
        sys.setswitchinterval(interval)
    assert set(errors) <= {EngineClosed}
    assert done + len(errors) == 16 * 40 and done > 16 * 20
    shared[0].close()


def test_close_with_runs_in_flight(path: Path) -> None:
    for _ in range(5):
        predictor = Predictor(path)
        people = predictor.predict(IMAGE, boxes=BOXES * 40).to_dict()["persons"]
        ready = threading.Barrier(17)

        def job(predictor: Predictor = predictor, ready: threading.Barrier = ready) -> object:
            ready.wait()
            try:
                return predictor.predict(IMAGE, boxes=BOXES * 40).to_dict()["persons"]
            except EngineClosed:
                return None

        with ThreadPoolExecutor(16) as pool:
            jobs = [pool.submit(job) for _ in range(16)]
            ready.wait()
            time.sleep(0.01)
            predictor.close()
            assert all(found in (None, people) for found in (job.result(timeout=20) for job in jobs))
        with pytest.raises(EngineClosed):
            predictor.run(CROPS)


def test_an_interrupt_leaves_it_usable(path: Path) -> None:
    script = """
import os, signal, sys, threading, time
import numpy as np, toys
from graftsdk import Predictor
image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
boxes = [[i % 50, i % 70, i % 50 + 100, i % 70 + 200] for i in range(200)]
predictor = Predictor(sys.argv[1])
expected = predictor.predict(image, boxes=boxes).to_dict()["persons"]
interrupted = 0
for i in range(20):
    try:
        threading.Timer(0.002 + 0.004 * i, os.kill, (os.getpid(), signal.SIGINT)).start()
        while True:
            predictor.predict(image, boxes=boxes)
    except KeyboardInterrupt:
        interrupted += 1
    assert predictor.predict(image, boxes=boxes).to_dict()["persons"] == expected
print(interrupted)
"""
    done = python(script, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "20\n", "")


@pytest.mark.parametrize("kept", ["global", "ring", "thread", "with"])
def test_the_interpreter_exits_with_live_predictors(path: Path, kept: str) -> None:
    script = """
import sys, threading
import numpy as np, toys
from graftsdk import Predictor
crops = toys.crops(2)
predictor = Predictor(sys.argv[1])
predictor.run(crops)
if sys.argv[2] == "ring":
    predictor.itself = predictor
    del predictor
elif sys.argv[2] == "thread":
    def forever():
        while True:
            predictor.run(crops)
    for _ in range(4):
        threading.Thread(target=forever, daemon=True).start()
elif sys.argv[2] == "with":
    with predictor:
        sys.exit(0)
"""
    done = python(script, path, kept)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_call_from_an_event_loop_after_close(path: Path) -> None:
    predictor = Predictor(path)
    predictor.close()
    with pytest.raises(EngineClosed):
        asyncio.run(predictor.apredict(IMAGE))
    assert predictor._pools == {}  # nobody would end its threads


def test_a_call_from_an_event_loop_that_meets_close(path: Path) -> None:
    class Slow(ThreadPoolExecutor):
        def submit(self, *arguments, **options):  # type: ignore[no-untyped-def]
            predictor.close()
            return super().submit(*arguments, **options)

    predictor = Predictor(path)
    predictor._pools[os.getpid()] = Slow(1)
    with pytest.raises(EngineClosed):
        asyncio.run(predictor.apredict(IMAGE))


# --- forks -----------------------------------------------------------------------------------------------------------


def test_workers_forked_after_loading_while_threads_run(path: Path) -> None:
    """As a web server does that loads its application first: threads at work, then forks, and forks of those."""
    with Predictor(path) as predictor, Predictor(path, layout="split") as split:
        expected, stop = bits(predictor), threading.Event()

        def work() -> int:
            count = 0
            while not stop.is_set():
                assert bits(predictor) == expected
                predictor.predict(IMAGE, boxes=BOXES)
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(work) for _ in range(4)]
            for _ in range(8):
                in_child(lambda: bits(predictor) == expected and bits(split) == expected)
            stop.set()
            assert all(job.result(timeout=20) > 0 for job in jobs)
        assert bits(split) == expected


def test_a_child_forked_under_the_cache_lock_blocks_nobody(path: Path) -> None:
    """A descriptor that a child inherits holds its lock, as long as the child lives, unless it is given back."""
    cache = Cache()
    Predictor(path).close()
    with cache._locked():
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        done = threading.Event()

        def lock() -> None:
            with cache._locked():
                done.set()

        threading.Thread(target=lock, daemon=True).start()
        assert done.wait(10)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- disks -----------------------------------------------------------------------------------------------------------

OPEN_AND_RUN = """
import resource, sys
import toys
from graftsdk import Predictor
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
with Predictor(sys.argv[1], layout="split") as predictor:
    print({label: scores.tobytes().hex() for label, scores in predictor.run(toys.crops(3)).items()})
"""


@pytest.mark.parametrize("limit", [0, 1, 4096, 20_000])
def test_a_full_disk_under_the_cache(path: Path, tmp_path: Path, limit: int) -> None:
    with Predictor(path) as predictor:
        expected = {label: scores.hex() for label, scores in bits(predictor).items()}
    root = tmp_path / "xdg"
    done = python(OPEN_AND_RUN, path, limit, XDG_CACHE_HOME=str(root))
    assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr
    assert not list(root.rglob("*.tmp*"))
    done = python(OPEN_AND_RUN, path, XDG_CACHE_HOME=str(root))
    assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr


@pytest.mark.parametrize("kind", ["a file in its place", "a file above it", "nowhere", "/dev/null"])
def test_a_cache_that_cannot_be_written(path: Path, tmp_path: Path, kind: str) -> None:
    with Predictor(path) as predictor:
        expected = {label: scores.hex() for label, scores in bits(predictor).items()}
    root = {"/dev/null": "/dev/null", "nowhere": "/proc/nowhere"}.get(kind, str(tmp_path / "xdg"))
    if kind == "a file above it":
        (tmp_path / "xdg").write_text("")
    elif kind == "a file in its place":
        (tmp_path / "xdg").mkdir()
        (tmp_path / "xdg" / "graftsdk").write_text("")
    done = python(OPEN_AND_RUN, path, XDG_CACHE_HOME=root)
    assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr


def test_the_callers_arithmetic_stays_as_it_was(tmp_path: Path) -> None:
    """ONNX Runtime can make a thread flush subnormal numbers: other code of the process would compute otherwise."""
    toys.write(tmp_path / "p")
    code = (
        "import sys, numpy as np; import graftsdk, toys\n"
        "with graftsdk.Predictor(sys.argv[1]) as predictor: predictor.run(toys.crops(2))\n"
        "print(float(np.array([1e-40], np.float32)[0] * np.float32(1)))"
    )
    done = python(code, tmp_path / "p")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
