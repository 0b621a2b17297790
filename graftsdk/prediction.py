"""What comes out: a `Prediction` of one image, its persons, and what is said about each of them.

The rules by which scores become decisions stand here and nowhere else (`Attribute`).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError, ShapeError

__all__ = ["DEFAULT_THRESHOLD", "Attribute", "Person", "Prediction", "decisions", "reported_labels"]

DEFAULT_THRESHOLD = 0.5  # of the last of two classes, where none was set: the more probable class
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_SUMMARY_PERSONS = 8  # more of them and a summary is no longer read
_YES_NO = {("no", "yes"), ("absent", "present"), ("false", "true"), ("0", "1"), ("negative", "positive")}

Array = npt.NDArray[Any]


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
            f"{self.label!r}: expected a class with a threshold ({_listed(self.thresholds)}), found {name!r}; "
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
            "score": _shortest(self.score),
            "scores": {name: _shortest(score) for name, score in self.scores.items()},
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
        label = printable(self.label)
        if len(self.classes) > 2:
            also = [name for name in self.thresholds if name != self.name and self.is_(name)]
            return label, printable("/".join((self.name, *also)))
        low, high = (name.casefold() for name in self.classes)
        if (low, high) in _YES_NO or high == self.label.casefold():
            return (label, "") if self.present else None
        return label, printable(self.name)

    def __str__(self) -> str:
        return f"{printable(self.label)} {printable(self.name)} {self.scores[self.name]:.2f}"

    def _askable(self) -> tuple[str, ...]:
        return self.classes if len(self.classes) == 2 else tuple(self.thresholds)

    def _only_two(self, what: str, instead: str) -> None:
        if len(self.classes) != 2:
            raise InputError(
                f"{self.label!r}: expected two classes for .{what}, found {_listed(self.classes)}; {instead}"
            )


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Person:
    """One person of an image.

    Attributes:
        index: its place in `Prediction.persons`.
        score: the segmenter's, or None where none ran.
        attributes: label -> Attribute, in the order of the plan or of the call.
    """

    index: int
    score: float | None
    attributes: Mapping[str, Attribute]
    _box: Array
    _mask: Array | Callable[[], Array] | None

    def __init__(
        self,
        index: int,
        box: npt.ArrayLike,
        score: float | None,
        attributes: Mapping[str, Attribute],
        mask: Array | Callable[[], Array] | None = None,
    ) -> None:
        """A person.

        Args:
            index: its place among the image's persons.
            box: float32[4], xyxy in pixels of the original image, half-open. Copied.
            score: the segmenter's, 0..1.
            attributes: label -> Attribute.
            mask: [H, W] over the whole image, not copied, or a function that makes it when it is asked for
                (`functools.partial(masks.mask_at, i, height, width)` also pickles).

        Raises:
            ShapeError: a box of another shape. InputError: a box that is not finite.
        """
        corners = np.array(box, dtype=np.float32)
        if corners.shape != (4,):
            raise ShapeError(f"person {index}: expected a box of shape (4,), found {corners.shape}")
        if not np.isfinite(corners).all():
            raise InputError(f"person {index}: expected a finite box, found {corners.tolist()}")
        own = object.__setattr__
        own(self, "index", int(index))
        own(self, "score", None if score is None else float(score))
        own(self, "attributes", MappingProxyType(dict(attributes)))
        own(self, "_box", corners)
        own(self, "_mask", mask)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self._box, self.score, dict(self.attributes), self._mask)

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """float32[4], xyxy in pixels of the original image, half-open; a copy."""
        return self._box.copy()

    @property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """bool[H, W] over the whole image, made anew each time it is asked for; None where there is none."""
        if self._mask is None:
            return None
        mask = np.asarray(self._mask() if callable(self._mask) else self._mask)
        if mask.ndim != 2:
            raise ShapeError(f"person {self.index}: expected a mask [H, W], found shape {mask.shape}")
        return mask.copy() if mask.dtype == np.bool_ else mask > 0.5

    def __getitem__(self, label: str) -> Attribute:
        """The attribute. Raises InputError where there is none of that label."""
        try:
            return self.attributes[label]
        except KeyError:
            found = _listed(self.attributes)
            raise InputError(f"person {self.index}: expected one of the labels {found}, found {label!r}") from None

    def __contains__(self, label: object) -> bool:
        return label in self.attributes

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.attributes.values())

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """JSON types. `masks`: with the mask, run-length coded as COCO does (column-major, zeros first)."""
        found: dict[str, Any] = {
            "index": self.index,
            "box": [round(float(value), 2) for value in self._box],
            "score": None if self.score is None else _shortest(self.score),
            "attributes": {label: attribute.to_dict() for label, attribute in self.attributes.items()},
        }
        if masks:
            mask = self.mask
            found["mask"] = None if mask is None else _run_lengths(mask)
        return found

    def __repr__(self) -> str:
        told = [(found, attribute) for attribute in self if (found := attribute.finding()) is not None]
        texts = (f"{' '.join(filter(None, found))} {attribute.scores[attribute.name]:.2f}" for found, attribute in told)
        return f"{self.index}: {', '.join(texts) or 'nothing to tell'}"


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The persons of one image and what is said about them. Iterates, indexes and counts as its persons.

    Attributes:
        persons: in the order in which they were given or found, the surest first.
        image: uint8[H, W, 3], BGR: the original, not a copy.
        source: the image's path, or None.
        timings: stage -> milliseconds.
        truncated: there were more persons than the limit, and the least sure were left out.
        plan: hex digest of the plan that answered.
        labels: those that were asked for, also where nobody was found.

    Raises:
        ShapeError: an image of another shape.
    """

    persons: tuple[Person, ...]
    image: npt.NDArray[np.uint8]
    source: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False
    plan: str = ""
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ShapeError(f"expected an image of shape (H, W, 3), found {self.image.shape}")
        own = object.__setattr__
        own(self, "persons", tuple(self.persons))
        own(self, "timings", MappingProxyType(dict(self.timings)))
        own(self, "labels", tuple(self.labels) or tuple(dict.fromkeys(k for p in self.persons for k in p.attributes)))

    def __reduce__(self) -> tuple[Any, ...]:
        timings = dict(self.timings)
        return type(self), (self.persons, self.image, self.source, timings, self.truncated, self.plan, self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    def __len__(self) -> int:
        return len(self.persons)

    def __iter__(self) -> Iterator[Person]:
        return iter(self.persons)

    @overload
    def __getitem__(self, index: int) -> Person: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Person, ...]: ...
    def __getitem__(self, index: int | slice) -> Person | tuple[Person, ...]:
        return self.persons[index]

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """JSON types only. `masks`: with each person's mask, run-length coded as COCO does."""
        return {
            "source": self.source,
            "size": list(self.size),
            "plan": self.plan,
            "labels": list(self.labels),
            "truncated": self.truncated,
            "timings": {stage: round(float(ms), 3) for stage, ms in self.timings.items()},
            "persons": [person.to_dict(masks) for person in self.persons],
        }

    def to_json(self, indent: int | None = None, masks: bool = False) -> str:
        """`to_dict` as JSON text that any UTF-8 file takes; letters of all scripts stand as they are."""
        text = json.dumps(self.to_dict(masks), indent=indent, ensure_ascii=False, allow_nan=False)
        # A path that is not UTF-8 reaches Python as lone surrogates: JSON can escape them, UTF-8 cannot hold them.
        return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)

    def plot(
        self,
        *,
        labels: Sequence[str] | None = None,
        masks: bool = True,
        boxes: bool = True,
        tags: bool = True,
        font_size: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        """A copy of the image with its persons drawn on it, uint8[H, W, 3], BGR.

        Args:
            labels: tell these only; None tells all. An absent yes/no label is not told.
            masks: draw them, translucent and with an outline.
            boxes: draw them.
            tags: write number, score and what is decided. Tags that find no free place become shorter.
            font_size: in pixels; None fits it to the image and the number of persons.

        Raises:
            InputError: a label that the prediction has not, or a font size below 1.
        """
        from graftsdk.drawing import draw

        return draw(self, labels=labels, masks=masks, boxes=boxes, tags=tags, font_size=font_size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `plot()` to a picture file, whole or not at all; the suffix says which kind.

        Raises:
            InputError: a suffix other than .jpg, .jpeg, .png, .webp, .bmp, or an image that the kind cannot hold.
            PlanPathError: a path that must not be written.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix not in PICTURES:
            raise InputError(f"{target}: expected a suffix of {', '.join(PICTURES)}, found {suffix!r}")
        from graftsdk.drawing import encode
        from graftsdk.files import atomic_write

        content = encode(self.plot(), suffix)
        with atomic_write(target) as file:
            file.write(content)

    def __repr__(self) -> str:
        height, width = self.size
        count = len(self.persons)
        name = printable(Path(self.source).name if self.source else "image")
        text = f"{name} {height}x{width}: {count} {'person' if count == 1 else 'persons'}"
        told = [repr(person) for person in self.persons[:_SUMMARY_PERSONS]]
        if count > _SUMMARY_PERSONS:
            told.append(f"and {count - _SUMMARY_PERSONS} more")
        return "; ".join((text, *told))


def decisions(
    classes: Sequence[str], scores: Sequence[float] | Array, thresholds: Mapping[str, float]
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


def printable(text: str) -> str:
    """`text` with everything that has no place in a line (breaks, bidi marks, lone surrogates) replaced."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _unknown_class(label: str, classes: tuple[str, ...], name: str) -> InputError:
    return InputError(f"{label!r}: expected one of its classes {_listed(classes)}, found {name!r}")


def _shortest(value: float) -> float:
    return float(str(np.float32(value)))


def _run_lengths(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed RLE: lengths of runs down the columns, of zeros and ones in turn, zeros first."""
    flat = np.concatenate(([False], mask.ravel(order="F")))  # a leading zero: a first run of zeros may be empty
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate(([0], turns, [mask.size])))
    return {"size": [int(side) for side in mask.shape], "counts": [int(count) for count in counts]}
