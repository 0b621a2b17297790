"""What scores and thresholds mean: design's rules as tables."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import pytest

from graftsdk.errors import InputError
from graftsdk.prediction import Attribute, decisions, reported_labels

AGES = ("child", "adult", "senior")


def two(yes: float, thresholds: dict[str, float] | None = None) -> Attribute:
    return Attribute("backpack", ("no", "yes"), {"no": 1 - yes, "yes": yes}, thresholds or {})


def age(scores: tuple[float, ...], thresholds: dict[str, float] | None = None) -> Attribute:
    return Attribute("age", AGES, dict(zip(AGES, scores, strict=True)), thresholds or {})


@pytest.mark.parametrize(
    ("yes", "thresholds", "name", "present", "is_no", "is_yes"),
    [
        (0.5, {}, "yes", True, False, True),  # at the default threshold: present
        (0.4999, {}, "no", False, True, False),
        (0.69, {"yes": 0.7}, "no", False, True, False),
        (0.7, {"yes": 0.7}, "yes", True, False, True),
        (0.2, {"yes": 0.2}, "yes", True, False, True),  # less probable than no, and still decided on
        (0.0, {"yes": 0.0}, "yes", True, False, True),
        (1.0, {"yes": 1.0}, "yes", True, False, True),
        (0.6, {"no": 0.3}, "yes", True, True, True),  # the first class by its own threshold: both hold
        (0.45, {"no": 0.6}, "no", False, False, False),  # neither holds; the name is still the one decided on
        (0.4, {"no": 0.6, "yes": 0.3}, "yes", True, True, True),
    ],
)
def test_two_classes(yes, thresholds, name, present, is_no, is_yes):
    attribute = two(yes, thresholds)
    assert attribute.score == yes
    assert attribute.threshold == thresholds.get("yes", 0.5)
    assert attribute.present is present
    assert attribute.name == name
    assert (attribute.is_("no"), attribute.is_("yes")) == (is_no, is_yes)
    assert attribute.decisions() == (name, is_no, is_yes)


@pytest.mark.parametrize(
    ("scores", "thresholds", "name", "score", "decided"),
    [
        ((0.2, 0.5, 0.3), {}, "adult", 0.5, ("adult",)),
        ((0.4, 0.4, 0.2), {}, "child", 0.4, ("child",)),  # a tie: the first
        ((0.2, 0.4, 0.4), {}, "adult", 0.4, ("adult",)),
        ((0.3, 0.6, 0.1), {"child": 0.3}, "adult", 0.6, ("adult", True)),
        ((0.29, 0.6, 0.11), {"child": 0.3}, "adult", 0.6, ("adult", False)),
        ((0.2, 0.5, 0.3), {"adult": 0.9}, "adult", 0.5, ("adult", False)),  # the name takes no threshold
        ((0.2, 0.5, 0.3), {"senior": 0.3, "child": 0.3}, "adult", 0.5, ("adult", False, True)),  # order of the classes
    ],
)
def test_more_classes(scores, thresholds, name, score, decided):
    attribute = age(scores, thresholds)
    assert (attribute.name, attribute.score) == (name, score)
    assert attribute.decisions() == decided
    assert [attribute.is_(each) for each in AGES if each in thresholds] == list(decided[1:])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: age((0.2, 0.5, 0.3)).present, r"'age': expected two classes for \.present.*'senior'; ask is_"),
        (lambda: age((0.2, 0.5, 0.3)).threshold, r"'age': expected two classes for \.threshold.*thresholds\[class\]"),
        (lambda: age((0.2, 0.5, 0.3)).is_("adult"), r"\(none\), found 'adult'.*thresholds=\{'age': \{'adult': 0.5\}\}"),
        (lambda: age((0.2, 0.5, 0.3), {"child": 0.4}).is_("adult"), r"a threshold \('child'\), found 'adult'"),
        (lambda: age((0.2, 0.5, 0.3)).is_("baby"), r"one of its classes 'child', 'adult', 'senior', found 'baby'"),
        (lambda: two(0.5).is_("maybe"), r"one of its classes 'no', 'yes', found 'maybe'"),
        (lambda: two(0.5, {"maybe": 0.5}), r"one of its classes 'no', 'yes', found 'maybe'"),
        (lambda: two(0.5, {"yes": 1.01}), r"threshold in 0\.\.1, found yes: 1.01"),
        (lambda: two(0.5, {"yes": math.nan}), r"threshold in 0\.\.1, found yes: nan"),
        (lambda: two(math.nan), r"expected finite scores"),
        (lambda: Attribute("x", ("a",), {"a": 1.0}), r"two or more different classes, found \['a'\]"),
        (lambda: Attribute("x", ("a", "a"), {"a": 1.0}), r"two or more different classes"),
        (lambda: Attribute("x", ("a", "b"), {"a": 1.0}), r"a score for each of \['a', 'b'\], found \['a'\]"),
        (lambda: Attribute("x", ("a", "b"), {"a": 1.0, "c": 0.0}), r"found \['a', 'c'\]"),
        (lambda: decisions(("a", "b"), [0.1, 0.2, 0.7], {}), r"expected 2 scores.*found 3"),
    ],
)
def test_refusals_say_what_to_do(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


@pytest.mark.parametrize(
    ("classes", "before", "after", "thresholds", "flips"),
    [
        (("no", "yes"), (0.6, 0.4), (0.501, 0.499), {}, False),
        (("no", "yes"), (0.501, 0.499), (0.499, 0.501), {}, True),
        (("no", "yes"), (0.501, 0.499), (0.499, 0.501), {"yes": 0.7}, False),
        (("no", "yes"), (0.301, 0.699), (0.3, 0.7), {"yes": 0.7}, True),
        (("no", "yes"), (0.59, 0.41), (0.6, 0.4), {"no": 0.6}, True),  # is_("no") alone
        (AGES, (0.4, 0.35, 0.25), (0.35, 0.4, 0.25), {}, True),
        (AGES, (0.4, 0.35, 0.25), (0.4, 0.3, 0.3), {}, False),
        (AGES, (0.4, 0.35, 0.25), (0.4, 0.3, 0.3), {"senior": 0.28}, True),  # an is_ alone
    ],
)
def test_a_flip_is_a_difference_of_decisions(classes, before, after, thresholds, flips):
    assert (decisions(classes, before, thresholds) != decisions(classes, after, thresholds)) is flips


@pytest.mark.parametrize(
    ("classes", "thresholds", "labels"),
    [
        (("no", "yes"), {}, ("q",)),
        (("no", "yes"), {"no": 0.2, "yes": 0.7}, ("q",)),
        (AGES, {}, ()),
        (AGES, {"senior": 0.5, "child": 0.4}, ("child", "senior")),
    ],
)
def test_reported_labels(classes, thresholds, labels):
    assert reported_labels("q", classes, thresholds) == labels


@pytest.mark.parametrize(
    ("attribute", "finding"),
    [
        (two(0.9), ("backpack", "")),
        (two(0.1), None),
        (Attribute("gender", ("female", "male"), {"female": 0.7, "male": 0.3}), ("gender", "female")),
        (Attribute("gender", ("female", "male"), {"female": 0.3, "male": 0.7}), ("gender", "male")),
        (Attribute("Child", ("other", "child"), {"other": 0.3, "child": 0.7}), ("Child", "")),
        (Attribute("Child", ("other", "child"), {"other": 0.7, "child": 0.3}), None),
        (age((0.2, 0.5, 0.3)), ("age", "adult")),
        (age((0.2, 0.5, 0.3), {"adult": 0.9, "senior": 0.3}), ("age", "adult/senior")),
        (Attribute("a\nb", ("\u202ex", "y\ud800"), {"\u202ex": 0.1, "y\ud800": 0.9}), ("a\ufffdb", "y\ufffd")),
    ],
)
def test_finding(attribute, finding):
    assert attribute.finding() == finding


def test_is_immutable_and_apart_from_what_it_was_made_of():
    scores, thresholds = {"yes": 0.9, "no": 0.1}, {"yes": 0.7}
    attribute = Attribute("backpack", ("no", "yes"), scores, thresholds)
    scores["yes"], thresholds["yes"] = 0.0, 1.0
    assert list(attribute.scores.items()) == [("no", 0.1), ("yes", 0.9)]  # in the order of the classes
    assert attribute.present
    with pytest.raises(dataclasses.FrozenInstanceError):
        attribute.label = "other"
    for mapping in (attribute.scores, attribute.thresholds):
        with pytest.raises(TypeError):
            mapping["yes"] = 0.0


def test_equality_hash_and_copies():
    attribute = two(0.75, {"yes": 0.7})
    for other in (two(0.75, {"yes": 0.7}), copy.deepcopy(attribute), pickle.loads(pickle.dumps(attribute))):
        assert other == attribute
        assert hash(other) == hash(attribute)
    assert two(0.75) != attribute
