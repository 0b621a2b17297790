"""What is decided about a person, told once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graftsdk.attribute import Attribute, shortest
from graftsdk.tracking.options import Tracking

__all__ = ["Event", "decided"]


@dataclass(frozen=True)
class Event:
    """One answer about one person: told when it is decided, and again only when it changes.

    Attributes:
        track: which person. label: the question. name: the class decided on.
        score: `Attribute.score` of the voted scores: of two classes the last one's, decided on or not.
        frames: in how many frames the label was computed so far, by the plan that decides.
        first_frame: where the person was first seen. frame: where this was decided.
        before: the class that was decided on before; None the first time.
    """

    track: int
    label: str
    name: str
    score: float
    frames: int
    first_frame: int
    frame: int
    before: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "score": shortest(self.score)}


def decided(attribute: Attribute, answers: int, before: str | None, options: Tracking) -> str | None:
    """The class to be told now, or None where there is nothing new.

    Args:
        attribute: the voted answer. answers: how many are behind it.
        before: what was told last, or None.
    """
    name = attribute.name
    if before is None:
        enough = answers >= options.decide_after or attribute.scores[name] >= options.decide_at
        return name if enough else None
    if name == before:
        return None
    if before not in attribute.scores:  # of another plan
        return name
    margin = options.hysteresis
    if len(attribute.classes) == 2:
        threshold = attribute.threshold
        end = 1.0 if attribute.present else 0.0
        far = abs(attribute.score - threshold) >= margin * abs(end - threshold)
    else:
        far = attribute.scores[name] - attribute.scores[before] >= margin
    return name if far else None
