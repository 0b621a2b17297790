"""Planted clusters are found, also after PCA; what is no set of features is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from graftsdk.errors import InputError, MissingDependency, ShapeError
from graftsdk.training.mining import MiningOptions, find_clusters, mine_features, reduce_features, usual_clusters


def planted(rng, sizes=(50, 80, 120), width=8, noise=0.1):
    centres = np.eye(len(sizes), width, dtype=np.float32) * 4
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return (centres[labels] + noise * rng.normal(size=(len(labels), width))).astype(np.float32), labels


def test_planted_clusters_are_found(rng):
    rows, truth = planted(rng)
    found = find_clusters(rows, 3)
    assert adjusted_rand_score(truth, found.labels) == 1
    assert sorted(found.sizes) == [50, 80, 120]
    for cluster in range(3):
        assert found.centres[cluster] == pytest.approx(rows[found.labels == cluster].mean(axis=0), abs=0.1)


def test_equal_seeds_give_equal_clusters(rng):
    rows = rng.normal(size=(300, 4)).astype(np.float32)
    first, again, other = (find_clusters(rows, 9, seed=seed) for seed in (1, 1, 2))
    assert (first.labels == again.labels).all() and (first.labels != other.labels).any()


def test_clusters_that_would_be_empty_are_left_out():
    rows = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    found = find_clusters(rows, 8)
    assert len(found.sizes) == 3 and found.sizes.tolist() == [10, 10, 10]


@pytest.mark.parametrize("count, clusters", [(1, 2), (200, 10), (2000, 32), (20_000, 100), (500_000, 100)])
def test_usual_clusters(count, clusters):
    assert usual_clusters(count) == clusters


def test_few_rows_are_not_reduced(rng):
    negatives, _ = planted(rng)
    found = reduce_features(negatives.astype(np.float16), negatives[:5], components=4)
    assert found.variance == 1 and found.negatives.dtype == np.float32
    assert (found.negatives == negatives.astype(np.float16)).all() and (found.positives == negatives[:5]).all()


def test_many_rows_are_reduced_and_keep_their_distances(rng, monkeypatch):
    monkeypatch.setattr("graftsdk.training.mining.clusters.CHUNK", 100)
    flat = rng.normal(size=(700, 3)) @ rng.normal(size=(3, 40))  # 40 values, 3 dimensions
    found = reduce_features(flat[:600], flat[600:], components=3, few=200)
    assert found.negatives.shape == (600, 3) and found.positives.shape == (100, 3)
    assert found.variance == pytest.approx(1, abs=1e-5)
    wide, narrow = (
        np.linalg.norm(a[:100] - b, axis=1) for a, b in ((flat, flat[600:]), (found.negatives, found.positives))
    )
    assert narrow == pytest.approx(wide, rel=1e-3)


def test_reduction_keeps_what_positives_alone_have(rng):
    negatives, positives = rng.normal(size=(2000, 20)), rng.normal(size=(60, 20))
    negatives[:, 19] = 0  # a direction in which negatives do not differ
    positives[:, 19] = rng.normal(size=60) * 9
    found = reduce_features(negatives, positives, components=2, few=400)
    assert np.abs(np.corrcoef(found.positives.T, positives[:, 19])[:-1, -1]).max() > 0.99


NAN = np.ones((50, 4), np.float32) * np.arange(50)[:, None]
NAN[33, 2] = np.nan
GOOD = np.arange(200, dtype=np.float32).reshape(50, 4)


@pytest.mark.parametrize(
    "negatives, positives, options, error, message",
    [
        (GOOD, GOOD[:0], {}, InputError, "positives: expected one image or more, found none"),
        (GOOD[:0], GOOD, {}, InputError, "negatives: expected one image or more, found none"),
        (GOOD, GOOD[:1], {}, InputError, "positives: expected two or more"),
        (GOOD[:3], GOOD, {"clusters": 4}, InputError, "clusters: expected at most 3, one a negative, found 4"),
        (NAN, GOOD, {}, InputError, "negatives: expected finite features, .* in row 33"),
        (GOOD, NAN, {}, InputError, "positives: expected finite features, .* in row 33"),
        (GOOD, GOOD[:, :3], {}, ShapeError, "expected features of one width, found 4 and, of positives, 3"),
        (np.ones((9, 4)), np.ones((9, 4)), {}, InputError, "expected features that differ from image to image"),
        (GOOD, GOOD, {"clusters": 1}, InputError, "all of them as near as the positives are to one another"),
    ],
)
def test_refused(negatives, positives, options, error, message):
    with pytest.raises(error, match=message):
        mine_features(negatives, positives, MiningOptions(**options))


def test_nan_is_found_in_the_sample_and_beyond_it(rng):
    rows = rng.normal(size=(600, 30)).astype(np.float32)
    for bad in range(0, 600, 150):
        damaged = rows.copy()
        damaged[bad, 7] = np.inf
        with pytest.raises(InputError, match="expected finite features"):
            reduce_features(damaged, rows[:50], components=4, few=100)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"keep": 1.5}, "keep: expected a share from 0 to 1, found 1.5"),
        ({"rest": -0.1}, "rest: expected a share"),
        ({"keep": float("nan")}, "keep"),
        ({"clusters": 0}, "clusters: expected an integer from 1"),
        ({"sample": 0}, "sample"),
        ({"repeats": 1}, "repeats: expected an integer from 2"),
        ({"gamma": -1.0}, "gamma: expected a number above 0"),
        ({"seed": -1}, "seed"),
        ({"batch": 0}, "batch"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        MiningOptions(**options)


def test_from_features_to_a_selection(rng):
    """Of four planted kinds the one that is like the positives is for review, the next one is kept, the far thinned."""
    ways = np.array([0.0, 3.0, 9.0, 14.0])
    base = [rng.normal(size=(60, 12)) * 0.5 for _ in range(5)]
    kinds = [each + np.eye(12)[number] * way for number, (each, way) in enumerate(zip(base, ways, strict=False))]
    mined = mine_features(np.concatenate(kinds), base[4], MiningOptions(clusters=4, keep=0.3))
    assert [row.decision.value for row in mined.rows] == ["review", "kept", "thinned", "thinned"]
    assert [row.size for row in mined.rows] == [60] * 4 and [row.kept for row in mined.rows] == [0, 60, 6, 6]
    assert (mined.selection.review == np.arange(60)).all()
    assert set(range(60, 120)) <= set(mined.selection.kept)
    assert mined.rows[0].emd < mined.floor + mined.floor_spread < mined.rows[1].emd

    scaled = mine_features(np.concatenate(kinds) * 32, base[4] * 32, MiningOptions(clusters=4, keep=0.3))
    assert [row.similarity for row in scaled.rows] == pytest.approx([row.similarity for row in mined.rows], rel=1e-4)
    assert (scaled.selection.kept == mined.selection.kept).all()
    other = mine_features(np.concatenate(kinds), base[4], MiningOptions(clusters=4, keep=0.3, gamma=5.0))
    assert (other.selection.kept == mined.selection.kept).all()


@pytest.mark.parametrize("module", ["ot", "sklearn.cluster", "scipy.spatial"])
def test_what_is_not_installed_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"mining needs {module}: pip install 'graftsdk\[train\]'"):
        mine_features(GOOD, GOOD, MiningOptions(clusters=2))
