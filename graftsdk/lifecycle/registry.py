"""`graft.toml` beside the sub-datasets: trunk, labels and plan that belong together, in one file that people write.

    plan = "engine.plan"           # paths are relative to the file and stay in its folder
    branches = "branches"          # folder of the branches' checkpoints, old trunks and features
    segmenter = "demo"             # of a new plan: "demo" or a path; default: none

    [trunk]
    path = "trunk.safetensors"
    arch = "inception_v3"          # with width and size; or start = "imagenet.safetensors", a trunk to begin with
    width = 0.5
    size = [192, 96]               # (H, W) of a crop
    epochs = 20                    # and other options of training: steps, minutes, batch, tasks ...

    [defaults]                     # of every label: tap, until, pooling, width, tolerance and options of training
    tap = "auto"
    tolerance = 0.01               # AUC on validation that a label may lose by a new trunk

    [labels.gender]                # what differs from the defaults; every sub-dataset in the folder is a label
    classes = ["female", "male"]   # their order, the positive class last, where folders are not "no" and "yes"
    tap = 8

Other keys are refused: one that is misspelt must not be an option without effect.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftsdk.errors import InputError
from graftsdk.plan.cropspec import MAX_SIDE, MIN_SIDE
from graftsdk.text import listed
from graftsdk.training.branch.options import AUTO, BranchOptions
from graftsdk.training.labels import find_labels
from graftsdk.training.labels.declared import GRAFT_TOML, load_toml

__all__ = ["LabelEntry", "Registry", "read_registry"]

# The standard error of an AUC of 0.95 on 250 positives and 750 negatives (Hanley and McNeil 1982).
TOLERANCE = 0.01


@dataclass(frozen=True)
class LabelEntry:
    """What is wanted of a label: its branch, and the AUC on validation that it may lose by a new trunk."""

    options: BranchOptions
    tolerance: float


@dataclass(frozen=True)
class Registry:
    """What a `graft.toml` says, with the defaults filled in.

    Attributes:
        path: the file; the sub-datasets lie beside it.
        plan, trunk: files; branches: a folder. They need not exist yet.
        segmenter: of a new plan: "demo", a path or None.
        start: a trunk's checkpoint that training begins with, or None.
        network: what is said of "arch", "width" and "size" of the trunk.
        training: options of the trunk's training that are said.
        labels: those of the file in its order, then other sub-datasets in the folder.
    """

    path: Path
    plan: Path
    trunk: Path
    branches: Path
    segmenter: str | None
    start: Path | None
    network: Mapping[str, Any]
    training: Mapping[str, Any]
    labels: Mapping[str, LabelEntry]

    @property
    def root(self) -> Path:
        """The folder of the sub-datasets."""
        return self.path.parent

    @property
    def trunks(self) -> Path:
        """The folder of former trunks, by fingerprint, and of the one that is being trained."""
        return self.branches / "trunks"

    @property
    def cache(self) -> Path:
        """The folder of decoded crops and features, which may be deleted at any time."""
        return self.branches / "cache"

    def branch(self, label: str) -> Path:
        """The checkpoint of its branch."""
        return self.branches / f"{label}.safetensors"

    def tried(self, label: str) -> Path:
        """The checkpoint that was trained last, for as long as it has not taken the branch's place."""
        return self.branches / "tried" / f"{label}.safetensors"


def read_registry(path: str | os.PathLike[str]) -> Registry:
    """The registry in a `graft.toml`, or in the one of a folder.

    Raises:
        InputError: no such file, another name, no TOML, an unknown key, a value of another type or out of range, a path
            that leads out of the folder, or no sub-dataset beside it; names file and key.
    """
    where = Path(path)
    where = where / GRAFT_TOML if where.is_dir() else where
    if where.name != GRAFT_TOML:
        raise InputError(f"{where}: expected a file named {GRAFT_TOML}, where trainings read the order of classes")
    if not where.exists():
        raise InputError(
            f"{where}: expected the registry of the sub-datasets beside it, found none; write one (an empty file "
            f"says: the defaults, for all of them)"
        )
    top = _checked(load_toml(where), _TOP, f"{where}: ")
    trunk = _checked(top.get("trunk", {}), _TRUNK, f"{where}: trunk.")
    defaults = _checked(top.get("defaults", {}), _BRANCH, f"{where}: defaults.")
    network: dict[str, Any] = {name: value for name, value in trunk.items() if name in _NETWORK}
    if network and "start" in trunk:
        raise InputError(
            f"{where}: expected trunk.start or trunk.{', trunk.'.join(network)}, found both; leave one out"
        )
    labels = {}
    for label in dict.fromkeys((*top.get("labels", {}), *find_labels(where.parent))):
        at = f"{where}: labels.{label}."
        if label in ("", ".", "..") or Path(label).name != label:
            raise InputError(f"{at.rstrip('.')}: expected the name of a folder beside the file, found {label!r:.80}")
        entry = _checked(top.get("labels", {}).get(label, {}), _LABEL, at)
        labels[label] = _entry({**defaults, **entry}, at)
    segmenter = top.get("segmenter")
    return Registry(
        path=where,
        plan=_inside(where, "plan", top.get("plan", "engine.plan")),
        trunk=_inside(where, "trunk.path", trunk.get("path", "trunk.safetensors")),
        branches=_inside(where, "branches", top.get("branches", "branches")),
        segmenter=segmenter if segmenter in (None, "demo") else str(_inside(where, "segmenter", segmenter)),
        start=_inside(where, "trunk.start", trunk["start"]) if "start" in trunk else None,
        network=network,
        training={name: value for name, value in trunk.items() if name in _TRAINING},
        labels=labels,
    )


def _entry(values: Mapping[str, Any], at: str) -> LabelEntry:
    tolerance = values.get("tolerance", TOLERANCE)
    try:
        if not 0.0 <= tolerance <= 1.0:
            raise InputError(f"tolerance: expected a number from 0 to 1, found {tolerance!r}")
        return LabelEntry(BranchOptions(**{name: values[name] for name in values.keys() & _OPTIONS}), float(tolerance))
    except InputError as error:
        raise InputError(f"{at}{error}") from error


def _checked(table: Any, known: Mapping[str, str], at: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise InputError(f"{at.rstrip('.')}: expected a table, found {table!r:.80}")
    for name, value in table.items():
        if name not in known:
            raise InputError(f"{at}{name}: expected one of the keys {listed(known)}, found this one")
        if not _KINDS[known[name]](value):
            raise InputError(f"{at}{name}: expected {known[name]}, found {value!r:.80}")
    return table


def _inside(where: Path, name: str, value: str) -> Path:
    """A path of the file, which must not lead out of its folder, over links neither."""
    root = os.path.realpath(where.parent)
    if "\0" in value or root not in map(str, Path(os.path.realpath(where.parent / value)).parents):
        raise InputError(f"{where}: {name}: expected a path inside the file's folder, found {value!r:.80}")
    return where.parent / value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _side(value: Any) -> bool:
    return _whole(value) and MIN_SIDE <= value <= MAX_SIDE


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "a table": lambda value: isinstance(value, dict),
    "a text": lambda value: isinstance(value, str),
    "an integer": _whole,
    "a number": _number,
    'an integer or "auto"': lambda value: _whole(value) or value == AUTO,
    'a number or "auto"': lambda value: _number(value) or value == AUTO,
    "a list of names": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "a list [height, width]": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_side, value)),
}
_TEXT, _INTEGER, _NUMBER = "a text", "an integer", "a number"
_TOP = {
    **dict.fromkeys(("plan", "branches", "segmenter"), _TEXT),
    **dict.fromkeys(("trunk", "defaults", "labels"), "a table"),
}
_TRAINING = {
    **dict.fromkeys(("steps", "batch", "tasks", "warmup", "seed", "workers", "threads", "norm_images"), _INTEGER),
    **dict.fromkeys(("epochs", "minutes", "learning_rate", "weight_decay", "ema", "alpha", "least_share"), _NUMBER),
    **dict.fromkeys(("optimizer", "schedule", "precision", "device"), _TEXT),
}
_NETWORK = {"arch": _TEXT, "width": _NUMBER, "size": "a list [height, width]"}
_TRUNK = {"path": _TEXT, "start": _TEXT} | _NETWORK | _TRAINING
_OPTIONS = {
    "tap": 'an integer or "auto"',
    "width": 'a number or "auto"',
    **dict.fromkeys(("until", "views", "epochs", "batch", "patience", "seed", "threads"), _INTEGER),
    **dict.fromkeys(("learning_rate", "first_rate", "weight_decay", "ema"), _NUMBER),
    **dict.fromkeys(("pooling", "init", "balance", "precision", "threshold", "device"), _TEXT),
}
_BRANCH = {"tolerance": _NUMBER} | _OPTIONS
_LABEL = {"classes": "a list of names"} | _BRANCH
