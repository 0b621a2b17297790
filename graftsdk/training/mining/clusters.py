"""Negatives by k-means over their features, these reduced first where there are many (paper 3.4)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError, ShapeError
from graftsdk.training.mining.libraries import needed

__all__ = ["Clusters", "Reduced", "Rows", "find_clusters", "reduce_features", "usual_clusters"]

COMPONENTS = 256  # of the PCA
FEW = 20_000  # rows that are worked on as they are: 164 MB at 2048 features; and rows that the PCA is fitted on
MOST_CLUSTERS = 100
CHUNK = 8192  # rows at once: 64 MB at 2048 features

_Float = npt.NDArray[np.float32]


class Rows(Protocol):
    """Features, as an array or read from files piece by piece: float32[N, D]."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Reduced:
    """Features of both sides in the same space.

    Attributes:
        negatives: float32[N, d].
        positives: float32[P, d].
        variance: the share of their variance that the d components hold; 1 where nothing was reduced.
    """

    negatives: _Float
    positives: _Float
    variance: float


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of the negatives.

    Attributes:
        labels: int64[N], 0..K-1.
        centres: float32[K, d].
        sizes: int64[K], none of them 0.
    """

    labels: npt.NDArray[np.int64]
    centres: _Float
    sizes: npt.NDArray[np.int64]


def reduce_features(
    negatives: Rows, positives: Rows, *, components: int = COMPONENTS, few: int = FEW, seed: int = 0
) -> Reduced:
    """The features in memory, by PCA where there are more than `few` rows of more than `components` values.

    The PCA is fitted on `few` rows drawn from both sides, half of them positives as far as there are so many: the
    directions that tell positives from negatives are lost in one that has seen negatives alone.

    Raises:
        InputError: a side is empty; NaN or infinite features; all features alike.
        ShapeError: the sides differ in width.
        MissingDependency: scikit-learn is not installed.
    """
    for name, rows in (("positives", positives), ("negatives", negatives)):
        if len(rows) == 0:
            raise InputError(f"{name}: expected one image or more, found none; mining needs both sides")
    width = negatives.shape[1]
    if positives.shape[1] != width:
        raise ShapeError(f"expected features of one width, found {width} and, of positives, {positives.shape[1]}")
    if len(negatives) + len(positives) <= few or width <= components:
        both = _whole(negatives, "negatives"), _whole(positives, "positives")
        _check_differences(np.concatenate([each[:1000] for each in both]))
        return Reduced(*both, 1.0)
    pca = _pca(negatives, positives, components, few, seed)
    reduced = _projected(negatives, "negatives", pca), _projected(positives, "positives", pca)
    return Reduced(*reduced, float(pca.explained_variance_ratio_.sum()))


def usual_clusters(count: int) -> int:
    """sqrt(count / 2), at least 2 and at most 100: as many clusters as `count` negatives get where nobody says."""
    return max(2, min(MOST_CLUSTERS, round(sqrt(count / 2))))


def find_clusters(rows: _Float, count: int, *, seed: int = 0) -> Clusters:
    """k-means (MiniBatchKMeans) of float32[N, d] with a fixed seed; fewer than `count` where some would be empty.

    Equal rows in equal order give equal clusters.

    Raises:
        InputError: fewer rows than clusters.
        MissingDependency: scikit-learn is not installed.
    """
    whole_number("clusters", count, 1, 10_000)
    if len(rows) < count:
        raise InputError(f"clusters: expected at most {len(rows)}, one a negative, found {count}; ask for fewer")
    needed("sklearn.cluster")
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    first = min(len(rows), max(3000, 3 * count))  # rows that k-means++ chooses the first centres from: most of the time
    means = MiniBatchKMeans(count, batch_size=4096, n_init=3, max_iter=100, init_size=first, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: empty ones go, below
        means.fit(rows)
    labels = np.concatenate([means.predict(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)])
    used, labels = np.unique(labels, return_inverse=True)
    centres = np.asarray(means.cluster_centers_[used], np.float32)
    return Clusters(labels.astype(np.int64), centres, np.bincount(labels, minlength=len(used)))


def _chunks(rows: Rows, name: str) -> Iterator[tuple[int, _Float]]:
    """(start, float32[<= CHUNK, D]), all finite."""
    for start in range(0, len(rows), CHUNK):
        chunk = np.asarray(rows[start : start + CHUNK], np.float32)
        bad = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
        if len(bad):
            raise InputError(f"{name}: expected finite features, found NaN or infinite ones in row {start + bad[0]}")
        yield start, chunk


def _whole(rows: Rows, name: str) -> _Float:
    return _filled(rows, name, rows.shape[1], lambda chunk: chunk)


def _projected(rows: Rows, name: str, pca: Any) -> _Float:
    return _filled(rows, name, pca.n_components_, pca.transform)


def _filled(rows: Rows, name: str, width: int, change: Any) -> _Float:
    whole = np.empty((len(rows), width), np.float32)
    for start, chunk in _chunks(rows, name):
        whole[start : start + len(chunk)] = change(chunk)
    return whole


def _pca(negatives: Rows, positives: Rows, components: int, few: int, seed: int) -> Any:
    needed("sklearn.decomposition")
    from sklearn.decomposition import PCA

    rng = np.random.default_rng([seed, 1])
    half = min(len(positives), few // 2)
    counts = (min(len(negatives), few - half), half)
    sample = np.concatenate(
        [
            np.asarray(rows[np.sort(rng.choice(len(rows), count, replace=False))], np.float32)
            for rows, count in zip((negatives, positives), counts, strict=True)
        ]
    )
    if not np.isfinite(sample).all():
        raise InputError("expected finite features, found NaN or infinite ones; look at the trunk that made them")
    _check_differences(sample)
    return PCA(min(components, len(sample)), svd_solver="covariance_eigh").fit(sample)


def _check_differences(sample: _Float) -> None:
    if len(sample) > 1 and (sample == sample[0]).all():
        raise InputError("expected features that differ from image to image, found all alike; the trunk says nothing")
