"""One score out of several answers about the same person."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Vote"]


class Vote:
    """The mean of a label's probabilities over a track, the old ones forgotten exponentially.

    After answers p_1 ... p_n it is sum(m**(n - i) * p_i) / sum(m**(n - i)), of probabilities again probabilities.

    Args:
        memory: m, from 0 to below 1. 0 keeps the newest alone, bit by bit.

    Attributes:
        answers: how many there were.
    """

    __slots__ = ("_memory", "_sum", "_weight", "answers")

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._sum: npt.NDArray[np.float64] | None = None
        self._weight = 0.0
        self.answers = 0

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        """One more answer, float32[C]."""
        new = scores.astype(np.float64)
        self._sum = new if self._sum is None else self._memory * self._sum + new
        self._weight = self._memory * self._weight + 1.0
        self.answers += 1

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """float64[C]; asked for after the first answer."""
        assert self._sum is not None
        return self._sum / self._weight
