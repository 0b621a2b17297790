"""Killed writers, full disks, targets that are no files: the old file or the new one, and nothing beside it."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import toys

from graftsdk.errors import PlanPathError
from graftsdk.files import atomic_write
from graftsdk.plan import load_plan, open_plan, write_plan
from graftsdk.plan.edit import add_branches

TESTS = Path(__file__).parents[1]
CALLS = ("pwrite", "write", "preadv", "fchmod", "fsync", "replace")

# A child that kills itself at the k-th of these calls, before or after it; the k is counted over all of them.
CHILD = f"""
import os, signal, sys
from pathlib import Path
import toys
from graftsdk.plan.edit import add_branches
path, k, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
hat = toys.branch("hat", 2, seed=9)
count = 0
def wrap(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global count
        count += 1
        if count == k and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if count == k:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(os, name, call)
for name in {CALLS!r}:
    wrap(name)
for _ in range(int(sys.argv[4])):  # one process tries many k, each in a fork: imports are the slow part
    pid = os.fork()
    if pid == 0:
        add_branches(path, [hat], output=path)
        os._exit(count if count < k else 0)
    status = os.waitpid(pid, 0)[1]
    killed = os.WIFSIGNALED(status)
    left = sorted(name for name in os.listdir(path.parent))
    data = path.read_bytes()
    print(k, killed, len(left), __import__("hashlib").sha256(data).hexdigest(), flush=True)
    if not killed:
        break
    path.write_bytes((path.parent.parent / "old.plan").read_bytes())
    k += 1
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_at_every_call(tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    old, new = tmp_path / "old.plan", tmp_path / "new.plan"
    toys.write(old)
    add_branches(old, [toys.branch("hat", 2, seed=9)], output=new)
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "engine.plan"
    path.write_bytes(old.read_bytes())
    run = subprocess.run(
        [sys.executable, "-c", CHILD, path, "1", when, "200"],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    whole = {hashlib.sha256(file.read_bytes()).hexdigest() for file in (old, new)}
    rows = [line.split() for line in run.stdout.splitlines()]
    assert len(rows) > 10
    assert [row[1] for row in rows] == ["True"] * (len(rows) - 1) + ["False"]
    for k, _, left, digest in rows:
        assert digest in whole, f"killed at call {k}: neither the old plan nor the new one"
        assert int(left) <= 2, f"call {k}: the next writer left its predecessor's temporary file"
    assert rows[-1][2] == "1"  # the last one, which was not killed, removed what the others had left
    assert [entry.name for entry in path.parent.iterdir()] == ["engine.plan"]


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """A writer in a loop, killed after a while: whatever stands there loads."""
    path = tmp_path / "engine.plan"
    toys.write(path)
    code = "import sys, toys\nwhile True: toys.write(sys.argv[1], ('child',)); toys.write(sys.argv[1])"
    for delay in (0.3, 0.31, 0.33, 0.37):
        child = subprocess.Popen([sys.executable, "-c", code, path], env={**os.environ, "PYTHONPATH": str(TESTS)})
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1 + delay)
        child.kill()
        child.wait()
        load_plan(path).close()
    toys.write(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["engine.plan"]


def limited(path: Path, limit: int) -> str:
    """What a write under RLIMIT_FSIZE ends with, in a child."""
    code = (
        "import resource, sys, toys\n"
        "from graftsdk.plan.edit import add_branches\n"
        "hat = toys.branch('hat', 2, seed=9)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try: add_branches(sys.argv[1], [hat])\n"
        "except OSError as error: print(type(error).__name__, error.errno)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code, path, str(limit)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("place", ["0", "1", "header - 1", "middle", "end - 1"])
def test_a_full_disk(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    data = path.read_bytes()
    add_branches(path, [toys.branch("hat", 2, seed=9)], output=tmp_path / "new")
    new = (tmp_path / "new").read_bytes()
    (tmp_path / "new").unlink()
    header = 8 + int.from_bytes(new[:8], "little")
    limit = {"0": 0, "1": 1, "header - 1": header - 1, "middle": len(new) // 2, "end - 1": len(new) - 1}[place]
    assert limited(path, limit) == "OSError 27"  # EFBIG
    assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["engine.plan"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # ours is as it was


@pytest.mark.parametrize("name", [name for name in CALLS if name != "write"])  # a plan is written by pwrite
def test_a_call_that_fails(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    data = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="No space left"):
        add_branches(path, [toys.branch("hat", 2, seed=9)])
    monkeypatch.undo()
    assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["engine.plan"]


@pytest.mark.parametrize("fault", ["gone", "replaced", "shrunk"])
def test_a_plan_whose_file_is_another_since_it_was_opened(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can no longer be read from the file is written from the map."""
    path = tmp_path / "engine.plan"
    toys.write(path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    hat = toys.branch("hat", 2, seed=9)
    add_branches(path, [hat], output=tmp_path / "1")
    read, count = os.preadv, iter(range(1000))

    def fault_now(descriptor: int, buffers: list[memoryview], at: int) -> int:
        return read(descriptor, buffers, at) if next(count) == 0 else 0

    if fault == "shrunk":
        monkeypatch.setattr(os, "preadv", fault_now)
        add_branches(path, [hat], output=tmp_path / "2")
    else:
        with open_plan(path) as base, open_plan(tmp_path / "1") as wanted:
            path.unlink()
            if fault == "replaced":
                path.write_bytes(b"something else")
            new = wanted.manifest.find("hat")
            assert new is not None
            write_plan(tmp_path / "2", wanted.manifest, [wanted.parts[new[1].part]], base=base)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_copies_and_writes_that_do_less_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    hat = toys.branch("hat", 2, seed=9)
    add_branches(path, [hat], output=tmp_path / "1")
    read, write = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: read(fd, [buffers[0][:1000]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:1000], at))
    add_branches(path, [hat], output=tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("kind", ["folder", "symlink", "dangling symlink", "hard link", "fifo", "device", "file above"])
def test_targets_that_are_refused(tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
    elif kind == "symlink":
        target.symlink_to(other)
    elif kind == "dangling symlink":
        target.symlink_to(tmp_path / "none")
    elif kind == "hard link":
        os.link(other, target)
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "device":
        target = Path("/dev/full")
    else:
        target = other / "target"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(PlanPathError), atomic_write(target) as file:
        file.write(b"new")
    assert other.read_bytes() == b"precious"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PlanPathError), atomic_write(tmp_path / "target"):
            pass
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("number", [13, 1, 30])
def test_a_folder_that_cannot_be_written(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(PlanPathError), atomic_write(tmp_path / "target"):
        pass


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "target") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    """Found by reading: the new file had the mode of the umask, whatever the old one's was."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o600)
    with atomic_write(target) as file:
        file.write(b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_temporary_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    """Found by reading: a process id told them apart, which in another container is anybody's or nobody's."""
    target = tmp_path / "target"
    dead = tmp_path / f".target.{os.getpid()}.00000000.tmp"  # the id of a process that lives, as ids are used again
    living = tmp_path / ".target.4194303.11111111.tmp"  # one that this process cannot see
    others = [tmp_path / ".target.1.tmp", tmp_path / ".other.1.00000000.tmp", tmp_path / ".target.x.00000000.tmp"]
    for path in (dead, living, *others):
        path.touch()
    link = tmp_path / ".target.1.22222222.tmp"
    link.symlink_to(living)
    with living.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with atomic_write(target) as file:
            file.write(b"new")
    assert not dead.exists()
    assert link.is_symlink()  # followed by nobody
    assert all(path.exists() for path in (living, *others))


def test_a_temporary_file_taken_away_before_it_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not taken and how == fcntl.LOCK_EX:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "target") as file:
        file.write(b"new")
    assert taken
    assert (tmp_path / "target").read_bytes() == b"new"


def test_sigterm_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path)
    code = (
        "import os, signal, sys\nfrom graftsdk.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n file.write(b'x' * 100)\n os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == -signal.SIGTERM
    load_plan(path).close()
    toys.write(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["engine.plan"]
