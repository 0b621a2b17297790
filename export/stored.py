"""What a folder of engines holds already: the engine that is wanted, or one that a refit can start from."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from graftsdk.engines.record import RECORD, EngineRecord, check_engine_file, read_record
from graftsdk.engines.trust import built_here
from graftsdk.errors import PlanError

__all__ = ["refit_sources", "stored_engine"]

# What an engine must have been built for to serve in another's place, its graph aside.
_SAME = ("runtime", "version", "targets", "precision", "batches")

_log = logging.getLogger("graftsdk")


def stored_engine(wanted: EngineRecord, folder: Path, *, refittable: bool) -> EngineRecord | None:
    """The record of what is there already and sound; None where it is to be built.

    `refittable`: it has to be. One that is serves those as well who do not ask for it.
    """
    path = folder / f"{wanted.name}{RECORD}"
    if not os.path.lexists(path):
        return None
    try:
        found = read_record(path)
        for name in ("graph", *_SAME):
            was, now = getattr(found, name), getattr(wanted, name)
            if was != now:
                _log.info("%s is built again: %s was %s, is %s", wanted.name, name, was, now)
                return None
        if refittable and found.refittable is None:
            _log.info("%s is built again: its weights cannot be exchanged", wanted.name)
            return None
        check_engine_file(found, folder / found.file)
        if not built_here(found):
            _log.info("%s is built again: it was not built here, and would not be run", wanted.name)
            return None
    except PlanError as error:
        _log.warning("%s is built again: %s", wanted.name, error)
        return None
    return found


def refit_sources(wanted: EngineRecord, folder: Path) -> tuple[str, ...]:
    """Paths of the records of refittable engines for the same use; those of the same labels first.

    Whether one has the structure, was built here and is sound, is asked by whoever opens it.
    """
    found = []
    for path in sorted(folder.glob(f"{wanted.role}-*{RECORD}")):
        try:
            record = read_record(path)
            fits = all(getattr(record, name) == getattr(wanted, name) for name in _SAME)
            if record.refittable is not None and fits:
                found.append((-len(set(record.labels) & set(wanted.labels)), str(path.absolute())))
        except PlanError as error:
            _log.debug("%s cannot be refitted: %s", path, error)
    return tuple(path for _, path in sorted(found))
