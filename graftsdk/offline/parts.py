"""`Parts`: the folder of a job at work. A part file is whole or not there, so that what is there is done.

out.parquet.parts/
    journal.json      the job's record: another job is not mixed in
    lock              held while somebody works on it
    0000000.parquet   the rows of chunk 0
    0000001.begun     on Ray, while chunk 1 is computed: a byte for each process that began it
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from graftsdk.errors import GraftError, InputError, PlanCorrupt
from graftsdk.files import atomic_write, check_target
from graftsdk.offline.job import Job
from graftsdk.offline.packages import parquet, pyarrow
from graftsdk.offline.rows import JOB_KEY, schema
from graftsdk.plan.strict_json import load_json
from graftsdk.text import reason

__all__ = ["Parts", "begin_part", "discard_parts", "forget_begun", "is_result", "part_path", "write_part"]

_LOCK = "lock"
_SAID = {
    "plan": "the plan",
    "labels": "the labels",
    "options": "the options",
    "images": "the list of images",
    "count": "the number of images",
    "chunk": "the size of a chunk",
    "format": "the form of the journal",
}


class Parts:
    """The part files of `target`, opened for `job`; use it in a `with` block.

    Raises:
        InputError: there are parts of another job, another process is at work on them, or their folder cannot be
            written.
        PlanPathError: `target` must not be written.
    """

    def __init__(self, target: str | os.PathLike[str], job: Job) -> None:
        self.target = Path(target)
        self.folder = _folder(self.target)
        self._job = job
        self._schema = schema(job.labels, job.text())
        check_target(self.target)
        self._lock: BinaryIO | None = _open_lock(self.folder)
        try:
            self._take()
            self._check_journal()
        except BaseException:
            self.close()
            raise

    def path(self, chunk: int) -> Path:
        """Where the rows of a chunk are."""
        return part_path(self.folder, chunk)

    def done(self) -> set[int]:
        """The chunks whose parts are there and whole; one that is damaged is made anew."""
        return {chunk for chunk in range(self._job.chunks) if self._whole(chunk)}

    def write(self, chunk: int, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the rows of a chunk. The same ones twice do no harm: a chunk has one file."""
        write_part(self.path(chunk), rows, self._job.labels, self._job.text())

    def merge(self) -> None:
        """Make the one file of all parts, whole or not at all; then the parts go."""
        with atomic_write(self.target) as file, parquet().ParquetWriter(file, self._schema) as writer:
            for chunk in range(self._job.chunks):
                writer.write_table(self._read(chunk))
        # From here on the target says that all is done: a kill between leaves files, and no doubt.
        self.discard()

    def discard(self) -> None:
        """Remove them all, the lock last: whoever comes meanwhile finds it held. What cannot be removed stays."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name != _LOCK:
                    path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let others work on it. May be called again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _take(self) -> None:
        assert self._lock is not None  # it was just opened
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{self.folder}: expected to be alone, found another process at work on it; wait, or name another file"
            ) from error
        except OSError:  # a file system without locks; two of one job would write the same parts twice, no worse
            return

    def _check_journal(self) -> None:
        """That the parts are of this job; where there is no journal, none is of any."""
        path = self.folder / "journal.json"
        try:
            found = load_json(path.read_bytes(), str(path))
        except FileNotFoundError:
            for stray in self.folder.glob("*.parquet"):
                stray.unlink()
            with atomic_write(path) as file:
                file.write(self._job.text().encode("utf-8"))
            return
        except PlanCorrupt as error:
            raise InputError(f"{error}; delete {self.folder} to begin anew") from error
        changed = _different(found, self._job)
        if changed:
            raise InputError(
                f"{self.folder}: expected the parts of this job, found others: {changed} differ; run the command that "
                f"began it, name another file, or delete {self.folder} to begin anew"
            )

    def _whole(self, chunk: int) -> bool:
        with suppress(OSError, pyarrow().ArrowException):
            rows: int = parquet().read_metadata(self.path(chunk)).num_rows
            return rows == len(self._job.images_of(chunk))
        return False

    def _read(self, chunk: int) -> Any:
        path = self.path(chunk)
        try:
            return parquet().read_table(path, schema=self._schema)
        except (OSError, pyarrow().ArrowException) as error:
            told = reason(error) if isinstance(error, OSError) else str(error)
            raise InputError(f"{path}: expected a whole part, found: {told}; delete it and run again") from error


def part_path(folder: Path, chunk: int) -> Path:
    """The part file of a chunk."""
    return folder / f"{chunk:07}.parquet"


def write_part(path: Path, rows: Sequence[dict[str, Any]], labels: Sequence[str], record: str) -> None:
    """Write the rows of one chunk, whole or not at all; `record` is the job's text."""
    table = pyarrow().Table.from_pylist(list(rows), schema=schema(labels, record))
    with atomic_write(path) as file:
        parquet().write_table(table, file)
    _begun(path).unlink(missing_ok=True)


def begin_part(folder: Path, chunk: int) -> int:
    """Note that a chunk is begun; how many times it now was since `forget_begun`, without being written."""
    path = _begun(part_path(folder, chunk))
    count = 1 + (path.stat().st_size if path.exists() else 0)
    with atomic_write(path) as file:
        file.write(b"." * count)
    return count


def forget_begun(folder: Path) -> None:
    """Have every chunk as if it never was begun: what went wrong in an earlier run need not in this one."""
    for path in folder.glob("*.begun"):
        path.unlink(missing_ok=True)


def _begun(part: Path) -> Path:
    return part.with_suffix(".begun")


def _open_lock(folder: Path) -> BinaryIO:
    try:
        folder.mkdir(exist_ok=True)
        return os.fdopen(os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder that can be written, or nothing, found: {reason(error)}; name another file"
        ) from error


def _folder(target: Path) -> Path:
    return target.with_name(f"{target.name}.parts")


def discard_parts(target: Path, job: Job) -> None:
    """Remove the job's parts once its target is whole; those of another job stay, and what somebody works on."""
    if _folder(target).is_dir():
        with suppress(GraftError, OSError), Parts(target, job) as parts:
            parts.discard()


def is_result(path: Path, job: Job) -> bool:
    """Whether the job is done: `path` is what it gives.

    Raises:
        InputError: there is something else, which is not overwritten.
    """
    if not os.path.lexists(path):
        return False
    check_target(path)
    try:
        found = load_json((parquet().read_schema(path).metadata or {})[JOB_KEY], str(path))
    except (OSError, KeyError, PlanCorrupt, pyarrow().ArrowException):
        what = "another file"
    else:
        changed = _different(found, job)
        if not changed:
            return True
        what = f"the result of another job: {changed} differ"
    raise InputError(f"{path}: expected nothing, found {what}; name another file, or delete it")


def _different(found: dict[str, Any], job: Job) -> str:
    """What of a record is not the job's, in words; "" where all is."""
    wanted = job.record()
    return ", ".join(said for key, said in _SAID.items() if found.get(key) != wanted[key])
