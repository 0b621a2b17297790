"""The vote is the weighted mean that its docstring states."""

from __future__ import annotations

import numpy as np
import pytest

from graftsdk.tracking.votes import Vote


@pytest.mark.parametrize("memory", [0.0, 0.3, 0.8, 0.99])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_formula(memory: float, count: int) -> None:
    answers = np.random.default_rng(count).dirichlet(np.ones(3), count).astype(np.float32)
    vote = Vote(memory)
    for answer in answers:
        vote.add(answer)
    weights = memory ** np.arange(count - 1, -1, -1, dtype=np.float64)
    np.testing.assert_allclose(vote.mean, weights @ answers / weights.sum(), rtol=1e-12)
    assert vote.answers == count and abs(vote.mean.sum() - 1) < 1e-6


def test_without_memory_the_newest_answer_stands_bit_by_bit() -> None:
    vote = Vote(0.0)
    for answer in np.random.default_rng(0).dirichlet(np.ones(2), 20).astype(np.float32):
        vote.add(answer)
        assert vote.mean.astype(np.float32).tobytes() == answer.tobytes()
        assert vote.mean.tolist() == answer.tolist()


def test_an_answer_that_was_handed_in_stays_the_callers() -> None:
    answer = np.array([0.25, 0.75], np.float32)
    vote = Vote(0.5)
    vote.add(answer)
    answer[:] = 0
    assert vote.mean.tolist() == [0.25, 0.75]
