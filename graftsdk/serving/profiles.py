"""Threshold profiles: one predictor serves many cameras, each group of them with its own thresholds."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping

from graftsdk.errors import InputError
from graftsdk.plan import BranchDocument
from graftsdk.scores import Thresholds, resolve_thresholds
from graftsdk.text import listed

__all__ = ["Profiles", "load_profiles"]

_MAX_BYTES = 2**20


class Profiles:
    """Group -> thresholds, checked against a plan.

    Attributes:
        names: of the groups, in the order of the file.
    """

    def __init__(self, groups: Mapping[str, Thresholds]) -> None:
        self._groups = dict(groups)
        self.names = tuple(self._groups)

    def thresholds(self, name: str) -> Thresholds:
        """Label -> threshold, or class -> threshold. Raises InputError: no such group."""
        if name not in self._groups:
            raise InputError(f"profile: expected one of {listed(self.names)}, found {name!r:.80}")
        return self._groups[name]


def load_profiles(path: str | os.PathLike[str], documents: Mapping[str, BranchDocument]) -> Profiles:
    """Read a TOML file: a table a group, in it label = threshold, or label = { class = threshold }.

        [lobby]
        child = 0.7
        [garage]
        child = 0.4
        gender = { male = 0.6 }

    Args:
        documents: of the labels that are served.

    Raises:
        InputError: no TOML, more than 1 MiB, another form, a label or class that is not served, a threshold outside
            0..1; says which group.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"profiles: expected a readable file, found {error.strerror}: {os.fspath(path)!r}") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"profiles: expected at most {_MAX_BYTES} bytes, found more in {os.fspath(path)!r}")
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"profiles: expected TOML, found {error} in {os.fspath(path)!r}") from error
    for group, thresholds in found.items():
        if not isinstance(thresholds, dict):
            raise InputError(f"profiles: expected a table [{group}] of label = threshold, found {thresholds!r:.80}")
        try:
            resolve_thresholds(documents, thresholds)
        except InputError as error:
            raise InputError(f"profiles: [{group}]: {error}") from error
    return Profiles(found)
