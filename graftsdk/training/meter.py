"""Losses and times of steps, as they are shown and written into the curve."""

from __future__ import annotations

__all__ = ["Meter"]


class Meter:
    """Means over the steps since the last row of the curve."""

    def __init__(self) -> None:
        self.steps = 0
        self._sums = [0.0] * 6
        self._recent: list[tuple[float, ...]] = []

    def add(self, losses: tuple[float, ...], seconds: float) -> None:
        self.steps += 1
        values = (*losses, 1e3 * seconds)
        self._sums = [total + value for total, value in zip(self._sums, values, strict=True)]
        self._recent = [*self._recent[-19:], values]

    def taken(self) -> dict[str, float]:
        """The means, and a new beginning."""
        names = ("loss", "box", "confidence", "mask", "semantic", "ms_a_step")
        means = {name: total / self.steps for name, total in zip(names, self._sums, strict=True)} if self.steps else {}
        self.steps, self._sums = 0, [0.0] * 6
        return means

    def told(self) -> str:
        """Of the last twenty steps."""
        if not self._recent:
            return ""
        loss, box, conf, mask, semantic, ms = (sum(column) / len(column) for column in zip(*self._recent, strict=True))
        return f"loss {loss:.2f} (box {box:.2f}, class {conf:.2f}, mask {mask:.2f}, sem {semantic:.2f}), {ms:.0f} ms"
