"""What a lift shows, snapshot after snapshot."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from decide import Shown, decide
from schema import Classes, Schema, read_schema

from graftsdk import Attribute

EXAMPLE = Path(__file__).parents[2] / "examples" / "advertising"
NOON = datetime(2026, 3, 2, 12)  # a Monday
EVENING = datetime(2026, 3, 2, 21)


@pytest.fixture(scope="module")
def schema(classes: Classes) -> Schema:
    return read_schema(EXAMPLE / "schema.toml", classes)


def person(**scores: float) -> dict[str, Attribute]:
    """Label -> probability of "yes"; hat and helmet of headwear."""
    found = {}
    for key in ("suit", "food_deliverer", "courier", "child"):
        label, score = key.replace("_", " "), scores.get(key, 0.0)
        found[label] = Attribute(label, ("no", "yes"), {"no": 1 - score, "yes": score}, {"yes": 0.6})
    hat, helmet = scores.get("hat", 0.0), scores.get("helmet", 0.0)
    values = {"none": 1 - hat - helmet, "hat": hat, "helmet": helmet}
    found["headwear"] = Attribute("headwear", tuple(values), values, {"helmet": 0.5})
    return found


CHILD, SUIT, PLAIN = person(child=0.9), person(suit=0.9), person()
KINDS = {"c": [CHILD], "s": [SUIT], "p": [PLAIN], "-": [], "b": [CHILD, SUIT], "2": [PLAIN, PLAIN]}
LETTERS = {"toys": "T", "cleaning": "C", "pizza": "P", "house": ".", "wine": "W", "sun": "S"}


def told(schema: Schema, seen: str, every: float = 2.0, local: datetime = NOON) -> str:
    """What is shown after each snapshot; of each, a letter of `KINDS`."""
    shown, answer = None, ""
    for at, kind in enumerate(seen):
        shown = decide(schema, shown, KINDS[kind], 100 + every * at, local)
        answer += LETTERS[shown.advertisement]
    return answer


# hold 10 s, settle 2 s, a snapshot every 2 s: five snapshots hold, two settle
@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("---", "..."),
        ("ccc", "TTT"),  # nothing was shown before: no need to wait
        ("-ccc", "..TT"),  # the default gives way when a rule has won for `settle`
        ("-c-c-c-c", "........"),  # flicker: nobody wins for so long
        ("-cc-------", "..TTTTT..."),  # holds its ten seconds, then the empty lift has won long since
        ("-cccccs-s-s-sss", "..TTTTTTTTTTTCC"),  # it holds, and what flickers does not win
        ("-ccccccccss", "..TTTTTTTTC"),  # it was long enough there: two snapshots are enough
        ("-sccccccc", "...TTTTTT"),  # a better rule comes while the other one settles
        ("-ssccccccc", "..CCCCCTTT"),  # a higher priority waits for the hold too
        ("-bbb", "..TT"),  # of several, the highest priority
        ("-pppccppppppp", "..PPPPPPPPPPP"),  # it wins for a while, but not when the hold ends
        ("-pcpcpcpcpcp", "............"),  # two rules in turn: neither has won for long enough
    ],
)
def test_told(schema: Schema, seen: str, expected: str) -> None:
    assert told(schema, seen) == expected


def test_seldom_snapshots_need_two_of_them_too(schema: Schema) -> None:
    assert told(schema, "-c-c-cc", every=30.0) == "......T"


@pytest.mark.parametrize(
    ("local", "seen", "expected"),
    [
        (NOON, "222", "PPP"),
        (EVENING, "222", "WWW"),  # wine for two or more
        (EVENING, "ppp", "PPP"),
        (EVENING, "ccc", "PPP"),  # toys are until eight
        (datetime(2026, 3, 2, 23, 30), "222", "PPP"),
    ],
)
def test_time_of_day_and_number_of_passengers(schema: Schema, local: datetime, seen: str, expected: str) -> None:
    assert told(schema, seen, local=local) == expected


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (person(child=0.29), "wine"),
        (person(child=0.3), "pizza"),  # as good as no child for the plan, but not here
        (person(courier=0.3), "pizza"),
        (person(food_deliverer=0.5), "wine"),  # by the plan's threshold, 0.6
        (person(food_deliverer=0.6), "charging"),
    ],
)
def test_never(schema: Schema, who: dict[str, Attribute], expected: str) -> None:
    assert decide(schema, None, [who, PLAIN], 0.0, EVENING).advertisement == expected


def test_what_is_forbidden_goes_at_once(schema: Schema) -> None:
    shown = decide(schema, None, [PLAIN, PLAIN], 100.0, EVENING)
    assert shown.advertisement == "wine"
    assert decide(schema, shown, [PLAIN, PLAIN, person(child=0.4)], 100.5, EVENING) == Shown("pizza", "hungry", 100.5)


def test_one_passenger_has_to_be_all_of_it(schema: Schema) -> None:
    (hats,) = (rule for rule in schema.rules if rule.name == "hats")
    assert hats.someone is not None
    both = replace(hats, someone=replace(hats.someone, classes=(("headwear", "hat"), ("suit", "yes"))))
    only = replace(schema, rules=(both,))
    hat = person(hat=0.9)
    assert decide(only, None, [hat, SUIT], 0.0, NOON).advertisement == "house"
    assert decide(only, None, [person(hat=0.9, suit=0.9)], 0.0, NOON).advertisement == "sun"
    assert decide(only, None, [person(hat=0.9, suit=0.9), CHILD], 0.0, NOON).advertisement == "house"  # nobody


def test_three_classes_go_by_their_threshold_or_the_most_probable(schema: Schema) -> None:
    assert decide(schema, None, [person(helmet=0.45, hat=0.1)], 0.0, NOON).advertisement == "pizza"  # threshold 0.5
    assert decide(schema, None, [person(hat=0.45, helmet=0.2)], 0.0, NOON).advertisement == "sun"  # has none


def test_of_equal_priorities_the_one_on_the_screen_stays(schema: Schema) -> None:
    rider, courier = person(food_deliverer=0.9), person(courier=0.9)
    shown = decide(schema, None, [courier], 0.0, NOON)
    assert shown.rule == "parcels"
    for at in range(1, 20):
        shown = decide(schema, shown, [rider, courier], 2.0 * at, NOON)
    assert shown == Shown("parcels", "parcels", 0.0)


def test_one_of_several_is_drawn_and_stays(schema: Schema) -> None:
    rules = tuple(replace(rule, show=("toys", "wine", "sun")) for rule in schema.rules if rule.name == "children")
    several = replace(schema, rules=rules)
    drawn = {decide(several, None, [CHILD], 0.37 * at, NOON).advertisement for at in range(200)}
    assert drawn == {"toys", "sun"}  # [[never]] says of a child: no alcohol
    for first in ("toys", "sun"):
        shown = Shown(first, "children", 0.0)
        for at in range(1, 40):
            shown = decide(several, shown, [CHILD], 2.0 * at, NOON)
        assert shown == Shown(first, "children", 0.0)
    shown = decide(several, Shown("wine", "friends", 0.0), [CHILD], 0.1, NOON)
    assert shown.advertisement in ("toys", "sun") and shown.since == 0.1


def test_a_count_may_be_less_than_those_told_of(schema: Schema) -> None:
    assert decide(schema, None, [PLAIN, PLAIN], 0.0, EVENING, count=1).advertisement == "pizza"
    assert decide(schema, None, [PLAIN, PLAIN], 0.0, EVENING, count=2).advertisement == "wine"


def test_a_rule_has_a_hold_of_its_own(schema: Schema) -> None:
    shown = decide(schema, None, [person(courier=0.9)], 0.0, NOON)
    times = []
    for at in (2.0, 4.0, 6.0):
        shown = decide(schema, shown, [CHILD], at, NOON)
        times.append(shown.advertisement)
    assert times == ["parcels", "parcels", "toys"]  # 6 seconds instead of 10


def test_unknown_labels_are_not_true(schema: Schema) -> None:
    assert decide(schema, None, [{}], 0.0, NOON).advertisement == "pizza"
