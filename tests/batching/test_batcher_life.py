"""A batcher over forks, spawns, web server workers, event loops, interrupts and the end of the process."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import toys

from graftsdk import Predictor

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
TESTS = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toys.write(tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


@pytest.fixture
def predictor(path: Path) -> Iterator[Predictor]:
    with Predictor(path, threads=1) as opened:
        yield opened


def python(script: str, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


START = """
import asyncio, os, signal, sys, threading, time
import numpy as np
from graftsdk import Predictor
image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
predictor = Predictor(sys.argv[1], threads=1)
batcher = predictor.batcher(queue=1000)
"""


@pytest.mark.parametrize("end", ["idle", "waiting", "callers", "ring"])
def test_the_interpreter_exits_with_a_live_batcher(path: Path, end: str) -> None:
    script = (
        START
        + {
            "idle": "assert len(batcher.predict(image)) == 1",
            "waiting": "batcher.predict(image); futures = [batcher.submit(image) for _ in range(900)]",
            "callers": """
def forever():
    while True:
        batcher.predict(image)
for _ in range(4):
    threading.Thread(target=forever, daemon=True).start()
batcher.predict(image)
""",
            "ring": "batcher.predict(image); batcher.own = batcher; predictor.own = batcher; del batcher, predictor",
        }[end]
    )
    done = python(script, path)
    assert done.returncode == 0, done.stderr
    if end != "callers":  # those get EngineClosed, and say so
        assert done.stderr == ""


def test_a_forked_child_has_threads_of_its_own(predictor: Predictor) -> None:
    with predictor.batcher() as batcher:
        expected = batcher.predict(IMAGE).to_dict()["persons"]
        child = os.fork()
        if child == 0:
            code = 3
            try:
                right = batcher.predict(IMAGE).to_dict()["persons"] == expected
                found = asyncio.run(predictor.apredict(IMAGE))
                predictor.reload()
                batcher.close()
                code = 0 if right and len(found) == 1 else 4
            finally:
                os._exit(code)
        for _ in range(400):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.05)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        assert os.waitstatus_to_exitcode(status) == 0
        assert batcher.predict(IMAGE).to_dict()["persons"] == expected


def test_a_spawned_worker_opens_its_own(predictor: Predictor, tmp_path: Path) -> None:
    """What multiprocessing does where it spawns: a new interpreter, and the predictor pickled."""
    (tmp_path / "pickled").write_bytes(pickle.dumps(predictor))
    script = """
import pickle, sys
import numpy as np
with pickle.load(open(sys.argv[1], "rb")) as predictor, predictor.batcher() as batcher:
    print(len(batcher.predict(np.zeros((60, 50, 3), np.uint8))))
"""
    done = python(script, tmp_path / "pickled")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


APPLICATION = """
import os
import numpy as np
from graftsdk import Predictor
image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
predictor = Predictor(os.environ["PLAN"], threads=1)
batcher = predictor.batcher()
batcher.predict(image)  # in the master: threads run there before it forks

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {len(batcher.predict(image))}".encode()]
"""


def test_gunicorn_with_preload(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "served.py").write_text(APPLICATION, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "gunicorn", "--preload", "--workers", "2", "--threads", "2", "--bind", f"127.0.0.1:{port}"]
    command = [sys.executable, *words, "--chdir", str(tmp_path), "--graceful-timeout", "5", "served:application"]
    environment = {**os.environ, "PLAN": str(path)}
    environment.pop("PYTHONSAFEPATH", None)
    server = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    def ask(_: int) -> tuple[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            pid, count = answer.read().decode().split()
        return pid, count

    try:
        for _ in range(400):
            try:
                ask(0)
                break
            except OSError:
                assert server.poll() is None, server.stderr.read() if server.stderr else ""
                time.sleep(0.05)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, range(60)))
    finally:
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=30)
    assert {count for _, count in found} == {"1"}
    assert str(server.pid) not in {pid for pid, _ in found}
    assert server.returncode == 0 and "Traceback" not in said, said


def test_in_a_running_event_loop_as_in_a_notebook(predictor: Predictor) -> None:
    async def cell() -> list[int]:
        with predictor.batcher() as batcher:
            found = [
                predictor.predict(IMAGE),
                batcher.predict(IMAGE),  # blocks the loop, and does not need it
                await batcher.apredict(IMAGE),
                await predictor.apredict(IMAGE, labels=["child"]),
                *await predictor.apredict([IMAGE, IMAGE]),
                *await asyncio.gather(*(batcher.apredict(IMAGE) for _ in range(5))),
            ]
        return [len(each) for each in found]

    assert asyncio.run(cell()) == [1] * 11
    assert asyncio.run(cell()) == [1] * 11  # another loop, the same threads
    predictor.close()


def test_an_error_is_the_awaiting_ones(predictor: Predictor) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="expected"):
            await predictor.apredict(b"nothing")
        task = asyncio.create_task(predictor.apredict(IMAGE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await predictor.apredict(IMAGE)) == 1

    asyncio.run(main())


@pytest.mark.parametrize("awaited", ["predictor.apredict(image)", "batcher.apredict(image)"])
def test_an_interrupt_ends_a_loop_and_leaves_both_usable(path: Path, awaited: str) -> None:
    script = (
        START
        + f"""
async def main():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        await asyncio.gather(*({awaited} for _ in range(8)))
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
try:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        batcher.predict(image)
except KeyboardInterrupt:
    print(len(batcher.predict(image)), len(asyncio.run(predictor.apredict(image))), batcher.waiting)
"""
    )
    done = python(script, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n1 1 0\n", "")


def test_threads_start_with_the_first_image(predictor: Predictor) -> None:
    before = threading.active_count()
    with predictor.batcher() as batcher:
        assert threading.active_count() == before
        batcher.predict(IMAGE)
        assert threading.active_count() > before
    assert threading.active_count() == before
