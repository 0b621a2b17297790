"""Strict JSON for files that are hostile until checked: manifests and part documents.

Refused: a key twice, NaN and Infinity, nesting deeper than 16, strings that are not NFC or longer than
256 bytes of UTF-8, control characters, numbers out of range, missing and unknown fields.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from graftsdk.errors import PlanCorrupt

__all__ = ["Fields", "check_text", "dump_json", "load_json"]

MAX_DEPTH = 16
MAX_TEXT_BYTES = 256
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, bidi marks, surrogates, line separators

T = TypeVar("T")


def dump_json(value: Any) -> str:
    """The one form in which graftsdk writes JSON into files: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def load_json(text: str | bytes, where: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises:
        PlanCorrupt: not JSON, not an object, a key twice, NaN or Infinity, or nested deeper than 16.
    """
    try:
        if isinstance(text, bytes):  # json.loads would guess UTF-16 and let lone surrogates pass
            text = text.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PlanCorrupt(f"{where}: expected strict JSON, found {error}") from error
    if not isinstance(value, dict):
        raise PlanCorrupt(f"{where}: expected a JSON object, found {type(value).__name__}")
    _check_depth(value, where)
    return value


def check_text(value: str, where: str) -> str:
    """`value`, if it is NFC, 1 to 256 bytes of UTF-8, without hidden characters or outer blanks.

    Raises:
        PlanCorrupt: it is not.
    """
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise PlanCorrupt(f"{where}: expected text that can be written as UTF-8, found {value!r}") from error
    if not 1 <= size <= MAX_TEXT_BYTES:
        raise PlanCorrupt(f"{where}: expected 1 to {MAX_TEXT_BYTES} bytes of text, found {size}")
    if unicodedata.normalize("NFC", value) != value:
        raise PlanCorrupt(f"{where}: expected text in Unicode form NFC, found {value!a}")
    if any(unicodedata.category(character) in _HIDDEN for character in value) or value.strip() != value:
        raise PlanCorrupt(f"{where}: expected text without hidden characters or outer blanks, found {value!a}")
    return value


class Fields:
    """Reads the fields of one JSON object, each once, with its type and range; `done` refuses what is left."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise PlanCorrupt(f"{where}: expected an object, found {type(value).__name__}")
        self._left = dict(value)
        self.where = where

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._left.get(name) is not None

    def null(self, name: str) -> Any:
        """None, read from an optional field that is null."""
        value = self.raw(name)
        if value is not None:
            raise PlanCorrupt(f"{self.where}.{name}: expected null, found {value!r:.80}")
        return value

    def raw(self, name: str) -> Any:
        if name not in self._left:
            raise PlanCorrupt(f"{self.where}: field {name!r} is missing")
        return self._left.pop(name)

    def text(self, name: str, *, empty: bool = False) -> str:
        return _text(self.raw(name), f"{self.where}.{name}", empty=empty)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        value = self.raw(name)
        if not isinstance(value, str) or value not in allowed:
            raise PlanCorrupt(f"{self.where}.{name}: expected one of {', '.join(allowed)}, found {value!r:.80}")
        return value

    def matching(self, name: str, pattern: str) -> str:
        return _matching(self.raw(name), pattern, f"{self.where}.{name}")

    def boolean(self, name: str) -> bool:
        value = self.raw(name)
        if not isinstance(value, bool):
            raise PlanCorrupt(f"{self.where}.{name}: expected true or false, found {value!r:.80}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        return _integer(self.raw(name), low, high, f"{self.where}.{name}")

    def number(self, name: str, low: float, high: float) -> float:
        return _number(self.raw(name), low, high, f"{self.where}.{name}")

    def integers(self, name: str, low: int, high: int, *, count: tuple[int, int]) -> tuple[int, ...]:
        return self.items(name, lambda value, where: _integer(value, low, high, where), count=count)

    def numbers(self, name: str, low: float, high: float, *, count: tuple[int, int]) -> tuple[float, ...]:
        return self.items(name, lambda value, where: _number(value, low, high, where), count=count)

    def texts(self, name: str, *, count: tuple[int, int]) -> tuple[str, ...]:
        return self.items(name, _text, count=count)

    def matchings(self, name: str, pattern: str, *, count: tuple[int, int]) -> tuple[str, ...]:
        return self.items(name, lambda value, where: _matching(value, pattern, where), count=count)

    def items(self, name: str, read: Callable[[Any, str], T], *, count: tuple[int, int]) -> tuple[T, ...]:
        """A list of `count[0]` to `count[1]` items, each read by `read(value, where)`."""
        value, where = self.raw(name), f"{self.where}.{name}"
        if not isinstance(value, list) or not count[0] <= len(value) <= count[1]:
            found = f"{len(value)} items" if isinstance(value, list) else type(value).__name__
            raise PlanCorrupt(f"{where}: expected a list of {count[0]} to {count[1]} items, found {found}")
        return tuple(read(item, f"{where}[{index}]") for index, item in enumerate(value))

    def mapping(self, name: str, read: Callable[[Any, str], T], *, count: tuple[int, int]) -> dict[str, T]:
        """An object with `count[0]` to `count[1]` free keys, each value read by `read(value, where)`."""
        value, where = self.raw(name), f"{self.where}.{name}"
        if not isinstance(value, dict) or not count[0] <= len(value) <= count[1]:
            found = f"{len(value)} keys" if isinstance(value, dict) else type(value).__name__
            raise PlanCorrupt(f"{where}: expected an object of {count[0]} to {count[1]} keys, found {found}")
        return {_text(key, where): read(item, f"{where}.{key}") for key, item in value.items()}

    def fractions(self, name: str, *, count: tuple[int, int] = (0, 256)) -> dict[str, float]:
        """An object of free keys whose values are numbers in [0, 1]."""
        return self.mapping(name, lambda value, where: _number(value, 0.0, 1.0, where), count=count)

    def done(self) -> None:
        """Refuse fields that nobody asked for."""
        if self._left:
            unknown = ", ".join(repr(name)[:60] for name in sorted(self._left))
            raise PlanCorrupt(f"{self.where}: unknown field {unknown}")


def _text(value: Any, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise PlanCorrupt(f"{where}: expected text, found {value!r:.80}")
    return value if empty and value == "" else check_text(value, where)


def _matching(value: Any, pattern: str, where: str) -> str:
    if not isinstance(value, str) or re.fullmatch(pattern, value, re.ASCII) is None:
        raise PlanCorrupt(f"{where}: expected text of the form {pattern}, found {value!r:.80}")
    return value


def _integer(value: Any, low: int, high: int, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise PlanCorrupt(f"{where}: expected an integer from {low} to {high}, found {value!r:.80}")
    return value


def _number(value: Any, low: float, high: float, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PlanCorrupt(f"{where}: expected a number, found {value!r:.80}")
    if isinstance(value, int) and abs(value) > 2**63:
        raise PlanCorrupt(f"{where}: expected a number from {low} to {high}, found one far larger")
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high:
        raise PlanCorrupt(f"{where}: expected a number from {low} to {high}, found {value!r:.80}")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.80} twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"the number {name}")


def _check_depth(value: Any, where: str) -> None:
    level, current = 0, [value]
    while current:
        level += 1
        if level > MAX_DEPTH:
            raise PlanCorrupt(f"{where}: expected at most {MAX_DEPTH} levels of nesting")
        current = [child for item in current for child in _children(item)]


def _children(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [item for item in value.values() if isinstance(item, (dict, list))]
    return [item for item in value if isinstance(item, (dict, list))]
