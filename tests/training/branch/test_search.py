"""Which branches are tried, in which order, and which is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from training.branch.planted import small_trunk

from graftsdk.errors import InputError
from graftsdk.models import Trunk
from graftsdk.training.branch.options import BranchOptions
from graftsdk.training.branch.search import PATIENCE, Candidate, Tried, candidates, chosen, default_taps, enough


def tried(*aucs):
    return [Tried(Candidate(8 - i, 1.0, 100 * i, i), auc, 1, 1, 0.0) for i, auc in enumerate(aucs)]


def pairs(**options):
    return [(one.tap, one.width) for one in candidates(small_trunk(), "x", ("no", "yes"), BranchOptions(**options))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tap": 6}, [(6, 1.0)]),
        ({"tap": 6, "width": 0.5}, [(6, 0.5)]),
        ({"tap": 8, "width": "auto"}, [(8, 1.0)]),  # head only: no own layer to be narrow
        ({"search_taps": (6, 8, 7)}, [(8, 1.0), (7, 1.0), (6, 1.0)]),
        ({"search_taps": (6, 8), "until": 7}, [(6, 1.0)]),
        ({"until": 6, "search_taps": (6, 5)}, [(6, 1.0), (5, 1.0)]),
    ],
)
def test_what_is_tried(options, expected):
    assert pairs(**options) == expected


def test_the_search_goes_from_the_head_alone_to_dearer_branches():
    trunk = Trunk.create("resnet18", width=0.5, crop=small_trunk().crop)
    found = candidates(trunk, "x", ("no", "yes"), BranchOptions(width="auto", search_taps=(8, 7)))
    assert [(one.tap, one.width) for one in found] == [(8, 1.0), (7, 0.25), (7, 0.5), (7, 1.0)]
    assert found[0].macs == 2 * 256
    assert [one.macs for one in found] == sorted(one.macs for one in found)


@pytest.mark.parametrize(
    ("last", "taps"), [(11, (11, 10, 9, 8, 6, 4)), (8, (8, 7, 6, 5, 3, 1)), (3, (3, 2, 1, 0)), (0, (0,))]
)
def test_taps_that_are_tried_by_default(last, taps):
    assert default_taps(last) == taps


@pytest.mark.parametrize(
    ("aucs", "tolerance", "index"),
    [
        ((0.80, 0.90, 0.95), 0.002, 2),
        ((0.80, 0.9485, 0.95), 0.002, 1),
        ((0.949, 0.95, 0.90), 0.002, 0),
        ((0.80, 0.949, 0.95), 0.0, 2),
        ((0.5, 0.5), 0.0, 0),
    ],
)
def test_the_cheapest_within_the_tolerance_of_the_best(aucs, tolerance, index):
    found = tried(*aucs)
    assert chosen(found, tolerance) is found[index]


@pytest.mark.parametrize(
    ("aucs", "over"),
    [
        ((0.9,) * PATIENCE, False),
        ((0.9,) * (PATIENCE + 1), True),
        ((0.9, *(0.9,) * (PATIENCE - 1), 0.91), False),
        ((0.7, 0.8, 0.9, *(0.85,) * PATIENCE), True),
    ],
)
def test_it_ends_where_cost_brings_nothing_more(aucs, over):
    assert enough(tried(*aucs), 0.002) is over


@pytest.mark.parametrize("changed", [{"tap": 9}, {"search_taps": (9,), "until": 9}, {"search_taps": (7,), "until": 3}])
def test_taps_that_are_not_there_are_refused(changed):
    with pytest.raises(InputError, match="tap|until"):
        candidates(small_trunk(), "x", ("no", "yes"), replace(BranchOptions(), **changed))
