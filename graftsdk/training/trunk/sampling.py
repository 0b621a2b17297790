"""Which sub-datasets a step draws, and which crops of them: by (seed, step) alone, whoever asks, from any step on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError

__all__ = ["Draw", "SubBatch", "TaskOrder", "class_quotas", "mixed_draws"]

_BLOCK = 1024  # steps whose tasks are drawn at once
# What a random generator is for, in its seed.
_TASKS, _ROUND, _CYCLE, _MIXED = 1, 2, 3, 4

_Ints = npt.NDArray[np.int64]


class SubBatch(NamedTuple):
    """Crops of one sub-dataset.

    Attributes:
        task: its number.
        indices: int64[b], of its training crops.
    """

    task: int
    indices: _Ints


class Draw(NamedTuple):
    """One step's.

    Attributes:
        step: its number.
        parts: the sub-batches, all of one size.
    """

    step: int
    parts: tuple[SubBatch, ...]


class TaskOrder:
    """Each step draws m of T sub-datasets with p ~ N ** alpha, and from each the next crops of an endless shuffled row.

    The m of one step are drawn systematically (Madow 1949): m points at equal distances on a randomly ordered row of
    intervals as long as m p. So each sub-dataset is drawn m p times a step in the mean, exactly, and twice in one step
    only where m p > 1. Paper 3.3 draws one and is silent on p.

    Within a sub-dataset crops come without replacement, in rounds of as many as it has. A class with less than
    `least_share` of it gets that share of each round, by going through its own crops sooner.

    Args:
        targets: of each sub-dataset's training crops, int64[N].
        batch: crops a step, shared by its sub-batches: batch // m each.
        tasks: m; more than there are sub-datasets count as all.
        alpha, least_share, seed: see `TrunkOptions`.
        world: processes that share each sub-batch: it is a multiple of them, so that each gets as many crops.

    Raises:
        InputError: fewer crops in a batch than sub-datasets in a step; fewer than two for BatchNorm in a process's
            share of a sub-batch.
    """

    def __init__(
        self,
        targets: Sequence[_Ints],
        batch: int,
        tasks: int,
        alpha: float,
        least_share: float,
        seed: int,
        world: int = 1,
    ) -> None:
        self.tasks = min(tasks, len(targets))
        self.size = batch // self.tasks // world * world
        if world > 1 and self.size < 2 * world:
            raise InputError(
                f"batch: expected at least {2 * world * self.tasks}, two crops of each of {self.tasks} tasks for each "
                f"of {world} processes, found {batch}; take a larger batch, fewer tasks or fewer processes"
            )
        if self.size < 1:
            raise InputError(f"batch: expected at least one crop for each of {self.tasks} tasks, found {batch}")
        counts = np.array([len(each) for each in targets], np.float64)
        self.probabilities = counts**alpha / (counts**alpha).sum()
        self.steps = max(1, round(float(counts.sum()) / (self.size * self.tasks)))  # of an epoch
        self._targets, self._share, self._seed = tuple(targets), least_share, seed
        self._round = lru_cache(maxsize=2 * len(targets))(self._new_round)
        self._block = lru_cache(maxsize=2)(self._new_block)

    def batches(self, first: int, last: int) -> Iterator[Draw]:
        """Those of steps first..last-1."""
        drawn = self._drawn_before(first)
        for step in range(first, last):
            parts = []
            for task in self.drawn_tasks(step).tolist():
                parts.append(SubBatch(task, self._crops(task, drawn[task])))
                drawn[task] += 1
            yield Draw(step, tuple(parts))

    def drawn_tasks(self, step: int) -> _Ints:
        """int64[m]: the sub-datasets of a step."""
        found: _Ints = self._block(step // _BLOCK)[step % _BLOCK]
        return found

    def _drawn_before(self, step: int) -> list[int]:
        """How often each sub-dataset was drawn in steps 0..step-1."""
        full, rest = divmod(step, _BLOCK)
        parts = [self._block(number).ravel() for number in range(full)] + [self._block(full)[:rest].ravel()]
        return np.sum([np.bincount(part, minlength=len(self._targets)) for part in parts], axis=0).tolist()  # type: ignore[no-any-return]

    def _new_block(self, number: int) -> _Ints:
        """int64[1024, m]: the sub-datasets of steps 1024 number and on."""
        rng = np.random.default_rng((self._seed, _TASKS, number))
        rows = rng.random((_BLOCK, len(self._targets))).argsort(axis=1)  # [1024, T]
        ends = np.cumsum(self.tasks * self.probabilities[rows], axis=1)
        points = rng.random((_BLOCK, 1)) + np.arange(self.tasks)
        places = (ends[:, None, :] <= points[:, :, None]).sum(axis=2)  # [1024, m]
        places = places.clip(max=len(self._targets) - 1)  # the last end may be rounded below m
        return np.take_along_axis(rows, places, axis=1).astype(np.int64)

    def _crops(self, task: int, number: int) -> _Ints:
        """int64[size]: the sub-batch that is the task's `number`-th, over the ends of rounds."""
        count = len(self._targets[task])
        found, start, left = [], number * self.size, self.size
        while left:
            which, within = divmod(start, count)
            taken = self._round(task, which)[within : within + left]
            found.append(taken)
            start, left = start + len(taken), left - len(taken)
        return np.concatenate(found)

    def _new_round(self, task: int, which: int) -> _Ints:
        targets = self._targets[task]
        parts = []
        for target, quota in enumerate(class_quotas(np.bincount(targets), self._share)):
            own = np.flatnonzero(targets == target)
            start, end = which * quota, (which + 1) * quota
            cycles = [
                np.random.default_rng((self._seed, _CYCLE, task, target, cycle)).permutation(own)
                for cycle in range(start // len(own), -(-end // len(own)))
            ]
            parts.append(np.concatenate(cycles)[start % len(own) :][:quota])
        rng = np.random.default_rng((self._seed, _ROUND, task, which))
        return rng.permutation(np.concatenate(parts)).astype(np.int64)


def class_quotas(counts: npt.NDArray[Any], least: float) -> list[int]:
    """How many of each class are in one round of all `counts` crops, every class with at least the share `least`.

    Shares below it are lifted to it (to 1 / classes where it is greater), the others shrink in proportion; quotas are
    whole, at least 1, and sum to the round's length.
    """
    total = int(counts.sum())
    least = min(least, 1 / len(counts))
    shares = counts / total
    low = shares < least
    while True:
        lifted = np.where(low, least, shares * (1 - least * low.sum()) / shares[~low].sum())
        lower = lifted < least - 1e-12  # shrunk below it, or lifted before
        if not lower.any():
            break
        low |= lower
    shares = lifted
    quotas = np.maximum(1, np.floor(shares * total + 1e-9)).astype(int)
    while quotas.sum() < total:  # the largest remainders get what is left
        quotas[int(np.argmax(shares * total - quotas))] += 1
    while quotas.sum() > total:
        quotas[int(np.argmax(quotas))] -= 1
    return [int(quota) for quota in quotas]


def mixed_draws(counts: Sequence[int], probabilities: Sequence[float], images: int, seed: int) -> list[tuple[int, int]]:
    """(task, crop) of `images` crops of all sub-datasets in the proportion of `probabilities`, none twice, shuffled."""
    rng = np.random.default_rng((seed, _MIXED))
    found: list[tuple[int, int]] = []
    for task, (count, share) in enumerate(zip(counts, probabilities, strict=True)):
        wanted = min(count, max(1, round(share * images)))
        found += [(task, int(index)) for index in rng.permutation(count)[:wanted]]
    return [found[place] for place in rng.permutation(len(found))]
