"""Batches: shares as asked for, everybody's turn, the same again."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from graftsdk.errors import InputError
from graftsdk.training.branch.draws import Draws, shares_drawn

TARGETS = np.repeat([0, 1, 2], [60, 30, 10])


def first(count, **changed):
    options = {"targets": TARGETS, "classes": 3, "views": 4, "batch": 16, "balance": "balanced", "seed": 1} | changed
    return list(islice(iter(Draws(**options)), count))


@pytest.mark.parametrize(
    ("balance", "shares"),
    [("balanced", (1 / 3, 1 / 3, 1 / 3)), ("natural", (0.6, 0.3, 0.1)), ("1:3", (0.5, 0.25, 0.25))],
)
def test_classes_come_as_often_as_asked(balance, shares):
    assert shares_drawn(TARGETS, 3, balance) == pytest.approx(shares)
    batches = [TARGETS[indices] for indices, _ in first(300, balance=balance)]
    counts = np.array([np.bincount(batch, minlength=3) for batch in batches])
    assert (counts.sum(axis=1) == 16).all()
    assert counts.mean(axis=0) / 16 == pytest.approx(shares, abs=0.01)
    if balance != "natural":  # there an epoch is exact, a batch is not
        assert (np.abs(counts - 16 * np.array(shares)) < 1).all()


def test_nobody_comes_again_before_all_of_the_class_have_come():
    drawn = np.concatenate([indices for indices, _ in first(300)])
    for value in range(3):
        turns = drawn[TARGETS[drawn] == value]
        size = np.count_nonzero(value == TARGETS)
        counts = np.bincount(turns, minlength=100)[value == TARGETS]
        assert counts.max() - counts.min() <= 1
        assert len(turns) > size


def test_views_are_all_drawn_and_everything_follows_the_seed():
    one, again, other = first(20), first(20), first(20, seed=2)
    assert set(np.concatenate([views for _, views in one])) == {0, 1, 2, 3}
    assert all(np.array_equal(a, b) for x, y in zip(one, again, strict=True) for a, b in zip(x, y, strict=True))
    assert any(not np.array_equal(x[0], y[0]) for x, y in zip(one, other, strict=True))


def test_an_epoch_is_as_many_draws_as_images():
    assert Draws(TARGETS, 3, 1, 16, "balanced", 0).steps == 7


def test_a_class_without_images_is_refused():
    with pytest.raises(InputError, match=r"each of 4 classes, found \[60, 30, 10, 0\]"):
        first(1, classes=4)
