"""The engine cache: what is in it is used again; what was touched never is."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_graphs import HERE, crops, graph, merged, split, trunk_model

from graftsdk.engines import Cache, open_engine
from graftsdk.engines.entry import entry_name, seal
from graftsdk.errors import EngineBuildError, PlanPathError

Run = Callable[..., subprocess.CompletedProcess[str]]


def bits(**options: object) -> tuple[bytes, bool, int]:
    """The scores' bytes, whether something was compiled, and how often the graph was loaded."""
    loads: list[int] = []
    with open_engine([merged(on_load=lambda: loads.append(1))], device="cpu", **options) as engine:  # type: ignore[arg-type]
        return engine.run({"crops": crops(2)})["a/scores"].tobytes(), engine.compiled, len(loads)


def only_entry(root: Path) -> Path:
    (found,) = [path for path in root.iterdir() if len(path.name) == 64]
    return found


def test_a_warm_open_loads_nothing(cache_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "graftsdk")
    cold = bits()
    assert cold[1:] == (True, 1)
    assert [record.message for record in caplog.records] == ["compiling 1 of 1 graphs for cpu"]
    caplog.clear()
    assert bits() == (cold[0], False, 0)
    assert caplog.records == []
    assert cache_root.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in only_entry(cache_root).iterdir()} == {"model.onnx", "weights.bin", "entry.json"}


def test_threads_and_labels_are_not_in_the_key(cache_root: Path) -> None:
    bits(threads=1)
    assert bits(threads=2)[1] is False
    with open_engine(split(), device="cpu") as engine:
        assert engine.compiled
    with open_engine(split()[:2], device="cpu") as engine:
        assert not engine.compiled
    assert len(Cache().ls()) == 4


def test_entries_say_what_they_are(cache_root: Path) -> None:
    bits()
    (entry,) = Cache().ls()
    assert set(entry.key) == {"graph", "device", "cpu", "precision", "runtime"}
    assert entry.key["graph"] == merged().key
    assert entry.key["runtime"].startswith("onnxruntime ")
    assert entry.problem is None
    assert entry.size == sum(path.stat().st_size for path in entry.path.iterdir())
    assert abs(entry.created - time.time()) < 60
    assert Cache().clear() == (1, entry.size)
    assert Cache().ls() == []
    assert bits()[1] is True


def flip(path: Path, at: int = -20) -> None:
    """One bit, and the times as they were."""
    found = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def replace_by_link(path: Path) -> None:
    moved = path.parent.parent.parent / f"moved-{path.name}"
    os.rename(path, moved)
    path.symlink_to(moved)


def replace_by_copy(path: Path) -> None:
    found, content = path.stat(), path.read_bytes()
    beside = path.with_name("copy")
    beside.write_bytes(content)
    beside.chmod(0o600)
    os.utime(beside, ns=(found.st_atime_ns, found.st_mtime_ns))
    os.rename(beside, path)


def change_record(entry: Path, *, reseal: bool = False, **changes: object) -> None:
    record = json.loads((entry / "entry.json").read_text())
    record.update(changes)
    (entry / "entry.json").write_text(json.dumps(record))
    if reseal:
        seal(entry, record["key"])


def other_folder(entry: Path) -> None:
    """The whole entry of another graph under this name."""
    with open_engine([graph(trunk_model())], device="cpu"):
        pass
    (other,) = [path for path in entry.parent.iterdir() if len(path.name) == 64 and path != entry]
    for name in ("model.onnx", "weights.bin", "entry.json"):
        os.replace(other / name, entry / name)


ATTACKS: dict[str, Callable[[Path], object]] = {
    "a bit in the graph": lambda entry: flip(entry / "model.onnx"),
    "a bit in the record": lambda entry: flip(entry / "entry.json", 30),
    "graph cut": lambda entry: truncate(entry / "model.onnx"),
    "weights cut": lambda entry: truncate(entry / "weights.bin"),
    "weights written to": lambda entry: (entry / "weights.bin").write_bytes((entry / "weights.bin").read_bytes()),
    "weights touched": lambda entry: os.utime(entry / "weights.bin"),
    "weights replaced": lambda entry: replace_by_copy(entry / "weights.bin"),
    "weights gone": lambda entry: (entry / "weights.bin").unlink(),
    "graph gone": lambda entry: (entry / "model.onnx").unlink(),
    "record gone": lambda entry: (entry / "entry.json").unlink(),
    "record empty": lambda entry: (entry / "entry.json").write_bytes(b""),
    "record no JSON": lambda entry: (entry / "entry.json").write_bytes(b"{"),
    "record too long": lambda entry: (entry / "entry.json").write_bytes(b" " * 100_000),
    "record of another format": lambda entry: change_record(entry, format=2),
    "record with more": lambda entry: change_record(entry, more=1),
    "record changed": lambda entry: change_record(entry, created=1),
    "record of another key": lambda entry: change_record(entry, reseal=True, key={"graph": "0" * 64}),
    "another entry": other_folder,
    "weights a link": lambda entry: replace_by_link(entry / "weights.bin"),
    "graph a link": lambda entry: replace_by_link(entry / "model.onnx"),
    "record a link": lambda entry: replace_by_link(entry / "entry.json"),
    "entry a link": replace_by_link,
    "weights linked twice": lambda entry: os.link(entry / "weights.bin", entry.parent.parent / "second"),
    "weights for the group": lambda entry: (entry / "weights.bin").chmod(0o660),
    "entry for all": lambda entry: entry.chmod(0o777),
    "weights a pipe": lambda entry: ((entry / "weights.bin").unlink(), os.mkfifo(entry / "weights.bin", 0o600)),
    "one file more": lambda entry: (entry / "extra").write_bytes(b""),
    "entry a file": lambda entry: (Cache().clear(), entry.write_bytes(b"")),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_touched_entry_is_compiled_again(attack: str, cache_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = bits()[0]
    ATTACKS[attack](only_entry(cache_root))
    caplog.clear()
    assert bits() == (expected, True, 1)
    (why,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "is removed and compiled again: " in why
    assert bits() == (expected, False, 0)


def test_verify_finds_flipped_weights(cache_root: Path) -> None:
    bits()
    assert [entry.problem for entry in Cache().verify()] == [None]
    flip(only_entry(cache_root) / "weights.bin", 100)
    assert [entry.problem for entry in Cache().ls()] == [None]  # 850 MB are not hashed at each start
    assert [entry.problem for entry in Cache().verify()] == ["weights.bin: its digest differs"]
    assert Cache().ls() == []
    assert bits()[1] is True


def test_a_record_that_was_sealed_again_opens_no_graph_that_does_not_fit(cache_root: Path) -> None:
    """Whoever can forge a whole entry is this user; the runtime still refuses what is no graph."""
    expected = bits()[0]
    entry = only_entry(cache_root)
    (entry / "model.onnx").write_bytes(b"no graph")
    seal(entry, json.loads((entry / "entry.json").read_text())["key"])
    assert bits() == (expected, True, 1)


def test_another_machine_or_runtime_is_another_entry(
    cache_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "graftsdk")
    bits()
    monkeypatch.setattr("graftsdk.engines.opening.cpu_features", lambda: ["x86_64", "avx"])
    assert bits()[1] is True
    assert any("is there, but for another machine or runtime: cpu was" in record.message for record in caplog.records)
    assert len(Cache().ls()) == 2


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(mode: int, cache_root: Path) -> None:
    cache_root.mkdir(parents=True)
    cache_root.chmod(mode)
    with pytest.raises(PlanPathError, match=f"expected mode 0700, found 0{mode:o}"):
        bits()
    with pytest.raises(PlanPathError):
        Cache().ls()


def test_a_folder_of_someone_else_is_refused(cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bits()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PlanPathError, match="expected a folder of user 12345"):
        bits()


def test_a_link_in_place_of_the_folder_is_refused(cache_root: Path, tmp_path: Path) -> None:
    bits()
    os.rename(cache_root, tmp_path / "elsewhere")
    cache_root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlanPathError, match="found a link"):
        bits()


def test_relative_xdg_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache().root == tmp_path / ".cache" / "graftsdk"


def test_an_unusable_cache_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bits()[0]
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    caplog.clear()
    assert bits() == (expected, True, 1)
    (warning,) = caplog.records
    assert "cannot be used (NotADirectoryError" in warning.message


FULL_DISK = """
import resource, signal, logging, sys
from engine_graphs import crops, merged
from graftsdk.engines import open_engine
logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
with open_engine([merged()], device="cpu") as engine:
    print(engine.run({{"crops": crops(2)}})["a/scores"].tobytes().hex())
"""


@pytest.mark.parametrize("limit", [0, 500, 4000, 30_000, 48_000])
def test_a_full_disk_stops_nobody(limit: int, python: Run, cache_root: Path) -> None:
    expected = bits(cache=False)[0]
    lines = python(FULL_DISK.format(limit=limit)).stdout.splitlines()
    assert lines[-1] == expected.hex()
    assert len(lines) == 2 and "cannot be used" in lines[0]
    assert Cache().ls() == []
    assert [path.name for path in cache_root.iterdir()] in ([], [".lock"])


def test_a_graph_that_cannot_be_compiled_is_no_fault_of_the_cache(cache_root: Path) -> None:
    found = trunk_model()
    found.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(EngineBuildError, match="NoSuchOperator"):
        open_engine([graph(found)], device="cpu")
    assert Cache().ls() == []
    assert [path.name for path in cache_root.iterdir()] == [".lock"]


def test_external_data_that_is_not_handed_over_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph names a file that exists; a relative name would be found from the working directory."""
    loaded = graph(trunk_model()).load()
    (tmp_path / "none").write_bytes(b"\0" * 100_000)
    stolen = graph(trunk_model())
    object.__setattr__(stolen, "load", lambda: (loaded[0], {}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineBuildError):
        open_engine([stolen], device="cpu")


def store(cache: Cache, name: str, size: int = 1000) -> dict[str, str]:
    key = {"graph": name}
    with cache.build(key) as folder:
        (folder / "model.onnx").write_bytes(b"x" * size)
    return key


def test_the_least_recently_used_go(cache_root: Path) -> None:
    cache = Cache(limit=4500)
    keys = [store(cache, name) for name in "abc"]
    for age, key in enumerate(keys):
        os.utime(cache_root / entry_name(key) / "entry.json", (1000 + age, 1000 + age))
    assert cache.find(keys[0]) is not None  # used now: the oldest no more
    store(cache, "d")
    assert {entry.key["graph"] for entry in cache.ls()} == {"a", "c", "d"}
    store(Cache(limit=10), "e")
    assert {entry.key["graph"] for entry in cache.ls()} == {"e"}


def test_an_open_engine_outlives_its_entry(cache_root: Path) -> None:
    with open_engine([merged()], device="cpu") as engine:
        before = engine.run({"crops": crops(2)})["a/scores"].tobytes()
        Cache().clear()
        assert engine.run({"crops": crops(2)})["a/scores"].tobytes() == before


def test_the_group_may_write_by_umask_but_not_to_the_cache(cache_root: Path) -> None:
    before = os.umask(0)
    try:
        bits()
    finally:
        os.umask(before)
    entry = only_entry(cache_root)
    assert [path.stat().st_mode & 0o777 for path in (entry, *sorted(entry.iterdir()))] == [0o700, 0o600, 0o600, 0o600]
    assert bits()[1] is False


COMPILE = """
import sys, time
from engine_graphs import crops, merged
from graftsdk.engines import open_engine
def wait():
    print("loading", flush=True)
    sys.stdin.readline()
with open_engine([merged(on_load=wait)], device="cpu") as engine:
    print(engine.compiled, engine.run({"crops": crops(2)})["a/scores"].tobytes().hex(), flush=True)
"""


def start() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", COMPILE], stdin=pipe, stdout=pipe, text=True, env=environment
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "loading\n"
    return process


def test_two_processes_compile_at_once(cache_root: Path) -> None:
    processes = [start(), start()]
    temporary = [path for path in cache_root.iterdir() if path.name.startswith(".tmp.")]
    assert len(temporary) == 2
    results = {process.communicate("\n", timeout=60)[0] for process in processes}
    assert results == {f"True {bits()[0].hex()}\n"}
    assert [process.returncode for process in processes] == [0, 0]
    assert {path.name for path in cache_root.iterdir()} == {".lock", only_entry(cache_root).name}


def test_a_killed_compile_leaves_nothing_that_is_used(cache_root: Path) -> None:
    process = start()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (left,) = [path for path in cache_root.iterdir() if path.name.startswith(".tmp.")]
    assert Cache().ls() == []
    assert bits()[1] is True
    assert not left.exists()


@pytest.mark.parametrize("step", ["fsync", "replace", "rename"])
def test_killed_at_each_write(step: str, python: Run, cache_root: Path) -> None:
    """kill -9 before the first, second, third... fsync, replace or rename; the next start has no half entry."""
    code = """
import os, signal
from engine_graphs import merged
from graftsdk.engines import open_engine
left, original = {count}, os.{step}
def die(*args, **kwargs):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return original(*args, **kwargs)
os.{step} = die
open_engine([merged()], device="cpu")
"""
    killed = 0
    for count in range(8):
        done = python(code.format(count=count, step=step), check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
        assert [entry.problem for entry in Cache().ls()] in ([], [None])
        Cache().clear()
        assert [path.name for path in cache_root.iterdir()] == [".lock"]
    assert killed >= 1
    assert bits()[0]
