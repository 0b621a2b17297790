"""What a schema may say, and what is said of one that may not."""

from __future__ import annotations

from datetime import UTC, datetime, time
from pathlib import Path

import pytest
from schema import Advertisement, Classes, Window, read_schema

from graftsdk.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "examples" / "advertising"
TEXT = (EXAMPLE / "schema.toml").read_text("utf-8")


def refusal(tmp_path: Path, classes: Classes, text: str) -> str:
    path = tmp_path / "schema.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as refused:
        read_schema(path, classes)
    return str(refused.value)


def test_the_example(classes: Classes) -> None:
    schema = read_schema(EXAMPLE / "schema.toml", classes)
    assert [rule.priority for rule in schema.rules] == sorted((rule.priority for rule in schema.rules), reverse=True)
    assert [rule.name for rule in schema.rules][:4] == ["children", "cyclists", "deliveries", "parcels"]
    assert {name for each in schema.rules for name in each.show} | {schema.default} == set(
        schema.advertisements
    )  # none for nothing
    assert set(schema.labels) == set(classes)
    assert {rule.name: rule.hold for rule in schema.rules}["parcels"] == 6 and schema.timing.hold == 10


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        (
            '# timezone = "Europe/Berlin"',
            'timezone = "Europe/Ber"',
            "timezone",
            "expected a time zone that this machine knows",
        ),
        ('# timezone = "Europe/Berlin"', "timezone = 1", "timezone", "found 1"),
        ('# timezone = "Europe/Berlin"', 'timezone = "/etc/passwd"', "timezone", "found '/etc/passwd'"),
        ('default = "house"', 'default = "hose"', "default", "expected an advertisement: house, toys"),
        ("hold = 10 ", 'hold = "10"', "[timing] hold", "expected seconds, 0 to 3600; found '10'"),
        ("settle = 2 ", "settle = -2", "[timing] settle", "found -2"),
        ("forget = 20", "forgets = 20", "[timing] forgets", "no other keys than forget, hold, linger, settle"),
        ('show = "toys"', 'show = "toy"', "[[rule]] 1 show", "expected an advertisement"),
        ("priority = 60", "priority = 60.5", "[[rule]] 1 priority", "expected a whole number"),
        ("priority = 50", "priorty = 50", "[[rule]] 2 priorty", "no other keys than"),
        ("priority = 50\n", "", "[[rule]] 2", "expected the key 'priority'"),
        ('{ headwear = "helmet" }', '{ headwaer = "helmet" }', "[[rule]] 2 someone", "expected a label of the plan"),
        ('{ headwear = "helmet" }', '{ headwear = "cap" }', "[[rule]] 2 someone", "none, hat, helmet; found 'cap'"),
        ('{ headwear = "helmet" }', "{}", "[[rule]] 2 someone", "one or more"),
        ('{ headwear = "helmet" }', '{ headwear = ["hat"] }', "[[rule]] 2 someone", "expected a class of 'headwear'"),
        ('from = "07:00"', 'from = "7:00"', "[[rule]] 1 from", "expected a time of day"),
        ('from = "07:00"', "from = 07:00:00", "[[rule]] 1 from", "expected a time of day"),
        ('"mon", ', '"mo", ', "[[rule]] 5 days", "expected a list of mon, tue"),
        ("at_least = 2", "at_least = true", "[[rule]] 8 passengers", "expected a whole number from 0 as at_least"),
        ("at_least = 2", "at_least = 2, at_most = 1", "[[rule]] 8 passengers", "at_least no greater than at_most"),
        ("at_least = 2", "atleast = 2", "[[rule]] 8 passengers atleast", "no other keys than at_least, at_most"),
        ('name = "parcels"', 'name = "deliveries"', "[[rule]] 4 name", "expected a name that no other rule has"),
        ("passengers = { at_least = 1 }", "", "[[rule]] 9 name", "someone, nobody or passengers"),
        ('show = "toys"', 'show = ["toys", "toy"]', "[[rule]] 1 show", "expected an advertisement or a list of some"),
        ('show = "toys"', "show = []", "[[rule]] 1 show", "found []"),
        ('show = "toys"', 'show = [["toys"]]', "[[rule]] 1 show", "found [['toys']]"),
        ("score = 0.3", "score = true", "[[never]] 1 score", "expected a probability"),
        (
            'category = "alcohol"\nsomeone',
            'category = ["alcohol"]\nsomeone',
            "[[never]] 1 category",
            "found ['alcohol']",
        ),
        ("score = 0.3", "score = 30", "[[never]] 1 score", "expected a probability"),
        ('"alcohol"\nsomeone', '"alcohl"\nsomeone', "[[never]] 1 category", "expected a category of an advertisement"),
        ('colour = "#17324d"', 'colour = "navy"', "[advertisements.house] colour", "#rrggbb"),
        ('"toys.svg"', '"../toys.svg"', "[advertisements.toys] picture", "expected a file of cards/"),
        ('brand = "Volta"', 'brand = "Vol\\nta"', "[advertisements.charging] brand", "printable"),
        ("[advertisements.sun]", '[advertisements."sun cream"]', 'advertisements."sun cream"', "found 'sun cream'"),
        (
            "[advertisements.sun]",
            '[advertisements."a+("]',
            'advertisements."a+("',
            "expected letters, digits, - and _ as",
        ),
        ('wine]\nbrand = "Reb', '"wine"]\nbrand = "\\tReb', "[advertisements.wine] brand", "printable"),
        ('category = "house"', 'category = "alcohol"', "default", "a category without [[never]]"),
    ],
)
def test_refused(old: str, new: str, place: str, said: str, tmp_path: Path, classes: Classes) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    told = refusal(tmp_path, classes, text)
    assert f": {place}: expected" in told and said in told
    found = text.splitlines()[int(told.split("line ")[1].split(":")[0]) - 1]
    key = place.split()[2 if place.startswith("[[") and len(place.split()) > 2 else -1]
    assert key in found if not key.isdigit() else found == "[[rule]]"


def test_times_are_of_the_zone_that_is_named(tmp_path: Path, classes: Classes) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(TEXT.replace("# timezone = ", "timezone = "), "utf-8")
    zone = read_schema(path, classes).zone
    assert str(zone) == "Europe/Berlin" and read_schema(EXAMPLE / "schema.toml", classes).zone is None
    morning = datetime(2026, 7, 1, 5, 30, tzinfo=UTC).astimezone(zone)
    assert Window(time(7), time(20)).holds(morning) and not Window(time(5), time(7)).holds(morning)


def test_rules_are_a_list(tmp_path: Path, classes: Classes) -> None:
    text = TEXT[: TEXT.index("[[rule]]")] + "[rule]\n" + TEXT[TEXT.index("[advertisements.house]") :]
    assert "rule: expected [[rule]], with two brackets, for each" in refusal(tmp_path, classes, text)


@pytest.mark.parametrize("text", ["default = ", "\0", "[[rule]]\n[rule]\n"])
def test_no_toml(text: str, tmp_path: Path, classes: Classes) -> None:
    assert "expected TOML, found: " in refusal(tmp_path, classes, text)


def test_no_file(tmp_path: Path, classes: Classes) -> None:
    with pytest.raises(InputError, match="expected a readable file"):
        read_schema(tmp_path / "none.toml", classes)


@pytest.mark.parametrize(
    ("begins", "ends", "days", "local", "expected"),
    [
        ("07:00", "20:00", range(7), "2026-03-02T07:00", True),
        ("07:00", "20:00", range(7), "2026-03-02T20:00", False),
        ("22:00", "02:00", range(7), "2026-03-02T23:00", True),
        ("22:00", "02:00", range(7), "2026-03-02T01:59", True),
        ("22:00", "02:00", range(7), "2026-03-02T02:00", False),
        ("00:00", "00:00", range(7), "2026-03-02T13:00", True),
        ("09:00", "10:00", [0], "2026-03-02T09:30", True),  # a Monday
        ("09:00", "10:00", [0], "2026-03-03T09:30", False),
        ("22:00", "02:00", [0], "2026-03-03T01:00", True),  # of Monday's night
        ("22:00", "02:00", [0], "2026-03-02T01:00", False),
    ],
)
def test_window(begins: str, ends: str, days: list[int], local: str, expected: bool) -> None:
    window = Window(time.fromisoformat(begins), time.fromisoformat(ends), tuple(days))
    assert window.holds(datetime.fromisoformat(local)) is expected


@pytest.mark.parametrize(
    ("colour", "ink"), [("#ffffff", "#10151c"), ("#000000", "#ffffff"), ("#ffc94d", "#10151c"), ("#17324d", "#ffffff")]
)
def test_ink(colour: str, ink: str) -> None:
    assert Advertisement("a", "b", "h", "l", "p", colour, "c").ink == ink
