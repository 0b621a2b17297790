"""EMD against exact assignment, and what must not change it or its ranking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from graftsdk.errors import InputError
from graftsdk.training.mining import cluster_distances, earth_mover, similarities
from graftsdk.training.mining.distance import Distances


@pytest.mark.parametrize("n, width", [(1, 3), (2, 1), (7, 2), (40, 64), (100, 8)])
def test_equal_sizes_are_an_assignment(rng, n, width):
    a, b = rng.normal(size=(n, width)), rng.normal(size=(n, width)) + 0.5
    costs = cdist(a, b)
    assert earth_mover(a, b) == pytest.approx(costs[linear_sum_assignment(costs)].mean(), rel=1e-12)


@pytest.mark.parametrize("n, m", [(1, 5), (6, 4), (30, 17)])
def test_one_dimension_of_other_sizes(rng, n, m):
    a, b = rng.normal(size=n), rng.normal(size=m)
    assert earth_mover(a[:, None], b[:, None]) == pytest.approx(wasserstein_distance(a, b), rel=1e-10)


def test_what_a_distance_must_do(rng):
    a, b, way = rng.normal(size=(20, 5)), rng.normal(size=(20, 5)), np.array([3.0, 0, 4.0, 0, 0])
    assert earth_mover(a, a) == pytest.approx(0, abs=1e-12)
    assert earth_mover(a, a + way) == pytest.approx(5.0)  # everything moves by the same way: nothing is shorter
    assert earth_mover(a, b) == pytest.approx(earth_mover(b, a))
    assert earth_mover(a[rng.permutation(20)], b) == pytest.approx(earth_mover(a, b))
    assert earth_mover(7 * a, 7 * b) == pytest.approx(7 * earth_mover(a, b))


def planted(rng, count=60):
    """Positives, and clusters of negatives that lie 0, 1, 2 and 4 away from them."""
    away = np.array([2.0, 0.0, 4.0, 1.0])
    negatives = np.concatenate([rng.normal(size=(count, 6)) * 0.3 + [each, 0, 0, 0, 0, 0] for each in away])
    return negatives, np.repeat(np.arange(4), count), rng.normal(size=(150, 6)) * 0.3


def test_nearer_clusters_are_nearer(rng):
    found = cluster_distances(*planted(rng))
    assert found.emd.argsort().tolist() == [1, 3, 0, 2]
    assert found.emd[2] == pytest.approx(4, rel=0.05) and found.emd[0] == pytest.approx(2, rel=0.1)
    # What is drawn from the positives' own distribution lies at the floor; nothing else does.
    assert abs(found.emd[1] - found.floor) < 3 * found.floor_spread
    assert (np.delete(found.emd, 1) > found.floor + 5 * found.floor_spread).all()
    assert (found.spread > 0).all() and found.floor_spread > 0


@pytest.mark.parametrize(
    "sizes, positives, asked, n",
    [
        ((300, 400), 900, 256, 256),  # as asked for
        ((300, 400), 100, 256, 50),  # halves of the positives are smaller
        ((40, 400), 900, 256, 76),  # the tenth part of the clusters is smaller: 40 + 0.1 (400 - 40)
        ((3, 400), 900, 256, 42),  # of one tiny cluster, images are drawn several times
        ((3, 4), 900, 256, 32),
        ((3, 4), 3, 256, 1),
        ((300, 400), 900, 10, 10),
    ],
)
def test_samples_are_of_one_size(rng, monkeypatch, sizes, positives, asked, n):
    seen = []
    monkeypatch.setattr(
        "graftsdk.training.mining.distance.earth_mover", lambda a, b: seen.append((len(a), len(b))) or 1.0
    )
    labels = np.repeat(np.arange(len(sizes)), sizes)
    found = cluster_distances(rng.normal(size=(len(labels), 2)), labels, rng.normal(size=(positives, 2)), sample=asked)
    assert found.sample == n and set(seen) == {(n, n)}
    assert len(seen) == max(5, -(-1280 // n)) * (len(sizes) + 1)


def test_equal_seeds_give_equal_distances(rng):
    sets = planted(rng, 40)
    first, again, other = (cluster_distances(*sets, sample=20, repeats=3, seed=seed) for seed in (3, 3, 4))
    assert isinstance(first, Distances) and (first.emd == again.emd).all() and first.floor == again.floor
    assert (first.emd != other.emd).any()


@settings(max_examples=40)
@given(st.lists(st.floats(0.1, 1e3), min_size=2, max_size=20, unique=True), st.floats(1e-3, 0.5))
def test_gamma_does_not_change_the_ranking(distances, gamma):
    usual, by_default = similarities(distances)
    given_one, same = similarities(distances, gamma)
    assert same == gamma and by_default == pytest.approx(np.log(2) / np.median(distances))
    order = np.argsort(distances)
    assert (np.diff(usual[order]) <= 0).all() and (np.diff(given_one[order]) <= 0).all()


def test_the_median_cluster_is_half_similar():
    assert similarities([4.0, 1.0, 2.0])[0].tolist() == pytest.approx([0.25, 2**-0.5, 0.5])
    assert similarities([38.0, 64.0], 0.01)[0] == pytest.approx([0.684, 0.527], abs=1e-3)  # the reference's scale


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: earth_mover(np.ones((0, 2)), np.ones((3, 2))), "expected rows on both sides, found 0 and 3"),
        (lambda: cluster_distances(np.ones((4, 2)), np.zeros(4, int), np.ones((1, 2))), "two or more, .* found 1"),
        (lambda: similarities([0.0, 0.0, 1.0]), "expected a median above 0"),
        (lambda: similarities([1.0], 0.0), "gamma: expected a number above 0"),
        (lambda: similarities([1.0], float("nan")), "gamma"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
