"""Engines that were built ahead, as files: which are in a folder, and whether each is what its record says."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftsdk.engines.record import ENGINE, RECORD, ROLES, EngineRecord, check_engine_file, read_record, record_of
from graftsdk.errors import PlanError, PlanPathError
from graftsdk.text import listed

__all__ = ["EngineFile", "find_engines", "holds_engines"]

_Path = str | os.PathLike[str]
_NAME = re.compile(f"({'|'.join(ROLES)})-[0-9a-f]{{16}}")


@dataclass(frozen=True)
class EngineFile:
    """An engine: its path, its record, and what is wrong with the file; None where every byte is as recorded."""

    path: Path
    record: EngineRecord
    problem: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {"kind": "engine", "path": str(self.path), "problem": self.problem, **self.record.to_dict()}


def holds_engines(path: _Path) -> bool:
    """Whether the path may be of engines: a folder, an engine, or the record beside one."""
    return Path(path).is_dir() or Path(path).suffix in (ENGINE, RECORD)


def find_engines(path: _Path) -> list[EngineFile]:
    """The engine, or those of a folder by name, each hashed and compared with its record.

    Raises:
        PlanPathError: there is none. PlanCorrupt, PlanVersionError: a record that cannot be read.
    """
    where = Path(path)
    if not where.is_dir():
        record = record_of(where) if where.suffix == ENGINE else read_record(where)
        return [_checked(where.with_name(record.file), record)]
    engines = sorted(where.glob(f"*{ENGINE}"))
    alone = [each.name for each in engines if not each.with_suffix(RECORD).exists()]
    if alone:
        raise PlanPathError(f"{where}: expected a record beside each engine, found none beside {listed(alone)}")
    # A record whose engine is gone is told by its name; other files with that ending are somebody's notes.
    lone = {each for each in where.glob(f"*{RECORD}") if _NAME.fullmatch(each.stem)}
    records = sorted({each.with_suffix(RECORD) for each in engines} | lone)
    found = [_checked(where / record.file, record) for record in map(read_record, records)]
    if not found:
        raise PlanPathError(f"{where}: expected a plan, or a folder of engines that graftsdk build made, found neither")
    return found


def _checked(path: Path, record: EngineRecord) -> EngineFile:
    try:
        check_engine_file(record, path)
    except PlanError as error:
        return EngineFile(path, record, str(error))
    return EngineFile(path, record, None)
