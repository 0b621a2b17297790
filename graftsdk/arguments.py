"""What callers hand in, checked in one way, where several modules ask for the same."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from graftsdk.errors import InputError

__all__ = ["whole_number"]


def whole_number(what: str, value: Any, low: int, high: int) -> int:
    """The value, where it is an integer from `low` to `high`, NumPy's among them; `what` names it in the message.

    Raises:
        InputError: anything else, bools and whole floats too.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise InputError(f"{what}: expected an integer from {low} to {high}, found {value!r:.80}")
    return int(value)
