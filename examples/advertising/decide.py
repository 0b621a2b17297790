"""Which advertisement a lift shows: a pure function of what it showed, who is in it, and the time.

    shown = decide(schema, shown, passengers, at, local)

The screen does not flicker: an advertisement holds for its rule's seconds, and gives way only to a rule that won in
every snapshot over `settle` seconds. Only what is forbidden goes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random

from schema import Description, Rule, Schema

from graftsdk import Attribute

Passenger = dict[str, Attribute]  # label -> smoothed answer


@dataclass(frozen=True)
class Shown:
    """What a lift shows, and who is about to take over. Times in seconds of any clock that only goes forwards."""

    advertisement: str
    rule: str | None  # None: the default
    since: float
    rival: str | None = None  # a rule's name, or None for the default
    rival_since: float | None = None  # None: nobody is about to take over


def decide(
    schema: Schema,
    shown: Shown | None,
    passengers: Sequence[Passenger],
    at: float,
    local: datetime,
    count: int | None = None,
) -> Shown:
    """What is shown from now on.

    Args:
        shown: what this gave last time for this lift; None at first.
        at: when the passengers were seen, in seconds.
        local: the time on the wall there.
        count: how many there are, where it is not the number of those told of: one may be among them twice.
    """
    count = len(passengers) if count is None else count
    forbidden = {never.category for never in schema.never if any(fits(one, never.someone) for one in passengers)}
    allowed = {name for name, each in schema.advertisements.items() if each.category not in forbidden}
    holding = [rule for rule in schema.rules if allowed & {*rule.show} and holds(rule, passengers, count, local)]
    best = holding[0] if holding else None
    if shown is not None:  # of equals, the one that is on the screen
        best = next((r for r in holding if r.name == shown.rule and r.priority == holding[0].priority), best)
    name = best.name if best else None
    choice = [each for each in best.show if each in allowed] if best else [schema.default]
    show = Random(at).choice(choice)  # the same for the same snapshot

    if shown is None or shown.advertisement not in allowed:
        return Shown(show, name, at)
    if shown.advertisement in choice:  # of another rule perhaps, but the screen stays as it is
        return replace(shown, rule=name, rival=None, rival_since=None)
    since = shown.rival_since if shown.rival == name and shown.rival_since is not None else at
    hold = next((rule.hold for rule in schema.rules if rule.name == shown.rule), 0.0)
    if at - since >= schema.timing.settle and at - shown.since >= hold:
        return Shown(show, name, at)
    return replace(shown, rival=name, rival_since=since)


def holds(rule: Rule, passengers: Sequence[Passenger], count: int, local: datetime) -> bool:
    return (
        rule.at_least <= count
        and (rule.at_most is None or count <= rule.at_most)
        and rule.window.holds(local)
        and (rule.someone is None or any(fits(one, rule.someone) for one in passengers))
        and (rule.nobody is None or not any(fits(one, rule.nobody) for one in passengers))
    )


def fits(passenger: Passenger, described: Description) -> bool:
    """Whether all of it is true of the passenger. A label of which nothing is known is not."""
    return all(
        label in passenger and answers(passenger[label], name, described.score) for label, name in described.classes
    )


def answers(attribute: Attribute, name: str, score: float | None) -> bool:
    """By the given score; else by the plan's threshold; else, of three or more classes, the most probable one."""
    if score is not None:
        return attribute.scores[name] >= score
    if len(attribute.classes) == 2 or name in attribute.thresholds:
        return attribute.is_(name)
    return attribute.name == name
