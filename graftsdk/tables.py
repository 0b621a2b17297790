"""A prediction as rows: one flat row a person, with the same columns for every prediction of the same labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftsdk.attribute import shortest

if TYPE_CHECKING:
    from graftsdk.prediction import Prediction

__all__ = ["Cell", "columns", "rows"]

Cell = str | int | float | bool | None

# Whose the row is and where the person is; what was asked follows.
FIXED = ("source", "frame", "timestamp", "person", "x0", "y0", "x1", "y1", "score")


def columns(prediction: Prediction) -> tuple[str, ...]:
    """The names of the columns, also where nobody was found: `FIXED`, then `LABEL` and `LABEL.score` of each label."""
    return (*FIXED, *(name for pair in _label_columns(prediction.labels) for name in pair))


def rows(prediction: Prediction) -> list[dict[str, Cell]]:
    """See `Prediction.to_rows`."""
    pairs = tuple(zip(prediction.labels, _label_columns(prediction.labels), strict=True))
    found: list[dict[str, Cell]] = []
    for person in prediction.persons:
        row: dict[str, Cell] = {
            "source": prediction.source,
            "frame": prediction.frame,
            "timestamp": prediction.timestamp,
            "person": person.index,
            **{corner: round(float(value), 2) for corner, value in zip(FIXED[4:8], person.box, strict=True)},
            "score": None if person.score is None else shortest(person.score),
        }
        for label, (name, score) in pairs:
            attribute = person.attributes.get(label)
            row[name] = None if attribute is None else attribute.name
            row[score] = None if attribute is None else shortest(attribute.score)
        found.append(row)
    return found


def _label_columns(labels: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, score) column of each label. One that is taken ("score", "frame") gets an underscore."""
    taken = set(FIXED)
    found = []
    for label in labels:
        name = label
        while name in taken or f"{name}.score" in taken:
            name += "_"
        found.append((name, f"{name}.score"))
        taken.update(found[-1])
    return found
