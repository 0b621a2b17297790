"""The business rules, read from TOML and checked against the plan. What is not understood is refused, with its line."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from graftsdk.errors import InputError

CARDS = Path(__file__).with_name("cards")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_BYTES = 2**20

Classes = Mapping[str, tuple[str, ...]]  # label -> classes, of the plan


@dataclass(frozen=True)
class Advertisement:
    name: str
    brand: str
    headline: str
    line: str
    picture: str  # a file in cards/
    colour: str  # "#rrggbb", behind all of it
    category: str  # what [[never]] names

    @property
    def ink(self) -> str:
        """Of letters on `colour`: whichever of two contrasts more (WCAG's relative luminance)."""
        parts = (int(self.colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        return "#10151c" if luminance > 0.179 else "#ffffff"


@dataclass(frozen=True)
class Timing:
    """Seconds, see schema.toml."""

    hold: float
    settle: float
    linger: float
    forget: float


@dataclass(frozen=True)
class Description:
    """What has to be true of one passenger: label -> class. With `score`, from that probability on."""

    classes: tuple[tuple[str, str], ...]
    score: float | None = None


@dataclass(frozen=True)
class Window:
    """When a rule may hold. Half-open; over midnight where `until` is earlier; the days are those of its beginning."""

    begins: time = time(0)
    ends: time = time(0)  # of the next day, where it is not later than `begins`
    days: tuple[int, ...] = tuple(range(7))  # Monday is 0

    def holds(self, local: datetime) -> bool:
        now, day = local.time(), local.weekday()
        if self.begins < self.ends:
            return day in self.days and self.begins <= now < self.ends
        return (day in self.days and now >= self.begins) or ((day - 1) % 7 in self.days and now < self.ends)


@dataclass(frozen=True)
class Rule:
    name: str
    show: tuple[str, ...]  # advertisements of equal worth
    priority: int
    hold: float
    someone: Description | None
    nobody: Description | None
    at_least: int
    at_most: int | None
    window: Window


@dataclass(frozen=True)
class Never:
    """Advertisements of the category are not shown while someone is there of whom this is true."""

    category: str
    someone: Description


@dataclass(frozen=True)
class Schema:
    default: str
    timing: Timing
    rules: tuple[Rule, ...]  # the highest priority first, then as in the file
    never: tuple[Never, ...]
    advertisements: Mapping[str, Advertisement]
    zone: ZoneInfo | None = None  # of the rules' times; None: the server's

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that some rule asks about: no other is computed."""
        asked = [rule.someone for rule in self.rules] + [rule.nobody for rule in self.rules]
        asked += [never.someone for never in self.never]
        return tuple(dict.fromkeys(label for each in asked if each for label, _ in each.classes))


def read_schema(path: Path, classes: Classes) -> Schema:
    """Raises InputError: expected, found, and the line."""
    try:
        text = path.read_bytes()[: MAX_BYTES + 1].decode("utf-8")
        if len(text) > MAX_BYTES:
            raise InputError(f"{path.name}: expected at most {MAX_BYTES} bytes, found more")
        found = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, found: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path.name}: expected TOML, found: {error}") from error
    return _Reader(path.name, text, classes).schema(found)


class _Reader:
    """Goes through what TOML found; `_wrong` finds the line again, which TOML's reader does not tell."""

    def __init__(self, name: str, text: str, classes: Classes) -> None:
        self._name, self._lines, self._classes = name, text.splitlines(), classes

    def schema(self, found: dict[str, Any]) -> Schema:
        known = {"default", "timezone", "timing", "rule", "never", "advertisements"}
        self._keys(found, "", known, ("default", "timing"))
        timing = found["timing"]
        self._keys(timing, "[timing]", keys := {"hold", "settle", "linger", "forget"}, sorted(keys))
        seconds = Timing(**{key: self._seconds(timing, key, "[timing]") for key in keys})
        told = found.get("advertisements", {})
        if not isinstance(told, dict):
            self._wrong("", "advertisements", "a table for each, [advertisements.NAME]", told)
        for name in told:
            if not re.fullmatch("[A-Za-z0-9_-]+", name):
                expected = "letters, digits, - and _ as the name of an advertisement"
                self._wrong("", f'advertisements."{name}"', expected, name)
        shown = {name: self._advertisement(name, value) for name, value in told.items()}
        rules = [self._rule(at, each, seconds, shown) for at, each in enumerate(self._list(found, "rule"))]
        categories = {each.category for each in shown.values()}
        never = [self._never(at, each, categories) for at, each in enumerate(self._list(found, "never"))]
        self._shown(found, "default", "", shown)
        for at, rule in enumerate(rules):
            if rule.name in [other.name for other in rules[:at]]:
                self._wrong(f"[[rule]] {at + 1}", "name", "a name that no other rule has", rule.name)
        for each in never:  # the default is what is left when all else is forbidden
            if each.category == shown[found["default"]].category:
                self._wrong("", "default", "an advertisement of a category without [[never]]", found["default"])
        rules.sort(key=lambda rule: -rule.priority)
        return Schema(found["default"], seconds, tuple(rules), tuple(never), shown, self._zone(found))

    def _rule(self, at: int, found: Any, timing: Timing, shown: Mapping[str, Advertisement]) -> Rule:
        place = f"[[rule]] {at + 1}"
        known = {"name", "show", "priority", "hold", "someone", "nobody", "passengers", "from", "until", "days"}
        self._keys(found, place, known, ("name", "show", "priority"))
        self._text(found, "name", place)
        show = found["show"] if isinstance(found["show"], list) else [found["show"]]
        if not show or any(not isinstance(name, str) or name not in shown for name in show):
            self._wrong(place, "show", f"an advertisement or a list of some: {_listed(shown)}", found["show"])
        if type(found["priority"]) is not int:
            self._wrong(place, "priority", "a whole number, the highest wins", found["priority"])
        count = found.get("passengers", {})
        self._keys(count, f"{place} passengers", {"at_least", "at_most"}, ())
        for key, value in count.items():
            if type(value) is not int or value < 0:
                self._wrong(place, "passengers", f"a whole number from 0 as {key}", value)
        if count.get("at_least", 0) > count.get("at_most", math.inf):
            self._wrong(place, "passengers", "at_least no greater than at_most", count)
        people = {key: self._description(found, key, place) for key in ("someone", "nobody")}
        if not (people["someone"] or people["nobody"] or count):
            self._wrong(
                place, "name", "someone, nobody or passengers: a rule for everybody is `default`", found["name"]
            )
        hold = self._seconds(found, "hold", place) if "hold" in found else timing.hold
        return Rule(
            found["name"], tuple(show), found["priority"], hold, people["someone"], people["nobody"],
            count.get("at_least", 0), count.get("at_most"), self._window(found, place),
        )  # fmt: skip

    def _never(self, at: int, found: Any, categories: set[str]) -> Never:
        place = f"[[never]] {at + 1}"
        self._keys(found, place, {"category", "someone", "score"}, ("category", "someone"))
        if not isinstance(found["category"], str) or found["category"] not in categories:
            self._wrong(place, "category", f"a category of an advertisement: {_listed(categories)}", found["category"])
        score = found.get("score")
        if score is not None and not (type(score) in (int, float) and 0 < score <= 1):
            self._wrong(place, "score", "a probability above 0, at most 1", score)
        described = self._description(found, "someone", place)
        assert described is not None  # `_keys` asked for it
        return Never(found["category"], Description(described.classes, score))

    def _advertisement(self, name: str, found: Any) -> Advertisement:
        place = f"[advertisements.{name}]"
        keys = ("brand", "headline", "line", "picture", "colour", "category")
        self._keys(found, place, set(keys), keys)
        for key in keys:
            self._text(found, key, place)
        if not re.fullmatch("#[0-9a-f]{6}", found["colour"]):
            self._wrong(place, "colour", "#rrggbb in small letters", found["colour"])
        pictures = sorted(path.name for path in CARDS.glob("*.svg"))
        if found["picture"] not in pictures:
            self._wrong(place, "picture", f"a file of cards/: {_listed(pictures)}", found["picture"])
        return Advertisement(name, **found)

    def _description(self, table: dict[str, Any], key: str, place: str) -> Description | None:
        if key not in table:
            return None
        found = table[key]
        if not isinstance(found, dict) or not found:
            self._wrong(place, key, "{ label = class }, one or more", found)
        for label, name in found.items():
            if label not in self._classes:
                self._wrong(place, key, f"a label of the plan: {_listed(self._classes)}", label)
            if name not in self._classes[label]:
                self._wrong(place, key, f"a class of {label!r}: {_listed(self._classes[label])}", name)
        return Description(tuple(found.items()))

    def _window(self, found: dict[str, Any], place: str) -> Window:
        times = {}
        for key in ("from", "until"):
            value = found.get(key, "00:00")
            if not isinstance(value, str) or not re.fullmatch("([01][0-9]|2[0-3]):[0-5][0-9]", value):
                self._wrong(place, key, 'a time of day such as "07:30"', value)
            times[key] = time.fromisoformat(value)
        days = found.get("days", list(DAYS))
        if not isinstance(days, list) or not days or any(day not in DAYS for day in days):
            self._wrong(place, "days", f"a list of {_listed(DAYS)}", days)
        return Window(times["from"], times["until"], tuple(map(DAYS.index, days)))

    def _zone(self, found: dict[str, Any]) -> ZoneInfo | None:
        if "timezone" not in found:
            return None
        try:
            return ZoneInfo(found["timezone"])
        except (KeyError, OSError, TypeError, ValueError, AttributeError):  # it refuses in all these ways
            expected = 'a time zone that this machine knows (with `pip install tzdata` all), such as "Europe/Berlin"'
            self._wrong("", "timezone", expected, found["timezone"])

    def _list(self, found: dict[str, Any], key: str) -> list[Any]:
        value = found.get(key, [])
        if not isinstance(value, list):
            self._wrong("", key, f"[[{key}]], with two brackets, for each", value)
        return value

    def _keys(self, found: Any, place: str, known: set[str], needed: Any) -> None:
        if not isinstance(found, dict):
            self._wrong(place, "", "a table", found)
        for key in found:
            if key not in known:
                self._wrong(place, key, f"no other keys than {_listed(sorted(known))}", key)
        for key in needed:
            if key not in found:
                self._wrong(place, "", f"the key {key!r}", "none" if found else "nothing")

    def _text(self, found: dict[str, Any], key: str, place: str) -> None:
        if not isinstance(found[key], str) or not 0 < len(found[key]) <= 80 or not found[key].isprintable():
            self._wrong(place, key, "1 to 80 printable characters", found[key])

    def _seconds(self, found: dict[str, Any], key: str, place: str) -> float:
        value = found[key]
        if type(value) not in (int, float) or not 0 <= value <= 3600:
            self._wrong(place, key, "seconds, 0 to 3600", value)
        return float(value)

    def _shown(self, found: dict[str, Any], key: str, place: str, shown: Mapping[str, Advertisement]) -> None:
        if not isinstance(found[key], str) or found[key] not in shown:
            self._wrong(place, key, f"an advertisement: {_listed(shown)}", found[key])

    def _wrong(self, place: str, key: str, expected: str, found: Any) -> NoReturn:
        at = f" {key}" if key else ""
        raise InputError(
            f"{self._name}, line {self._line(place, key)}: {place}{at}: expected {expected}; found {found!r:.80}"
            .replace(": : ", ": ").replace(":  ", ": ")
        )  # fmt: skip

    def _line(self, place: str, key: str) -> int:
        """Of `key` below the header that `place` names, "[timing]" or "[[rule]] 3"; else of the header itself."""
        start = 0
        if place:
            header, _, rest = place.partition(" ")
            words = rest.split()
            count = int(words[0]) if words else 1
            key = words[1] if len(words) > 1 else key  # of a table in a line
            bare = re.sub(r"^advertisements\.(.*)", r"""advertisements\\s*\\.\\s*["']?\1["']?""", header.strip("[]"))
            same = [at for at, line in enumerate(self._lines) if re.match(rf"\s*\[+\s*{bare}\s*\]+", line)]
            start = same[count - 1] if len(same) >= count else 0
        for at in range(start, len(self._lines) if key else start):
            if at > start and place and re.match(r"\s*\[", self._lines[at]):
                break
            if re.match(rf"""\s*\[*["']?{re.escape(key)}(?!\w)""", self._lines[at]):
                return at + 1
        return start + 1


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) or "none"
