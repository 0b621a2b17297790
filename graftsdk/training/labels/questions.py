"""`labels.toml`: which labels a fully annotated set is cut into, and what an image of each class is."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.plan.documents import check_names
from graftsdk.text import listed
from graftsdk.training.labels.annotated import NO, YES, AnnotatedSet
from graftsdk.training.labels.declared import load_toml
from graftsdk.training.labels.expressions import evaluate

__all__ = ["Question", "read_questions"]


@dataclass(frozen=True)
class Question:
    """One label.

    Attributes:
        label: its name.
        classes: in the order of the network's outputs.
        expressions: one for each class; None for the `no` of a label that has a positive expression only.
    """

    label: str
    classes: tuple[str, ...]
    expressions: tuple[str | None, ...]

    def targets(self, images: AnnotatedSet) -> npt.NDArray[np.int64]:
        """int64[N]: the class of each image, -1 where it is in none, in two, or where that is not known.

        Raises:
            InputError: an expression that `evaluate` refuses.
        """
        where = f"label {self.label!r}"
        given = [
            None if text is None else evaluate(text, images.attributes, images.values, where)
            for text in self.expressions
        ]
        columns = [YES - given[-1] if column is None else column for column in given]  # type: ignore[operator]
        values = np.stack(columns, axis=1)  # [N, C]
        certain = ((values == YES).sum(axis=1) == 1) & ((values == NO).sum(axis=1) == len(columns) - 1)
        return np.where(certain, values.argmax(axis=1), -1)


def read_questions(path: str | os.PathLike[str]) -> tuple[Question, ...]:
    """The labels of a file, in its order.

    `[labels.NAME]` has `positive`, an expression, and perhaps `negative`, another one (without it, whatever is not
    positive is negative); or `classes`, a table of class -> expression in the order of the network's outputs.

    Raises:
        InputError: no TOML, no labels, other keys, or a name that no folder can have.
    """
    tables = load_toml(path)
    where = os.fspath(path)
    labels = tables.get("labels")
    if not isinstance(labels, dict) or not labels or len(tables) > 1:
        raise InputError(f'{where}: expected tables [labels.NAME] with positive = "...", found {listed(tables)}')
    return tuple(_question(label, table, f"{where}, label {label!r}") for label, table in labels.items())


def _question(label: str, table: object, where: str) -> Question:
    if not isinstance(table, dict) or set(table) not in ({"positive"}, {"positive", "negative"}, {"classes"}):
        found = listed(table) if isinstance(table, dict) else repr(table)[:80]
        raise InputError(f"{where}: expected positive, positive and negative, or classes, found {found}")
    pairs = table.get("classes", {"no": table.get("negative"), "yes": table.get("positive")})
    if not isinstance(pairs, dict):
        raise InputError(f'{where}: expected classes = {{ NAME = "...", ... }}, found {pairs!r:.80}')
    for name, text in pairs.items():
        if not isinstance(text, str) and not (text is None and "negative" not in table):
            raise InputError(f"{where}: expected an expression as a text for {name!r}, found {text!r:.80}")
    for name in (label, *pairs):
        if "/" in name or "\0" in name or name.startswith("."):
            raise InputError(f"{where}: expected a name that a folder can have, found {name!r}")
    try:
        check_names(label, tuple(pairs))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if set(pairs) == {"no", "yes"} and tuple(pairs) != ("no", "yes"):
        raise InputError(f"{where}: expected no before yes, found {listed(pairs)}")
    return Question(label, tuple(pairs), tuple(pairs.values()))
