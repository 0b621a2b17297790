"""Mining on features alone: clusters, distances, selection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.training.mining.clusters import Clusters, Reduced, Rows, find_clusters, reduce_features, usual_clusters
from graftsdk.training.mining.distance import SAMPLE, cluster_distances, similarities
from graftsdk.training.mining.selection import Decision, Selection, select

__all__ = ["ClusterRow", "Mined", "MiningOptions", "mine_features"]


@dataclass(frozen=True)
class MiningOptions:
    """How negatives are mined.

    Attributes:
        keep: share of the negatives that the nearest clusters fill. rest: share of every other cluster.
        clusters: how many; None: sqrt(negatives / 2), at most 100.
        sample: images a side of every EMD.
        repeats: samples drawn for each cluster; None: as many as have 1280 images in all, at least 5.
        gamma: of the similarities; None: ln 2 / the median EMD.
        seed: of clusters and samples.
        batch: crops at once through the trunk.
    """

    keep: float = 0.4
    rest: float = 0.1
    clusters: int | None = None
    sample: int = SAMPLE
    repeats: int | None = None
    gamma: float | None = None
    seed: int = 0
    batch: int = 32

    def __post_init__(self) -> None:
        for name in ("keep", "rest"):
            share = getattr(self, name)
            if not (isinstance(share, int | float) and 0 <= share <= 1):
                raise InputError(f"{name}: expected a share from 0 to 1, found {share!r:.80}")
        if self.clusters is not None:
            whole_number("clusters", self.clusters, 1, 10_000)
        whole_number("sample", self.sample, 1, 4096)
        if self.repeats is not None:
            whole_number("repeats", self.repeats, 2, 1000)
        whole_number("seed", self.seed, 0, 2**31 - 1)
        whole_number("batch", self.batch, 1, 4096)
        if self.gamma is not None and not (math.isfinite(self.gamma) and self.gamma > 0):
            raise InputError(f"gamma: expected a number above 0, found {self.gamma!r:.80}")


@dataclass(frozen=True)
class ClusterRow:
    """One cluster of negatives.

    Attributes:
        rank: 1 is the nearest to the positives.
        cluster: its number.
        size: negatives in it; kept: how many of them are kept.
        emd: its distance to the positives, in the features' unit; spread: the standard deviation over samples.
        similarity: exp(-gamma emd).
        decision: what becomes of it.
    """

    rank: int
    cluster: int
    size: int
    kept: int
    emd: float
    spread: float
    similarity: float
    decision: Decision


@dataclass(frozen=True, eq=False)
class Mined:
    """What comes of features alone.

    Attributes:
        reduced: what clusters and distances saw.
        clusters: of the negatives.
        rows: the clusters, the nearest first.
        selection: of the negatives.
        floor: EMD between two halves of the positives; floor_spread: its standard deviation.
        sample: images a side of every EMD.
        gamma: of the similarities.
    """

    reduced: Reduced
    clusters: Clusters
    rows: tuple[ClusterRow, ...]
    selection: Selection
    floor: float
    floor_spread: float
    sample: int
    gamma: float


def mine_features(
    negatives: Rows,
    positives: Rows,
    options: MiningOptions | None = None,
    *,
    progress: bool = False,
) -> Mined:
    """Clusters of the negatives, their distances to the positives, and which negatives stay.

    Args:
        negatives: float32[N, D], in an order that is the same next time: the draws depend on it.
        positives: float32[P, D], as well.
        options: see `MiningOptions`.
        progress: show a bar.

    Raises:
        InputError: no negatives, fewer than two positives, fewer negatives than clusters, features that are NaN,
            infinite or all alike, nothing left to keep.
        ShapeError: the two differ in width.
        MissingDependency: scikit-learn, SciPy or POT is not installed.
    """
    options = options or MiningOptions()
    count = options.clusters or min(usual_clusters(len(negatives)), max(len(negatives), 1))
    if 0 < len(negatives) < count:
        raise InputError(
            f"clusters: expected at most {len(negatives)}, one a negative, found {count}; ask for fewer clusters"
        )
    reduced = reduce_features(negatives, positives, seed=options.seed)
    clusters = find_clusters(reduced.negatives, count, seed=options.seed)
    with tqdm(total=len(clusters.sizes), unit="cluster", desc="distances", disable=not progress, leave=False) as line:
        distances = cluster_distances(
            reduced.negatives,
            clusters.labels,
            reduced.positives,
            sample=options.sample,
            repeats=options.repeats,
            seed=options.seed,
            step=line.update,
        )
    similar, gamma = similarities(distances.emd, options.gamma)
    selection = select(
        clusters.labels,
        distances.emd,
        distances.floor,
        distances.floor_spread,
        keep=options.keep,
        rest=options.rest,
        seed=options.seed,
    )
    rows = tuple(
        ClusterRow(
            rank,
            int(cluster),
            int(clusters.sizes[cluster]),
            int(selection.counts[cluster]),
            float(distances.emd[cluster]),
            float(distances.spread[cluster]),
            float(similar[cluster]),
            selection.decisions[cluster],
        )
        for rank, cluster in enumerate(np.argsort(distances.emd, kind="stable"), 1)
    )
    return Mined(reduced, clusters, rows, selection, distances.floor, distances.floor_spread, distances.sample, gamma)
