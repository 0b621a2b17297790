"""A step's joined sub-batches, and crops in order for what is only looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from graftsdk.training.crops.augment import Augmentation, augmented
from graftsdk.training.crops.packed import PackedCrops, normalised
from graftsdk.training.trunk.sampling import Draw

__all__ = ["JoinedBatch", "TrainingCrops", "mixed_batches", "plain_batches"]

_AUGMENT = 5  # what a random generator is for, in its seed; sampling has 1 to 4


class JoinedBatch(NamedTuple):
    """Sub-batches behind one another.

    Attributes:
        pixels: uint8[N, H, W, 3].
        tasks: of each sub-batch.
        targets: of each sub-batch, int64[b].
    """

    pixels: torch.Tensor
    tasks: tuple[int, ...]
    targets: tuple[torch.Tensor, ...]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(task, crops) of each."""
        return [(task, len(own)) for task, own in zip(self.tasks, self.targets, strict=True)]


class TrainingCrops(Dataset[JoinedBatch]):
    """Augmented batches by `Draw`; augmentation follows from (seed, step, rank) alone.

    Args:
        sets: of each task.
        how: crops are varied.
        seed: of the training.
        rank, world: of `world` processes, number `rank` gets every `world`-th crop of each sub-batch.
    """

    def __init__(
        self, sets: Sequence[PackedCrops], how: Augmentation, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self._sets, self._how, self._seed, self._rank, self._world = tuple(sets), how, seed, rank, world

    def __getitem__(self, draw: Draw) -> JoinedBatch:
        rng = np.random.default_rng((self._seed, _AUGMENT, draw.step, *([self._rank] if self._world > 1 else [])))
        rows = [(self._sets[part.task], part.indices[self._rank :: self._world]) for part in draw.parts]
        pixels = np.concatenate([crops.pixels[own] for crops, own in rows])
        targets = tuple(torch.from_numpy(crops.targets[own]) for crops, own in rows)
        varied = augmented(pixels, self._sets[0].spec, self._how, rng)
        return JoinedBatch(varied, tuple(part.task for part in draw.parts), targets)


def plain_batches(crops: PackedCrops, rows: Sequence[int], batch: int, device: torch.device) -> Iterator[torch.Tensor]:
    """float32[<= batch, 3, H, W] of the rows in order, as serving sees them."""
    for start in range(0, len(rows), batch):
        pixels = crops.pixels[np.asarray(rows[start : start + batch], np.int64)]
        yield normalised(torch.from_numpy(pixels).to(device), crops.spec)


def mixed_batches(
    sets: Sequence[PackedCrops], draws: Sequence[tuple[int, int]], batch: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """float32[about batch, 3, H, W] of (set, crop), as serving sees them; all batches of nearly one size."""
    for some in np.array_split(np.array(draws, np.int64), max(1, round(len(draws) / batch))):
        pixels = np.stack([sets[task].pixels[index] for task, index in some])
        yield normalised(torch.from_numpy(pixels).to(device), sets[0].spec)
