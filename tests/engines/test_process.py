"""Engines among threads, across forks and spawns, and while they are closed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from engine_graphs import HERE, crops, merged, split

from graftsdk.engines import open_engine
from graftsdk.errors import EngineClosed

Run = Callable[..., subprocess.CompletedProcess[str]]

PRELUDE = """
import os, sys, threading, multiprocessing
from engine_graphs import HERE, crops, merged, split
from graftsdk.engines import open_engine, share_threads
from graftsdk.errors import EngineError, EngineForked, EngineIncompatible, InputError
def bits(engine, count=5):
    return engine.run({"crops": crops(count)})["a/scores"].tobytes()
def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            code = 0 if work() else 3
        except SystemExit:
            raise  # of a child of this child
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
            code = 4
        if code:
            os._exit(code)
        sys.exit(0)  # the whole way out: finalisers run, nothing of the parent's is destroyed
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_eight_threads_give_the_bits_of_one() -> None:
    feeds = [crops(1 + seed % 5, seed) for seed in range(50)]
    with open_engine(split(), device="cpu", threads=2) as engine:

        def work(order: int) -> list[bytes]:
            names = ["a/scores", "b/scores"]
            return [b"".join(a.tobytes() for a in engine.run({"crops": feed}, names).values()) for feed in feeds]

        serial = work(0)
        with ThreadPoolExecutor(8) as pool:
            assert all(found == serial for found in pool.map(work, range(8)))


def test_close_with_runs_in_flight() -> None:
    """Each run gives the right bits or raises EngineClosed; nothing else, and nothing hangs."""
    feed = {"crops": crops(64)}
    with open_engine([merged()], device="cpu") as engine:
        expected = engine.run(feed)["a/scores"].tobytes()
    for _ in range(5):
        engine = open_engine([merged()], device="cpu")
        started, outcomes = threading.Barrier(17), []

        def work(engine: object = engine, started: threading.Barrier = started, outcomes: list[str] = outcomes) -> None:
            started.wait()
            try:
                for _ in range(20):
                    found = engine.run(feed)["a/scores"].tobytes()  # type: ignore[attr-defined]
                    outcomes.append("right" if found == expected else "wrong")
            except EngineClosed:
                outcomes.append("closed")

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        started.wait()
        while "right" not in outcomes:
            pass
        engine.close()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert set(outcomes) == {"right", "closed"}
        assert outcomes.count("closed") == 16


def test_closed_is_closed() -> None:
    with open_engine([merged()], device="cpu") as engine:
        pass
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed, match="open another"):
        engine.run({"crops": crops(1)})


def test_close_lets_go_of_the_sessions() -> None:
    import gc
    import weakref

    engine = open_engine([merged()], device="cpu")
    assert engine._runners is not None
    session = weakref.ref(engine._runners[0]._session)  # type: ignore[attr-defined]
    engine.close()
    gc.collect()
    assert session() is None


FORK = (
    PRELUDE
    + """
loads = []
engine = open_engine([merged(on_load=lambda: loads.append(1))], device="cpu", threads=2, cache={cache})
closed = open_engine(split(), device="cpu")
closed_bits = bits(closed)
closed.close()
expected = bits(engine)
def work():
    again = bits(engine) == expected and bits(engine) == expected
    with open_engine([merged()], device="cpu") as other:
        again = again and bits(other) == expected
    if {cache}:
        again = again and len(loads) <= 1
    if {closes}:
        engine.close()
    return again
codes = []
for _ in range({times}):
    codes.append(in_child(work))
    assert bits(engine) == expected
assert codes == [0] * {times}, codes
"""
)


@pytest.mark.parametrize(("cache", "closes", "times"), [(True, False, 10), (True, True, 2), (False, False, 2)])
def test_a_forked_child_reopens(cache: bool, closes: bool, times: int, python: Run) -> None:
    python(FORK.replace("{cache}", str(cache)).replace("{closes}", str(closes)).replace("{times}", str(times)))


def test_fork_while_other_threads_run(python: Run) -> None:
    python(
        PRELUDE
        + """
engine = open_engine([merged()], device="cpu", threads=2)
expected = bits(engine, 64)
stop, wrong = threading.Event(), []
def busy():
    while not stop.is_set():
        if bits(engine, 64) != expected:
            wrong.append(1)
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()
codes = [in_child(lambda: bits(engine, 64) == expected) for _ in range(10)]
stop.set()
for thread in threads:
    thread.join()
assert codes == [0] * 10 and not wrong, (codes, wrong)
"""
    )


def test_a_grandchild_reopens_too(python: Run) -> None:
    python(
        PRELUDE
        + """
engine = open_engine([merged()], device="cpu")
expected = bits(engine)
assert in_child(lambda: bits(engine) == expected and in_child(lambda: bits(engine) == expected) == 0) == 0
"""
    )


def test_a_cuda_engine_is_not_reopened_in_a_child(python: Run) -> None:
    """The device is only named so here: what is tested is the refusal."""
    python(
        PRELUDE
        + """
engine = open_engine([merged()], device="cpu")
engine.device = "cuda"
def work():
    try:
        bits(engine)
    except EngineForked as error:
        return "spawn" in str(error)
assert in_child(work) == 0
"""
    )


def test_spawned_processes_open_their_own(python: Run) -> None:
    code = (
        PRELUDE
        + """
import engine_jobs
if __name__ == "__main__":
    with open_engine([merged()], device="cpu") as engine, multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(engine_jobs.bits) == (bits(engine), False)
        pool.close()
        pool.join()
"""
    )
    python(code)


def test_exit_with_live_engines_and_threads(python: Run) -> None:
    code = (
        PRELUDE
        + """
engine = open_engine([merged()], device="cpu", threads=2)
started = threading.Event()
def busy():
    while True:
        bits(engine)
        started.set()
threading.Thread(target=busy, daemon=True).start()
started.wait()
"""
    )
    for _ in range(3):
        assert python(code).stderr == ""


def test_nothing_is_reported_to_anyone(python: Run, tmp_path: Path) -> None:
    """ONNX Runtime 1.32 reports use to its maker, from a thread of its own, unless it is told not to."""
    code = (
        PRELUDE + "open_engine([merged()], device='cpu', threads=1).close()\nprint(len(os.listdir('/proc/self/task')))"
    )
    (tmp_path / "home").mkdir()
    environment = {"HOME": str(tmp_path / "home"), "OPENBLAS_NUM_THREADS": "1"}
    assert python(code, **environment).stdout == "1\n"
    assert not list((tmp_path / "home").rglob("*"))


def test_a_quiet_start(python: Run) -> None:
    """Compiling and opening write nothing to stderr where it is no terminal."""
    done = python(PRELUDE + "open_engine(split(), device='cpu').close()")
    assert (done.stdout, done.stderr) == ("", "")


def test_shared_threads(python: Run) -> None:
    python(
        PRELUDE
        + """
from graftsdk import share_threads
assert "onnxruntime" not in sys.modules
share_threads(2)
share_threads(2)
try:
    share_threads(1)
except EngineIncompatible as error:
    assert "shares 2 threads" in str(error), error
else:
    raise AssertionError("the pool was resized")
try:
    open_engine([merged()], device="cpu", threads=1)
except InputError as error:
    assert "expected 2" in str(error), error
else:
    raise AssertionError("threads=1 was taken")
engines = [open_engine([merged()], device="cpu")]
before = len(os.listdir("/proc/self/task"))
engines.append(open_engine(split(), device="cpu", threads=2))
assert len(os.listdir("/proc/self/task")) == before, "a session has threads of its own"
assert bits(engines[0]) == bits(engines[1])
def work(make):
    try:
        make()
    except EngineForked as error:
        return "spawn" in str(error)
assert in_child(lambda: work(lambda: bits(engines[0]))) == 0
assert in_child(lambda: work(lambda: open_engine([merged()], device="cpu"))) == 0
assert bits(engines[0]) == bits(engines[1])
"""
    )


def test_shared_and_own_threads_give_the_same_bits(python: Run) -> None:
    code = "print(bits(open_engine([merged()], device='cpu', threads=2)).hex())"
    shared, own = (python(PRELUDE + first + code).stdout for first in ("share_threads(2)\n", ""))
    assert shared == own != ""


def test_share_threads_comes_first(python: Run) -> None:
    python(
        PRELUDE
        + """
open_engine([merged()], device="cpu").close()
try:
    share_threads(2)
except EngineIncompatible as error:
    assert "before the first" in str(error), error
else:
    raise AssertionError("too late, and taken")
"""
    )


def test_importing_loads_the_standard_library_only(python: Run) -> None:
    heavy = "{'numpy', 'onnxruntime', 'onnx', 'onnx_ir', 'torch', 'tqdm'}"
    code = f"import sys, graftsdk.engines as e; assert callable(e.default_threads); print({heavy} & set(sys.modules))"
    assert python(code).stdout == "set()\n"


def test_a_warm_open_imports_no_onnx_and_no_tqdm(python: Run) -> None:
    code = """
import sys, hashlib
from graftsdk.engines import Graph, open_engine
def load():
    raise AssertionError("loaded")
open_engine([Graph({key!r}, {{"crops": "crops"}}, ("a/scores", "b/scores"), load)], device="cpu").close()
print({{"onnx", "onnx_ir", "torch", "tqdm"}} & set(sys.modules))
"""
    open_engine([merged()], device="cpu").close()
    assert python(code.format(key=merged().key)).stdout == "set()\n"


def test_a_terminal_sees_progress_when_something_is_compiled() -> None:
    code = PRELUDE + "open_engine(split(), device='cpu').close()"
    shown = []
    for _ in range(2):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # a bar needs columns
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        done = subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment, timeout=60, check=False)
        os.close(theirs)
        text = b""
        with contextlib.suppress(OSError):  # Linux says EIO where the other side is closed
            while block := os.read(ours, 4096):
                text += block
        os.close(ours)
        assert done.returncode == 0, text
        shown.append(text.decode())
    assert "compiling" in shown[0] and "3/3" in shown[0]
    assert shown[1] == ""
