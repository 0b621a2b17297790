"""What is said about one person: an `Attribute`, one question and its answer.

The rules by which scores become decisions stand here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.text import listed, one_line

__all__ = ["DEFAULT_THRESHOLD", "Attribute", "decisions", "reported_labels", "shortest"]

DEFAULT_THRESHOLD = 0.5  # of the last of two classes, where none was set: the more probable class
_YES_NO = {("no", "yes"), ("absent", "present"), ("false", "true"), ("0", "1"), ("negative", "positive")}


@dataclass(frozen=True)
class Attribute:
    """The answer to one question about one person.

    Attributes:
        label: the question. classes: its answers, the positive one last.
        scores: class -> calibrated probability, in the order of `classes`.
        thresholds: class -> probability from which that class holds; only those that were set.

    Raises:
        InputError: fewer than two classes, scores of other classes or not finite, a threshold of another class or
            outside 0..1.
    """

    label: str
    classes: tuple[str, ...]
    scores: Mapping[str, float]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes, scores, thresholds = tuple(self.classes), self.scores, self.thresholds
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise InputError(f"{self.label!r}: expected two or more different classes, found {list(classes)}")
        if len(scores) != len(classes) or any(name not in scores for name in classes):
            raise InputError(f"{self.label!r}: expected a score for each of {list(classes)}, found {list(scores)}")
        for name in thresholds:
            if name not in classes:
                raise _unknown_class(self.label, classes, name)
            if not 0.0 <= thresholds[name] <= 1.0:
                raise InputError(f"{self.label!r}: expected a threshold in 0..1, found {name}: {thresholds[name]}")
        if not all(math.isfinite(scores[name]) for name in classes):
            raise InputError(f"{self.label!r}: expected finite scores, found {dict(scores)}")
        own = object.__setattr__
        own(self, "classes", classes)
        own(self, "scores", MappingProxyType({name: float(scores[name]) for name in classes}))
        own(self, "thresholds", MappingProxyType({n: float(thresholds[n]) for n in classes if n in thresholds}))

    def __hash__(self) -> int:
        return hash((self.label, self.classes, tuple(self.scores.values()), tuple(self.thresholds.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.label, self.classes, dict(self.scores), dict(self.thresholds))

    @property
    def name(self) -> str:
        """The class decided on: of two by the threshold, of more the most probable (the first on ties)."""
        if len(self.classes) == 2:
            return self.classes[1] if self.present else self.classes[0]
        return max(self.classes, key=self.scores.__getitem__)

    @property
    def score(self) -> float:
        """Of two classes the last one's probability, decided on or not; of more, that of `name`."""
        return self.scores[self.classes[1] if len(self.classes) == 2 else self.name]

    @property
    def threshold(self) -> float:
        """The probability from which the last of two classes holds. Raises InputError on more classes."""
        self._only_two("threshold", "read thresholds[class]")
        return self.thresholds.get(self.classes[1], DEFAULT_THRESHOLD)

    @property
    def present(self) -> bool:
        """Whether the last of two classes holds. Raises InputError on more classes."""
        self._only_two("present", 'ask is_("CLASS") or read name')
        return self.score >= self.threshold

    def is_(self, name: str) -> bool:
        """Whether class `name` holds, by its own threshold.

        Of two classes, the first holds where the last does not, unless it has a threshold of its own.

        Raises:
            InputError: no such class, or one of three or more that has no threshold.
        """
        if name not in self.scores:
            raise _unknown_class(self.label, self.classes, name)
        if name in self.thresholds:
            return self.scores[name] >= self.thresholds[name]
        if len(self.classes) == 2:
            return self.present if name == self.classes[1] else not self.present
        raise InputError(
            f"{self.label!r}: expected a class with a threshold ({listed(self.thresholds)}), found {name!r}; "
            f"read name or scores[{name!r}], or set one: thresholds={{{self.label!r}: {{{name!r}: 0.5}}}}"
        )

    def decisions(self) -> tuple[str | bool, ...]:
        """`name`, then every `is_` that can be asked, in the order of the classes. A decision flips when it differs."""
        return (self.name, *(self.is_(name) for name in self._askable()))

    def to_dict(self) -> dict[str, Any]:
        """JSON types: name, score, scores, the thresholds that apply, every `is_`, and `present` of two classes.

        Scores are the shortest decimals that give the same float32.
        """
        two = len(self.classes) == 2
        found: dict[str, Any] = {
            "name": self.name,
            "score": shortest(self.score),
            "scores": {name: shortest(score) for name, score in self.scores.items()},
            "thresholds": {**self.thresholds, **({self.classes[1]: self.threshold} if two else {})},
            "is": {name: self.is_(name) for name in self._askable()},
        }
        if two:
            found["present"] = self.present
        return found

    def finding(self) -> tuple[str, str] | None:
        """What is worth telling: (label, answer).

        ("gender", "male"), ("age", "adult"); a yes is its label alone, ("backpack", ""), and a no is None. Classes of
        three or more that hold by their own threshold beside the most probable one are told too: "adult/senior".
        """
        label = one_line(self.label)
        if len(self.classes) > 2:
            also = [name for name in self.thresholds if name != self.name and self.is_(name)]
            return label, one_line("/".join((self.name, *also)))
        low, high = (name.casefold() for name in self.classes)
        if (low, high) in _YES_NO or high == self.label.casefold():
            return (label, "") if self.present else None
        return label, one_line(self.name)

    def __str__(self) -> str:
        return f"{one_line(self.label)} {one_line(self.name)} {self.scores[self.name]:.2f}"

    def _askable(self) -> tuple[str, ...]:
        return self.classes if len(self.classes) == 2 else tuple(self.thresholds)

    def _only_two(self, what: str, instead: str) -> None:
        if len(self.classes) != 2:
            raise InputError(
                f"{self.label!r}: expected two classes for .{what}, found {listed(self.classes)}; {instead}"
            )


def decisions(
    classes: Sequence[str], scores: Sequence[float] | npt.NDArray[Any], thresholds: Mapping[str, float]
) -> tuple[str | bool, ...]:
    """What `Attribute.decisions` says of one row of scores, [C]: two rows that differ in it are a flip.

    Raises:
        InputError: another number of scores than of classes, or whatever `Attribute` refuses.
    """
    if len(scores) != len(classes):
        raise InputError(f"expected {len(classes)} scores, one for each of {list(classes)}, found {len(scores)}")
    named = {name: float(score) for name, score in zip(classes, scores, strict=True)}
    return Attribute("scores", tuple(classes), named, thresholds).decisions()


def reported_labels(label: str, classes: Sequence[str], thresholds: Mapping[str, float]) -> tuple[str, ...]:
    """The labels that a branch reports: itself with two classes; with more, the classes that have a threshold."""
    if len(classes) == 2:
        return (label,)
    return tuple(name for name in classes if name in thresholds)


def shortest(value: float) -> float:
    """The shortest decimal that gives the same float32: what JSON says of a score."""
    return float(str(np.float32(value)))


def _unknown_class(label: str, classes: tuple[str, ...], name: str) -> InputError:
    return InputError(f"{label!r}: expected one of its classes {listed(classes)}, found {name!r}")
