"""How far clusters of negatives are from the positives: the Earth Mover's Distance of samples (paper 3.4).

After Cui et al., "Large Scale Fine-Grained Categorization and Domain-Specific Transfer Learning" (CVPR 2018):
similarity exp(-gamma EMD). They compare class means; here samples of single images are compared, all of one size, for
the EMD of samples is the greater the fewer they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.training.mining.libraries import needed

__all__ = ["Distances", "cluster_distances", "earth_mover", "similarities"]

SAMPLE = 256  # 20 ms a pair, on one core
_DRAWN = 1280  # images of each cluster in all its samples: 5 of 256
_FEWEST = 5  # samples, however large
_LEAST = 32  # smaller clusters do not make everybody's samples smaller
_ITERATIONS = 1_000_000  # POT's default, a tenth of it, is too few for a thousand images

_Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Distances:
    """EMD of each cluster to the positives, in the features' unit; means over repeated samples.

    Attributes:
        emd: float64[K].
        spread: float64[K], the standard deviation over the repeats.
        floor: between two halves of the positives: what no cluster of other images should be below.
        floor_spread: its standard deviation.
        sample: images a side in every one of these distances.
    """

    emd: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    floor: float
    floor_spread: float
    sample: int


def earth_mover(a: _Array, b: _Array) -> float:
    """The EMD between rows a[n, d] and b[m, d], each of weight 1/n and 1/m, Euclidean distances; exact.

    Raises:
        InputError: no row, or no solution within a million iterations.
        MissingDependency: POT or SciPy is not installed.
    """
    needed("ot", "scipy.spatial")
    import ot
    from scipy.spatial.distance import cdist

    if len(a) == 0 or len(b) == 0:
        raise InputError(f"EMD: expected rows on both sides, found {len(a)} and {len(b)}")
    costs = cdist(np.asarray(a, np.float64), np.asarray(b, np.float64))
    weights = [np.full(count, 1.0 / count) for count in costs.shape]
    value, log = ot.emd2(*weights, costs, numItermax=_ITERATIONS, log=True)
    if log["warning"] is not None:
        raise InputError(f"EMD of {len(a)} and {len(b)} rows: expected a solution, found: {log['warning']}; take fewer")
    return float(value)


def cluster_distances(
    negatives: _Array,
    labels: npt.NDArray[np.int64],
    positives: _Array,
    *,
    sample: int = SAMPLE,
    repeats: int | None = None,
    seed: int = 0,
    step: Callable[[], object] = lambda: None,
) -> Distances:
    """The distances of all clusters.

    Every EMD is of `sample` images a side, fewer where half of the positives or the tenth part of the clusters are
    smaller; clusters below that are drawn with replacement. All clusters meet the same positives in a repeat.

    Args:
        negatives: float32[N, d].
        labels: int64[N], 0..K-1: each one's cluster.
        positives: float32[P, d].
        sample: images a side.
        repeats: samples drawn for each cluster; None: as many as have 1280 images in all, at least 5.
        seed: of the samples.
        step: called after each cluster.

    Raises:
        InputError: fewer than two positives, or an argument out of range.
        MissingDependency: POT or SciPy is not installed.
    """
    whole_number("sample", sample, 1, 4096)
    if repeats is not None:
        whole_number("repeats", repeats, 2, 1000)
    if len(positives) < 2:
        raise InputError(f"positives: expected two or more, to set their halves apart, found {len(positives)}")
    sizes = np.bincount(labels)
    n = min(sample, len(positives) // 2, max(_LEAST, int(np.quantile(sizes, 0.1))))
    repeats = repeats or max(_FEWEST, math.ceil(_DRAWN / n))
    rng = np.random.default_rng([seed, 2])
    halves = [rng.permutation(len(positives))[: 2 * n] for _ in range(repeats)]
    floor = np.array([earth_mover(positives[each[:n]], positives[each[n:]]) for each in halves])
    order = np.argsort(labels, kind="stable")
    found = np.empty((len(sizes), repeats))
    for cluster, members in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        own = np.random.default_rng([seed, 3, cluster])
        for repeat, each in enumerate(halves):
            drawn = own.choice(members, n, replace=len(members) < n)
            found[cluster, repeat] = earth_mover(negatives[drawn], positives[each[:n]])
        step()
    return Distances(found.mean(axis=1), found.std(axis=1, ddof=1), float(floor.mean()), float(floor.std(ddof=1)), n)


def similarities(emd: npt.ArrayLike, gamma: float | None = None) -> tuple[npt.NDArray[np.float64], float]:
    """(exp(-gamma emd), gamma); by default gamma = ln 2 / median: half of the clusters are above 0.5.

    Their order does not depend on gamma.

    Raises:
        InputError: gamma is not above 0, or left out where the median is 0.
    """
    values = np.asarray(emd, np.float64)
    if gamma is None:
        median = float(np.median(values))
        if median <= 0:
            raise InputError(
                "EMD: expected a median above 0, found 0: half of the clusters are the positives' own images"
            )
        gamma = math.log(2) / median
    if not (math.isfinite(gamma) and gamma > 0):
        raise InputError(f"gamma: expected a number above 0, found {gamma!r:.80}")
    return np.exp(-gamma * values), gamma
