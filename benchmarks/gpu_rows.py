"""What the GPU benchmark says: rows with a target and what was reached, or why it could not be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = ("what", "reached", "target", "")


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        what: is measured. reached: the figure; None where it could not be had, and `why` says why.
        bound, target: "at least" or "at most", and the number; "" where there is no target. unit: of the figure.
        why: also what else is to be said. figure: whether a figure was to be had at all.
    """

    what: str
    reached: float | None
    bound: str = ""
    target: float = 0.0
    unit: str = ""
    why: str = ""
    figure: bool = True

    def cells(self) -> tuple[str, str, str, str]:
        """As text: what, reached, target, verdict and remarks."""
        unit = f" {self.unit}" if self.unit else ""
        reached = ("not had" if self.figure else "") if self.reached is None else f"{self.reached:.4g}{unit}"
        target = f"{self.bound} {self.target:g}{unit}" if self.bound else ""
        verdict = ""
        if self.reached is not None and self.bound:
            met = self.reached >= self.target if self.bound == "at least" else self.reached <= self.target
            verdict = "met" if met else "MISSED"
        return self.what, reached, target, "; ".join(filter(None, (verdict, self.why)))


def as_text(rows: Sequence[Row]) -> str:
    """Lines for a terminal."""
    cells = [COLUMNS, *(row.cells() for row in rows)]
    wide = [max(len(row[index]) for row in cells) for index in range(3)]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, wide, strict=False)]
        lines.append("  ".join([*padded, row[3]]).rstrip())
    return "\n".join(lines)
