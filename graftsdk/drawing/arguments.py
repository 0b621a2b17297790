"""What may be asked of a picture, checked in one way: numbers of pixels, and labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from graftsdk.errors import InputError
from graftsdk.preprocess.image import MAX_SIDE

__all__ = ["MAX_FONT_SIZE", "MAX_SIDE", "label_names", "whole_number"]

MAX_FONT_SIZE = 1000  # pixels; OpenCV 5 takes 40,000 and ends the process at 65,000


def whole_number(what: str, value: Any, most: int) -> int:
    """The value, where it is a whole number from 1 to `most`; `what` names it in the message.

    Raises:
        InputError: anything else, bools and whole floats too.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise InputError(f"{what}: expected a whole number from 1 to {most}, found {value!r:.40}")
    return int(value)


def label_names(labels: Any, known: Collection[str] | None) -> tuple[str, ...] | None:
    """The labels that are to be told; None stands for all of them.

    Args:
        labels: their names, or None. known: those that there are; None where nobody knows.

    Raises:
        InputError: one text in place of a list, or a name that is not known.
    """
    if labels is None:
        return None
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable):
        raise InputError(f"labels: expected a list of names, found {labels!r:.40}; one label is a list of one")
    names = tuple(labels)
    for name in names:
        if known is not None and name not in known:
            raise InputError(f"expected labels of {list(known)}, found {name!r:.60}")
    return names
