"""Losses and times of steps, as they are shown and written into the curve."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Meter"]

_RECENT = 20


class Meter:
    """Means over the steps since the last row of the curve.

    Args:
        names: of the losses, their sum first.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.steps = 0
        self._names = (*names, "ms_a_step")
        self._sums = [0.0] * len(self._names)
        self._recent: list[tuple[float, ...]] = []

    def add(self, losses: tuple[float, ...], seconds: float) -> None:
        self.steps += 1
        values = (*losses, 1e3 * seconds)
        self._sums = [total + value for total, value in zip(self._sums, values, strict=True)]
        self._recent = [*self._recent[1 - _RECENT :], values]

    def taken(self) -> dict[str, float]:
        """The means, and a new beginning."""
        means = {name: total / self.steps for name, total in zip(self._names, self._sums, strict=True) if self.steps}
        self.steps, self._sums = 0, [0.0] * len(self._names)
        return means

    def told(self) -> str:
        """Of the last twenty steps."""
        if not self._recent:
            return ""
        loss, *parts, ms = (sum(column) / len(column) for column in zip(*self._recent, strict=True))
        named = ", ".join(f"{name} {value:.2f}" for name, value in zip(self._names[1:-1], parts, strict=True))
        return f"loss {loss:.2f}{f' ({named})' if named else ''}, {ms:.0f} ms"
