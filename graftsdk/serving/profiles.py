"""Threshold profiles: one predictor serves many cameras, each group of them with its own thresholds."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping
from types import MappingProxyType

from graftsdk.errors import InputError
from graftsdk.plan import BranchDocument
from graftsdk.scores import Thresholds, resolve_thresholds
from graftsdk.text import listed

__all__ = ["Profiles", "load_profiles", "reload_profiles"]

_log = logging.getLogger("graftsdk.serving")

_MAX_BYTES = 2**20


class Profiles:
    """Group -> thresholds, checked against a plan. Nothing of it changes.

    Attributes:
        names: of the groups, in the order of the file.
    """

    def __init__(self, groups: Mapping[str, Thresholds]) -> None:
        self._groups = MappingProxyType({group: _frozen(thresholds) for group, thresholds in groups.items()})
        self.names = tuple(self._groups)

    def thresholds(self, name: str) -> Thresholds:
        """Label -> threshold, or class -> threshold. Raises InputError: no such group."""
        if name not in self._groups:
            raise InputError(f"profile: expected one of {listed(self.names)}, found {name!r:.80}")
        return self._groups[name]

    def fitting(self, documents: Mapping[str, BranchDocument]) -> Profiles:
        """The same groups, without the thresholds of labels and classes that these documents lack."""
        return Profiles({group: _fitting(found, documents) for group, found in self._groups.items()})


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


def reload_profiles(
    path: str | os.PathLike[str], documents: Mapping[str, BranchDocument], before: Profiles
) -> Profiles:
    """The profiles once another plan serves: the file as it is now, or `before` as far as it fits the plan.

    A label that was taken back must not end the profiles of the others, so a file that cannot be used is a line in the
    log and no error.
    """
    try:
        return load_profiles(path, documents)
    except InputError as error:
        _log.error("the profiles do not fit the plan that serves now; those from before go on, without it: %s", error)
        return before.fitting(documents)


def _frozen(thresholds: Thresholds) -> Thresholds:
    return MappingProxyType(
        {
            label: MappingProxyType(dict(value)) if isinstance(value, Mapping) else value
            for label, value in thresholds.items()
        }
    )


def _fitting(thresholds: Thresholds, documents: Mapping[str, BranchDocument]) -> Thresholds:
    found: dict[str, float | Mapping[str, float]] = {}
    for label, value in thresholds.items():
        document = documents.get(label)
        if document is None:
            continue
        if isinstance(value, Mapping):
            found[label] = {name: each for name, each in value.items() if name in document.classes}
        elif len(document.classes) == 2:
            found[label] = value
    return found
