"""What a step draws: in the right proportions, every crop once a round, and by (seed, step) alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graftsdk.errors import InputError
from graftsdk.training.trunk.sampling import TaskOrder, class_quotas, mixed_draws


def targets(*counts):
    """One sub-dataset with so many crops of each class."""
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


SETS = [targets(30, 10), targets(300, 100), targets(90, 10), targets(5, 6, 7)]


def order(tasks=2, batch=16, alpha=0.5, least=0.25, seed=0, sets=SETS):
    return TaskOrder(sets, batch, tasks, alpha, least, seed)


def plain(draws):
    return [(draw.step, [(part.task, part.indices.tolist()) for part in draw.parts]) for draw in draws]


@pytest.mark.parametrize("tasks", [1, 3])
def test_from_any_step_on_it_is_the_same(tasks):
    whole = plain(order(tasks).batches(0, 1510))
    for first in (0, 1, 37, 1023, 1024, 1500):
        some = plain(order(tasks).batches(first, first + 5))
        assert some == whole[first : first + 5]
    assert plain(order(tasks, seed=1).batches(0, 3)) != whole[:3]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_sub_datasets_are_drawn_in_proportion_to_a_power_of_their_size(alpha, tasks):
    steps, found = 4096, order(tasks, alpha=alpha)
    drawn = Counter(task for step in range(steps) for task in found.drawn_tasks(step).tolist())
    sizes = np.array([len(each) for each in SETS], float)
    wanted = tasks * sizes**alpha / (sizes**alpha).sum()
    shares = np.array([drawn[task] for task in range(len(SETS))]) / steps
    assert np.abs(shares - wanted).max() < 4 * 0.5 / steps**0.5  # four deviations of a coin
    assert sum(drawn.values()) == tasks * steps


def test_a_step_never_draws_more_than_its_share_rounded_up():
    ceiling = np.ceil(2 * order().probabilities)
    for draw in order().batches(0, 500):
        counts = Counter(part.task for part in draw.parts)
        assert all(count <= ceiling[task] for task, count in counts.items())


@pytest.mark.parametrize("task, counts", [(0, (30, 10)), (1, (300, 100))])
def test_every_crop_once_a_round(task, counts):
    """Shares of 3:1 are not lifted: rounds are epochs, whatever the batch."""
    rows = [i for d in order(1, 7).batches(0, 1200) for part in d.parts if part.task == task for i in part.indices]
    total = sum(counts)
    assert len(rows) > 2 * total
    for start in range(0, len(rows) - total, total):
        assert sorted(rows[start : start + total]) == list(range(total))
    assert rows[:total] != rows[total : 2 * total]


def test_a_rare_class_comes_in_its_least_share():
    rows = [i for d in order(1, 7, alpha=0).batches(0, 300) for part in d.parts if part.task == 2 for i in part.indices]
    rounds = [rows[start : start + 100] for start in range(0, len(rows) - 100, 100)]
    assert len(rounds) > 2
    assert all(sum(row >= 90 for row in some) == 25 for some in rounds)
    found = Counter(row for some in rounds for row in some)
    assert {found[row] for row in range(90, 100)} <= {len(rounds) * 25 // 10, len(rounds) * 25 // 10 + 1}
    assert {found[row] for row in range(90)} <= {len(rounds) * 75 // 90, len(rounds) * 75 // 90 + 1}


@pytest.mark.parametrize(
    "counts, least, wanted",
    [
        ((30, 10), 0.25, [30, 10]),
        ((90, 10), 0.25, [75, 25]),
        ((90, 10), 0.5, [50, 50]),
        ((90, 10), 0.0, [90, 10]),
        ((10, 90), 0.25, [25, 75]),
        ((96, 2, 2), 0.5, [34, 33, 33]),
        ((80, 18, 2), 0.2, [60, 20, 20]),
        ((1, 1), 0.25, [1, 1]),
        ((999, 1), 0.0, [999, 1]),
    ],
)
def test_quotas(counts, least, wanted):
    assert class_quotas(np.array(counts), least) == wanted


def test_more_tasks_than_sub_datasets_are_all_of_them():
    found = order(9, 16, alpha=0)
    assert found.tasks == 4 and found.size == 4
    assert all(sorted(part.task for part in draw.parts) == [0, 1, 2, 3] for draw in found.batches(0, 50))
    assert found.steps == round(sum(map(len, SETS)) / 16)


def test_too_small_a_batch():
    with pytest.raises(InputError, match="batch: expected at least one crop for each of 4 tasks, found 3"):
        order(4, 3)


def test_mixed_draws_have_every_set_and_nothing_twice():
    found = mixed_draws([100, 1000, 5], [0.2, 0.7, 0.1], 200, seed=3)
    assert Counter(task for task, _ in found) == {0: 40, 1: 140, 2: 5}
    assert len(set(found)) == len(found) and found == mixed_draws([100, 1000, 5], [0.2, 0.7, 0.1], 200, seed=3)
    assert len({task for task, _ in found[:20]}) > 1
