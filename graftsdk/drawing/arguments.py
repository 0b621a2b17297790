"""What may be asked of a picture: limits of its numbers, and its labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from graftsdk.errors import InputError
from graftsdk.preprocess.image import MAX_SIDE

__all__ = ["MAX_FONT_SIZE", "MAX_SIDE", "label_names"]

MAX_FONT_SIZE = 1000  # pixels; OpenCV 5 takes 40,000 and ends the process at 65,000


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
