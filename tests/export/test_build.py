"""Plans to engines through the building process: what is kept, what is refused, and what crashes."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toys

from graftsdk.engines.record import EngineRecord, read_record
from graftsdk.engines.trust import built_here
from graftsdk.errors import (
    EngineBuildError,
    EngineIncompatible,
    EngineOutOfMemory,
    GraftError,
    InputError,
    PlanPathError,
    PlanTruncated,
)
from graftsdk.export import build_engine
from graftsdk.export.build_child import Job
from graftsdk.export.building import Child
from graftsdk.export.engine_folder import engine_folder
from graftsdk.plan import open_plan
from graftsdk.plan.edit import add_branches, create_plan

pytest.importorskip("tensorrt_rtx")

TESTS = Path(__file__).parents[1]
# A script as people write them: what stands in it runs once, although a process is started from it.
SCRIPT = """
import sys
from graftsdk.export import build_engine
print("once")
report = build_engine(sys.argv[1], targets=["8.9", "12.0"], layout="split", batches=(1, 4))
assert "torch" not in sys.modules
print(*(record.name for record in report.engines), report.folder)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan and, in `engine.engines`, its engines as split."""
    folder = tmp_path_factory.mktemp("built")
    toys.write(folder / "engine.plan")
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", "engine.plan"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, names = done.stdout.splitlines()
    assert (first, names.split()[-1]) == ("once", "engine.engines")
    assert sorted(names.split()[:-1]) == sorted(path.stem for path in (folder / "engine.engines").glob("*.engine"))
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a library of this code in the real one's place, in the building process only."""

    def put(code: str) -> None:
        (tmp_path / "stand_in" / "tensorrt_rtx").mkdir(parents=True)
        (tmp_path / "stand_in" / "tensorrt_rtx" / "__init__.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path / "stand_in")

    return put


def refused(*args: Any, **options: Any) -> GraftError:
    with pytest.raises(GraftError) as caught:
        build_engine(*args, **({"targets": ["8.9"]} | options))
    return caught.value


def records(folder: Path) -> dict[str, EngineRecord]:
    return {path.stem: read_record(path) for path in sorted(folder.glob("*.json"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_engines_are_what_their_records_say(built: Path) -> None:
    found = records(built / "engine.engines")
    with open_plan(built / "engine.plan") as plan:
        digest, trunk = plan.digest, plan.manifest.trees[0].trunk
        parts = {name: (info.digest, "float32") for name, info in plan.manifest.parts.items()}
    assert sorted(record.role for record in found.values()) == ["branch"] * 3 + ["trunk"]
    for record in found.values():
        engine = (built / "engine.engines" / record.file).read_bytes()
        assert record.size == len(engine) and engine[:4] == b"vtrt"
        assert record.sha256 == hashlib.sha256(engine).hexdigest()
        assert (record.runtime, record.targets) == ("tensorrt_rtx", ("8.9", "12.0"))
        assert (record.plan, record.precision, record.batches) == (digest, "float32", (1, 4))
        assert 5e7 < record.peak_bytes < 2e9 and 0 < record.seconds < 60
        assert record.parts.items() <= parts.items()
    assert sorted(label for record in found.values() for label in record.labels) == ["backpack", "child", "gender"]
    (stock,) = [record for record in found.values() if record.role == "trunk"]
    assert [port.name for port in stock.outputs] == [f"{trunk}/tap_{k}" for k in range(4)]


def test_a_new_label_builds_one_engine(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "graftsdk")
    folder = copy / "engine.engines"
    before = contents(folder)
    damaged = next(record for record in records(folder).values() if record.labels == ("gender",))
    with open(folder / damaged.file, "r+b") as file:  # in the middle, where the library would not see it
        file.seek(damaged.size // 2)
        byte = file.read(1)
        file.seek(damaged.size // 2)
        file.write(bytes([byte[0] ^ 1]))
    add_branches(copy / "engine.plan", [toys.branch("hat", 3, seed=9)])  # on a tap that no label read before
    report = build_engine(copy / "engine.plan", targets=["12.0", "8.9"], layout="split", batches=(4, 1, 4))
    made = [record.labels for record in report.engines if record.name not in report.kept]
    assert made == [("hat",), ("gender",)] or made == [("gender",), ("hat",)]
    assert len(report.engines) == 5 and set(report.kept) < set(records(folder))
    after = contents(folder)
    for name in report.kept:
        for ending in (".engine", ".json"):
            assert after[f"{name}{ending}"] == before[f"{name}{ending}"]
    assert f"{damaged.name} is built again: " in caplog.text and "expected the bytes that were built" in caplog.text
    assert all(built_here(record) for record in report.engines)
    again = build_engine(copy / "engine.plan", targets=["12.0", "8.9"], layout="split", batches=(1, 4))
    assert set(again.kept) == set(records(folder)) and contents(folder) == after
    assert again.to_dict()["engines"][0]["kept"] is True


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"targets": ["9.0"]}, EngineIncompatible, "compute capability 9.0: expected one of 7.5, 8.0, 8.6, 8.9, 12.0"),
        ({"targets": ["8.9", "10.0"]}, EngineIncompatible, "compute capability 10.0"),
        ({"targets": ["89"]}, InputError, "expected text like '8.9'"),
        ({"targets": "8.9"}, InputError, "write ['8.9']"),
        ({"runtime": "onnxruntime"}, InputError, "expected 'tensorrt' or 'tensorrt_rtx'"),
        ({"labels": ["nobody"]}, InputError, "the plan has no label 'nobody'"),
        ({"labels": []}, InputError, "at least one label"),
        ({"layout": "stacked"}, InputError, "expected 'merged' or 'split'"),
        ({"precision": "fp8"}, InputError, "expected one of float32, fp16, bf16, int8"),
        ({"precision": "int8"}, InputError, "graftsdk quantize makes and judges them"),
        ({"batches": ()}, InputError, "expected sizes like (1, 8, 32)"),
        ({"batches": (0, 8)}, InputError, "expected an integer from 1 to 1024, found 0"),
        ({"batches": (1, 2048)}, InputError, "found 2048"),
        ({"output": "engine.plan"}, PlanPathError, "expected a folder for the engines"),
        ({"output": "engine.plan/engines"}, PlanPathError, "expected a folder for the engines"),
    ],
)
def test_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], kind: type[GraftError], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("graftsdk.export.build.Child", None)
    toys.write(tmp_path / "engine.plan")
    error = refused("engine.plan", **options)
    assert isinstance(error, kind) and says in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["engine.plan"]


def test_targets_have_to_be_said_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys.write(tmp_path / "engine.plan")
    monkeypatch.setattr("graftsdk.export.engine_list.gpu_capabilities", lambda: ())
    assert "as --for 8.9, found none, and no GPU here" in str(refused(tmp_path / "engine.plan", targets=[]))


def test_plans_that_cannot_be_built(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert isinstance(refused(tmp_path / "empty"), PlanTruncated)
    assert isinstance(refused(tmp_path / "none"), PlanPathError)
    create_plan(tmp_path / "engine.plan", toys.trunk(), [])
    assert "neither labels nor a segmenter" in str(refused(tmp_path / "engine.plan"))
    with open_plan((tmp_path / "engine.plan").read_bytes()) as plan:
        assert "a plan that was opened from one" in str(refused(plan))


KILLED = [
    ("import os; os.kill(os.getpid(), 9)", EngineOutOfMemory, "signal 9 (SIGKILL); the system does this where memory"),
    ("import os; os.kill(os.getpid(), 11)", EngineBuildError, "signal 11 (SIGSEGV)"),
    ("import os; os.write(2, b'corrupted list\\n'); os._exit(3)", EngineBuildError, "its last words: corrupted list"),
]


@pytest.mark.parametrize(("code", "kind", "says"), KILLED)
def test_a_crash_is_an_error(
    tmp_path: Path, stand_in: Callable[[str], None], code: str, kind: type[GraftError], says: str
) -> None:
    toys.write(tmp_path / "engine.plan")
    stand_in(code)
    error = refused(tmp_path / "engine.plan")
    assert type(error) is kind and says in str(error) and "merged-" in str(error)
    assert not (tmp_path / "engine.engines").exists()


def test_an_exception_in_the_building_process_is_told_as_it_is(
    tmp_path: Path, stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.write(tmp_path / "engine.plan")
    stand_in("raise ValueError('an odd answer')")
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])  # which Python allows, and looks past
    error = refused(tmp_path / "engine.plan")
    assert type(error) is EngineBuildError and "found ValueError: an odd answer; report it" in str(error)


def test_the_building_process_ends_with_its_parent(tmp_path: Path, stand_in: Callable[[str], None]) -> None:
    stand_in("import time; time.sleep(60)")
    job = Job("engine.plan", "", "tensorrt_rtx", "1.7", "float32", "merged", (), ("8.9",), (1,), ())
    with Child(job) as child:
        assert next(child.frames()) == {"kind": "tick"}
        stdin = child._process.stdin
        assert child._process.poll() is None and stdin is not None
        stdin.close()  # what the system does where the parent is killed
        assert child._process.wait(timeout=20) == 1


def test_two_at_once_build_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "graftsdk")
    toys.write(tmp_path / "engine.plan", ["child"])
    reports: list[Any] = []
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        reports.append(build_engine(tmp_path / "engine.plan", targets=["8.9"]))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(report.kept) for report in reports) == [0, 1]
    assert reports[0].engines == reports[1].engines
    assert "another process builds here; waiting for it" in caplog.text
    assert len(contents(tmp_path / "engine.engines")) == 2


def test_a_folder_that_others_can_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftsdk.export.build.Child", None)
    toys.write(tmp_path / "engine.plan")
    (tmp_path / "engine.engines").mkdir()
    for mode in (0o777, 0o775):
        (tmp_path / "engine.engines").chmod(mode)
        error = refused(tmp_path / "engine.plan")
        assert isinstance(error, PlanPathError) and f"mode {mode:04o}: others may have put code there" in str(error)
    (tmp_path / "engine.engines").chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "found one of user" in str(refused(tmp_path / "engine.plan"))


def test_who_waited_for_a_folder_that_went_has_the_one_that_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, locks, real = tmp_path / "e", list[int](), fcntl.flock

    def lock(descriptor: int, how: int) -> None:
        if not locks:
            folder.rmdir()  # as whoever held the lock does, where nothing was built into what he had made
            folder.mkdir(mode=0o755)
        locks.append(descriptor)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    with engine_folder(folder):
        other = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            real(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
    assert len(locks) == 2


def test_a_full_disk_leaves_what_was_there(copy: Path) -> None:
    folder = copy / "engine.engines"
    before = contents(folder)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, former[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            build_engine(copy / "engine.plan", targets=["8.6"], layout="split", batches=(1, 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert contents(folder) == before


def test_a_plan_that_was_changed_meanwhile(tmp_path: Path) -> None:
    toys.write(tmp_path / "engine.plan")
    with open_plan(tmp_path / "engine.plan") as plan:
        toys.write(tmp_path / "other.plan", seed=1)
        os.replace(tmp_path / "other.plan", tmp_path / "engine.plan")
        assert "it was changed meanwhile" in str(refused(plan))
