"""Which clusters stay: small cases by hand, and what holds of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftsdk.errors import InputError
from graftsdk.training.mining import Decision, select

K, T, R = Decision.KEPT, Decision.THINNED, Decision.REVIEW


@pytest.mark.parametrize(
    "sizes, emd, floor, keep, rest, decisions, counts",
    [
        ((10, 10, 10, 10), (3, 1, 4, 2), (0, 0), 0.5, 0.1, (T, K, T, K), (1, 10, 1, 10)),
        ((10, 10, 10, 10), (3, 1, 4, 2), (0, 0), 0.51, 0.1, (K, K, T, K), (10, 10, 1, 10)),  # the last one passes it
        ((10, 10, 10, 10), (3, 1, 4, 2), (1.5, 0), 0.3, 0.1, (T, R, T, K), (1, 0, 1, 10)),  # 30% of the other 30
        ((10, 10, 10, 10), (3, 1, 4, 2), (1.5, 0.5), 0.3, 0.1, (K, R, T, R), (10, 0, 1, 0)),  # at the floor's spread
        ((10, 25, 3), (1, 2, 3), (0, 0), 0.1, 0.1, (K, T, T), (10, 3, 1)),  # shares are rounded up
        ((10, 25, 3), (1, 2, 3), (0, 0), 0.1, 0.0, (K, T, T), (10, 0, 0)),
        ((10, 25, 3), (1, 2, 3), (0, 0), 0.0, 0.1, (T, T, T), (1, 3, 1)),
        ((10, 25, 3), (1, 2, 3), (0, 0), 1.0, 0.1, (K, K, K), (10, 25, 3)),
        ((5, 5), (2, 2), (0, 0), 0.5, 1.0, (K, T), (5, 5)),  # the first of equals
    ],
)
def test_by_hand(sizes, emd, floor, keep, rest, decisions, counts):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    found = select(labels, emd, *floor, keep=keep, rest=rest)
    assert found.decisions == decisions and found.counts.tolist() == list(counts)
    assert np.bincount(labels[found.kept], minlength=len(sizes)).tolist() == list(counts)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0, 10)), min_size=1, max_size=8),
    st.floats(0, 5),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_what_holds_of_all(clusters, floor, keep, rest, seed):
    sizes, emd = zip(*clusters, strict=True)
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    if max(emd) <= floor:
        with pytest.raises(InputError, match="as near as the positives"):
            select(labels, emd, floor)
        return
    found = select(labels, emd, floor, keep=keep, rest=rest, seed=seed)
    parts = np.concatenate([found.kept, found.dropped, found.review])
    assert sorted(parts) == list(range(len(labels)))
    assert all((np.diff(part) > 0).all() for part in (found.kept, found.dropped, found.review))
    assert set(found.review) == {index for index, cluster in enumerate(labels) if emd[cluster] <= floor}
    assert len(found.kept) >= keep * (len(labels) - len(found.review)) - 1e-6
    kept = [emd[c] for c, decision in enumerate(found.decisions) if decision is K]
    thinned = [emd[c] for c, decision in enumerate(found.decisions) if decision is T]
    assert max(kept) <= min(thinned, default=np.inf)
    again = select(labels, np.array(emd) * 3, floor * 3, keep=keep, rest=rest, seed=seed)
    assert floor == 0 or (again.kept == found.kept).all()


def test_the_random_share_follows_the_seed():
    labels = np.repeat([0, 1], [5, 200])
    first, again, other = (select(labels, (1, 2), keep=0.01, seed=seed).kept for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert len(set(np.diff(first[5:]))) > 2  # not the first twenty, not every tenth


@pytest.mark.parametrize(
    "emd, options, message",
    [
        ((1.0, np.nan), {}, "expected finite distances"),
        ((1.0, 2.0), {"keep": 1.1}, "keep: expected a share"),
        ((1.0, 2.0), {"rest": -1}, "rest: expected a share"),
        ((1.0, 2.0), {"keep": 0.0, "rest": 0.0}, "expected negatives to keep, found keep=0.0, rest=0.0"),
    ],
)
def test_refused(emd, options, message):
    with pytest.raises(InputError, match=message):
        select(np.array([0, 1, 1]), emd, **options)
