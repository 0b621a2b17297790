"""`graft.toml` beside the labels: here, the order of a label's classes."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from graftsdk.errors import InputError
from graftsdk.text import reason

__all__ = ["GRAFT_TOML", "declared_classes", "load_toml"]

GRAFT_TOML = "graft.toml"


def declared_classes(root: str | os.PathLike[str], label: str) -> tuple[str, ...] | None:
    """`classes` of `[labels.<label>]` in `<root>/graft.toml`, the positive class last; None where it says nothing.

    Raises:
        InputError: the file is no TOML, or its classes are no list of texts.
    """
    path = Path(root) / GRAFT_TOML
    if not path.exists():
        return None
    labels = load_toml(path).get("labels", {})
    entry = labels.get(label, {}) if isinstance(labels, dict) else labels
    if not isinstance(entry, dict):
        raise InputError(f"{path}: expected a table [labels.{label}], found {entry!r:.80}")
    classes = entry.get("classes")
    if classes is None:
        return None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{path}: expected labels.{label}.classes as a list of names, found {classes!r:.80}")
    return tuple(classes)


def load_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The file's tables. Raises InputError: missing, unreadable, or no TOML; names the path."""
    try:
        return tomllib.loads(Path(path).read_bytes().decode())
    except (OSError, ValueError) as error:  # of which TOML's and UTF-8's are leaves
        raise InputError(f"{os.fspath(path)}: expected a TOML file, found: {reason(error)}") from error
    except RecursionError as error:
        raise InputError(f"{os.fspath(path)}: expected a TOML file, found values nested too deeply") from error
