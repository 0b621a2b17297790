"""Which images make a batch, and what that does to the share of each class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError

__all__ = ["Balance", "Draws", "shares_drawn", "true_shares"]

POSITIVE_OF_FOUR = 0.25  # of "1:3", which the paper's sub-datasets have between positives and negatives (Table 1)

Balance = Literal["balanced", "1:3", "natural"]
_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


def true_shares(targets: _Integers, classes: int) -> _Floats:
    """float64[classes]: how often each class is in the data. Raises InputError: one is not there at all."""
    counts = np.bincount(targets, minlength=classes)
    if len(counts) > classes or counts.min() == 0:
        raise InputError(f"targets: expected images of each of {classes} classes, found {counts.tolist()} of them")
    shares: _Floats = counts / counts.sum()
    return shares


def shares_drawn(targets: _Integers, classes: int, balance: Balance) -> _Floats:
    """float64[classes]: how often each class is drawn."""
    true = true_shares(targets, classes)
    if balance == "natural":
        return true
    if balance == "balanced":
        return np.full(classes, 1 / classes)
    negatives = true[:-1] / true[:-1].sum() * (1 - POSITIVE_OF_FOUR)
    return np.append(negatives, POSITIVE_OF_FOUR)


class Draws:
    """An endless series of batches; equal arguments give an equal series.

    Inside a class the images come shuffled and without replacement, one order after the other, so that none is left
    out and none comes twice as often as another of its class.
    """

    def __init__(self, targets: _Integers, classes: int, views: int, batch: int, balance: Balance, seed: int) -> None:
        """Args: targets: int64[N], class of each image. views: of each image, all equally likely."""
        self.steps = -(-len(targets) // batch)  # an epoch
        self._views, self._batch = views, batch
        self._random = np.random.Generator(np.random.PCG64(seed))
        shares = shares_drawn(targets, classes, balance)
        if balance == "natural":
            self._pools, self._shares = [np.arange(len(targets), dtype=np.int64)], np.ones(1)
        else:
            self._pools = [np.flatnonzero(targets == value).astype(np.int64) for value in range(classes)]
            self._shares = shares
        self._streams = [_endless(pool, self._random) for pool in self._pools]

    def __iter__(self) -> Iterator[tuple[_Integers, _Integers]]:
        """(indices int64[batch], views int64[batch]), without end."""
        bounds = np.cumsum(self._shares)[:-1]
        while True:
            # Systematic sampling: each class's count is its share of the batch rounded down or up, on average exact.
            points = (np.arange(self._batch) + self._random.random()) / self._batch
            counts = np.bincount(np.searchsorted(bounds, points, side="right"), minlength=len(self._streams))
            drawn = [next(s) for s, count in zip(self._streams, counts, strict=True) for _ in range(count)]
            indices = self._random.permutation(np.array(drawn, np.int64))
            yield indices, self._random.integers(0, self._views, len(indices))


def _endless(pool: _Integers, random: Any) -> Iterator[int]:
    while True:
        yield from random.permutation(pool).tolist()
