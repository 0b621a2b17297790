"""The crops that a plan is lowered on: some to find ranges on, all others to judge by, none of them both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.export.samples import find_samples
from graftsdk.plan import BranchDocument, CropSpec
from graftsdk.preprocess import read_crop
from graftsdk.text import reason

__all__ = ["CALIBRATION", "JudgedCrops", "find_crops", "read_batches"]

# Enough: on PETA, ranges of 64, 128 and 256 crops moved probabilities by 0.0044 each time, and a trunk's last tap by
# 4.1% (64) and 4.0% (128) of its length. A branch of inception_v3 takes 0.1 s a crop.
CALIBRATION = 128

_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class JudgedCrops:
    """Pictures of one person each.

    Attributes:
        calibration: those that ranges are found on. judged: those that are compared, each content once and none of
            `calibration`. targets: label -> index in `judged` -> index of its class, where somebody said so.
    """

    calibration: tuple[Path, ...]
    judged: tuple[Path, ...]
    targets: dict[str, dict[int, int]] = field(default_factory=dict)

    @property
    def annotated(self) -> int:
        """How many of `judged` have a class for some label."""
        return len({index for rows in self.targets.values() for index in rows})


def find_crops(
    samples: _Path | None, data: _Path | None, documents: Sequence[BranchDocument], *, calibrate: bool
) -> JudgedCrops:
    """The pictures of a folder, and the test images of sub-datasets.

    Where ranges have to be found, every second picture of the folder at most, and no more than `CALIBRATION`, evenly
    spread over the names, is for that alone.

    Args:
        samples: a folder of person images. data: a folder of sub-datasets. documents: of the labels.
        calibrate: whether ranges have to be found.

    Raises:
        InputError: neither is given; `calibrate` without samples, or with fewer than two; a folder without images.
    """
    if samples is None and (calibrate or data is None):
        raise InputError(
            "samples: expected a folder of person images to verify the lowered parts on, found none; "
            "name one with --samples DIR"
        )
    paths = () if samples is None else find_samples(samples)
    chosen: set[int] = set()
    if calibrate:
        if len(paths) < 2:
            raise InputError(f"samples: expected 2 images or more, for ranges and for verifying, found 1 in {samples}")
        count = min(CALIBRATION, len(paths) // 2)
        chosen = {int(place) for place in np.linspace(0, len(paths) - 1, count)} if count > 1 else {0}
    calibration = tuple(path for index, path in enumerate(paths) if index in chosen)
    used = {_digest(path) for path in calibration}
    judged: dict[str, Path] = {}
    for index, path in enumerate(paths):
        if index not in chosen and (key := _digest(path)) not in used:
            judged.setdefault(key, path)
    targets = {} if data is None else _annotated(data, documents, used, judged)
    if not judged:
        raise InputError(f"samples: expected images to verify on that differ from the rest, found copies in {samples}")
    return JudgedCrops(calibration, tuple(judged.values()), targets)


def read_batches(
    paths: Sequence[Path], spec: CropSpec, batch: int, step: Callable[[int], object]
) -> Iterator[npt.NDArray[np.float32]]:
    """Crops float32[<= batch, 3, H, W], in the order of `paths`; `step` is told how many of them are done with."""
    for start in range(0, len(paths), batch):
        some = paths[start : start + batch]
        yield np.stack([read_crop(path, spec) for path in some])
        step(len(some))


def _annotated(
    data: _Path, documents: Sequence[BranchDocument], used: set[str], judged: dict[str, Path]
) -> dict[str, dict[int, int]]:
    """Label -> index in `judged` -> class; images that are not there yet are added."""
    from graftsdk.training.labels import find_labels, open_label

    there = find_labels(data)
    found: dict[str, dict[str, int]] = {}
    known: dict[Path, str] = {}
    for document in documents:
        if document.label not in there:
            continue
        for image in open_label(data, document.label, classes=document.classes).test:
            key = known.setdefault(image.path, "") or _digest(image.path)
            known[image.path] = key
            if key not in used:
                judged.setdefault(key, image.path)
                found.setdefault(document.label, {})[key] = image.target
    if not found:
        raise InputError(
            f"data: expected test images of {', '.join(document.label for document in documents[:5])}, found none in "
            f"{data}"
        )
    place: dict[str, Any] = {key: index for index, key in enumerate(judged)}
    return {label: {place[key]: target for key, target in rows.items()} for label, rows in found.items()}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: expected a readable image, found: {reason(error)}") from error
