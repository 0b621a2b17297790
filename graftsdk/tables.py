"""A prediction for other libraries: rows, data frames, detections.

One row a person, with the same columns for every prediction of the same labels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.attribute import shortest
from graftsdk.errors import MissingDependency

if TYPE_CHECKING:
    import pandas
    import supervision

    from graftsdk.prediction import Prediction

__all__ = ["Cell", "columns", "rows", "to_pandas", "to_supervision"]

Cell = str | int | float | bool | None

# Whose the row is and where the person is; what was asked follows.
FIXED = ("source", "frame", "timestamp", "person", "x0", "y0", "x1", "y1", "score")
TAKEN = (*FIXED, "class_name")  # what annotators of `supervision` write


def columns(prediction: Prediction) -> tuple[str, ...]:
    """The names of the columns, also where nobody was found: `FIXED`, then `LABEL` and `LABEL.score` of each label.

    Of a stream with tracks, "track" stands behind "person".
    """
    fixed = (*FIXED[:4], "track", *FIXED[4:]) if prediction.tracked else FIXED
    return (*fixed, *(name for pair in _label_columns(prediction) for name in pair))


def rows(prediction: Prediction) -> list[dict[str, Cell]]:
    """See `Prediction.to_rows`."""
    pairs = tuple(zip(prediction.labels, _label_columns(prediction), strict=True))
    found: list[dict[str, Cell]] = []
    for person in prediction.persons:
        row: dict[str, Cell] = {
            "source": prediction.source,
            "frame": prediction.frame,
            "timestamp": prediction.timestamp,
            "person": person.index,
            **({"track": person.track} if prediction.tracked else {}),
            **{corner: round(float(value), 2) for corner, value in zip(FIXED[4:8], person.box, strict=True)},
            "score": None if person.score is None else shortest(person.score),
        }
        for label, (name, score) in pairs:
            attribute = person.attributes.get(label)
            row[name] = None if attribute is None else attribute.name
            row[score] = None if attribute is None else shortest(attribute.score)
        found.append(row)
    return found


def to_pandas(prediction: Prediction, classes: bool) -> pandas.DataFrame:
    """See `Prediction.to_pandas`."""
    library = _package("pandas")
    pairs = _label_columns(prediction)
    kinds: dict[str, Any] = dict.fromkeys(("score", *(score for _, score in pairs)), np.float32)
    kinds |= dict.fromkeys(("timestamp", *FIXED[4:8]), np.float64)
    text = library.StringDtype("python")  # pyarrow's refuses paths that are not UTF-8
    kinds |= {"source": text, "frame": "Int64", "person": np.int64, "track": "Int64"}
    kinds |= {name: text for name, _ in pairs}
    told = rows(prediction)
    cells = {name: library.Series([row[name] for row in told], dtype=kinds[name]) for name in columns(prediction)}
    frame: pandas.DataFrame = library.DataFrame(cells)
    for label, (name, _) in zip(prediction.labels if classes else (), pairs, strict=classes):
        answers = [person.attributes.get(label) for person in prediction]
        known = {each: None for answer in answers if answer is not None for each in answer.classes}
        for each in known if len(known) > 2 else ():
            column = f"{name}.{each}"
            while column in frame.columns:
                column += "_"
            scores = [None if answer is None else answer.scores.get(each) for answer in answers]
            frame[column] = library.Series(scores, dtype=np.float32)
    return frame


def to_supervision(prediction: Prediction, masks: bool) -> supervision.Detections:
    """See `Prediction.to_supervision`."""
    library = _package("supervision")
    count, told = len(prediction), rows(prediction)
    data: dict[str, Any] = {"class_name": np.array(["person"] * count, str)}
    for name, score in _label_columns(prediction):
        data[name] = np.array([row[name] or "" for row in told], str)
        data[score] = np.array([row[score] for row in told], np.float32)  # None becomes NaN
    frames = [person.mask for person in prediction] if masks else [None]
    shown = [frame for frame in frames if frame is not None]
    scores = [person.score for person in prediction]
    found: supervision.Detections = library.Detections(
        xyxy=np.array([person.box for person in prediction], np.float32).reshape(count, 4),
        mask=np.array(shown, bool).reshape(count, *prediction.size) if len(shown) == len(frames) else None,
        confidence=None if None in scores else np.array(scores, np.float32),
        class_id=np.zeros(count, np.int64),
        data=data,
    )
    if prediction.tracked:
        found.tracker_id = np.array([-1 if each.track is None else each.track for each in prediction], np.int64)
    return found


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependency(
            f'expected the package {name}, found {error}; pip install "graftsdk[results]"'
        ) from error


def _label_columns(prediction: Prediction) -> list[tuple[str, str]]:
    """(name, score) column of each label. One that is taken ("score", "frame") gets an underscore."""
    taken = {*TAKEN, *(("track",) if prediction.tracked else ())}
    found = []
    for label in prediction.labels:
        name = label
        while name in taken or f"{name}.score" in taken:
            name += "_"
        found.append((name, f"{name}.score"))
        taken.update(found[-1])
    return found
