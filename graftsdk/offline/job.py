"""A `Job`: which plan on which images with which options, and how its images are cut into chunks."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from graftsdk.errors import InputError
from graftsdk.plan.strict_json import dump_json

__all__ = ["FORMAT", "Job", "plain_options"]

FORMAT = "graftsdk batch 1"


@dataclass(frozen=True)
class Job:
    """What is to be done. Two jobs of one `record` give the same file.

    Attributes:
        plan: hex digest. labels: those that are computed, in the order of the file's columns.
        options: what changes the answers; JSON types.
        images: paths, each once. chunk: how many of them a part file holds; the last one may hold fewer.
    """

    plan: str
    labels: tuple[str, ...]
    options: Mapping[str, Any]
    images: tuple[str, ...]
    chunk: int

    @property
    def chunks(self) -> int:
        """How many there are."""
        return -(-len(self.images) // self.chunk)

    def images_of(self, chunk: int) -> tuple[str, ...]:
        """The paths of one chunk."""
        return self.images[chunk * self.chunk : (chunk + 1) * self.chunk]

    def record(self) -> dict[str, Any]:
        """What a rerun is told by: JSON types. The images' names are in it as a digest, their content is not."""
        names = hashlib.sha256()
        for image in self.images:
            names.update(os.fsencode(image) + b"\0")
        return {
            "format": FORMAT,
            "plan": self.plan,
            "labels": list(self.labels),
            "options": dict(self.options),
            "images": names.hexdigest(),
            "count": len(self.images),
            "chunk": self.chunk,
        }

    def text(self) -> str:
        """`record` as it is written."""
        return dump_json(self.record())


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a `Predictor` in JSON types, `engines` as an absolute path: they mean the same wherever they are read.

    Raises:
        InputError: a value that has no such form.
    """
    found = {name: _plain(f"options[{name!r}]", value) for name, value in options.items()}
    if isinstance(found.get("engines"), str):
        found["engines"] = os.path.abspath(found["engines"])
    return found


def _plain(what: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(f"{what}[{key!r}]", each) for key, each in value.items()}
    raise InputError(f"{what}: expected a text, path or number, or a mapping of them by name, found {value!r:.80}")
